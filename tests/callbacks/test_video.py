"""Videos: content and names of the files; errors do not stop a run."""

import logging
import subprocess
from types import SimpleNamespace
from typing import ClassVar

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image

from callbacks import Evaluation, Video
from callbacks.real_episodes import episode_seeds
from callbacks.video_files import GifFile, Mp4File
from momalit.baselines import BCModule
from momalit.core.errors import UserError
from momalit.envs.coordination_game import CoordinationGame
from momalit.envs.factory import TASKS
from momalit.envs.vector_env import VectorTeamEnv
from momalit.policies.rollout import play_episodes


class RenderedGame(CoordinationGame):
    """A coordination game that renders its time as a green bar. Width and height are odd."""

    metadata: ClassVar = {**CoordinationGame.metadata, "render_fps": 10}

    def __init__(self, n_agents=2, n_actions=2, horizon=10, payoff="all", render_mode=None):
        super().__init__(n_agents, n_actions, horizon, payoff)
        self.render_mode = render_mode

    def render(self):
        assert self.render_mode == "rgb_array"
        frame = np.zeros((41, 401, 3), np.uint8)
        frame[:, : 401 * self._time // self.horizon] = (0, 200, 0)
        return frame


@pytest.fixture
def team(monkeypatch, icg):
    monkeypatch.setitem(TASKS, "icg", RenderedGame)
    torch.manual_seed(0)
    return BCModule(icg.spec, width=8, gru_size=4)


def make_trainer(path, *callbacks):
    return pl.Trainer(
        max_epochs=2, accelerator="cpu", default_root_dir=path, logger=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        callbacks=list(callbacks), enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip


def read_gif(path):
    with Image.open(path) as gif:
        for number in range(gif.n_frames):
            gif.seek(number)
            yield np.asarray(gif.convert("RGB")), gif.info["duration"]


def test_a_gif_has_every_step_in_the_right_colours(team, tmp_path):
    before = {name: value.clone() for name, value in team.state_dict().items()}
    (path,) = Video(formats=["gif"], size=100).record(team, tmp_path, "last")
    frames = list(read_gif(path))
    assert [duration for _, duration in frames] == [100] * 10 + [1000]
    for time, (frame, _) in enumerate(frames):
        assert frame.shape == (10, 100, 3)
        green = (frame[5, :, 1] > 100).sum()
        assert green == pytest.approx(10 * time, abs=1)
    assert np.abs(frames[-1][0].astype(int) - (0, 200, 0)).max() <= 32  # a colour that is not in the first frame
    assert all(torch.equal(value, before[name]) for name, value in team.state_dict().items())
    assert team.training
    env = VectorTeamEnv(team.spec, 1)
    assert path.name == f"icg_last_{float(play_episodes(env, team.actor, episode_seeds('video', 1))):.2f}.gif"


def test_an_mp4_has_every_step(team, tmp_path):
    encoder = pytest.importorskip("imageio_ffmpeg", reason="needs imageio-ffmpeg").get_ffmpeg_exe()
    (path,) = Video(formats=["mp4"], fps=5).record(team, tmp_path, "last")
    command = [encoder, "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    decoded = subprocess.run(command, capture_output=True, check=True)
    assert b" 5 fps" in decoded.stderr
    frames = np.frombuffer(decoded.stdout, np.uint8).reshape(-1, 40, 400, 3)
    assert len(frames) == 11
    assert frames[-1][..., 1].mean() > 150 > 50 > frames[0].mean()


def test_a_video_ends_at_max_steps_and_its_name_has_the_return_of_the_whole_episode(team, tmp_path):
    (path,) = Video(formats=["gif"], max_steps=3).record(team, tmp_path, "last")
    whole = Video(formats=["gif"]).record(team, tmp_path / "whole", "last")
    assert len(list(read_gif(path))) == 4
    assert path.name == whole[0].name


def test_fast_and_long_videos_skip_frames(tmp_path):
    strides = [GifFile(tmp_path / "a.gif", rate, steps, 9).stride for rate, steps in ((20, 250), (20, 500), (125, 50))]
    assert strides == [1, 2, 5]
    pytest.importorskip("imageio_ffmpeg", reason="needs imageio-ffmpeg")
    for rate, stride in ((20.0, 1), (50.0, 2), (125.0, 5)):
        file = Mp4File(tmp_path / "a.mp4", rate)
        file.close()
        assert file.stride == stride


def test_videos_are_recorded_during_and_after_fit_and_after_test(team, icg, tmp_path):
    fitting = make_trainer(tmp_path, Evaluation(episodes=1), Video(formats=["gif"], every_n_epochs=2, episodes=2))
    fitting.fit(team, datamodule=icg)

    def stems():
        return sorted(path.name.rpartition("_")[0] for path in (tmp_path / "videos").iterdir())

    both = ["icg_{}_episode1", "icg_{}_episode2"]
    assert stems() == [name.format(what) for what in ("epoch00002", "last") for name in both]
    fitting.save_checkpoint(tmp_path / "saved.ckpt", weights_only=True)
    make_trainer(tmp_path, Video(formats=["gif"])).test(
        team, datamodule=icg, ckpt_path=tmp_path / "saved.ckpt", verbose=False, weights_only=True
    )
    assert "icg_test-saved" in stems()


def test_a_video_of_the_best_checkpoint_replaces_earlier_ones(team, icg, tmp_path):
    stale = tmp_path / "videos/icg_best_-3.00.gif"
    stale.parent.mkdir()
    stale.touch()
    best = ModelCheckpoint(tmp_path, "best", monitor="eval/return", mode="max")
    fitting = make_trainer(tmp_path, Evaluation(episodes=1), best, Video(formats=["gif"]))
    fitting.fit(team, datamodule=icg)
    (path,) = stale.parent.iterdir()
    assert path.name.startswith("icg_best_")
    assert path != stale
    for parameter in team.actor.parameters():
        torch.nn.init.constant_(parameter, torch.nan)  # the checkpoint's weights must be used, not these
    (again,) = Video(formats=["gif"]).record(team, tmp_path / "again", "best", tmp_path / "best.ckpt")
    assert again.name == path.name


def test_an_environment_that_cannot_render_warns_once(icg, tmp_path, caplog):
    torch.manual_seed(0)
    video = Video(every_n_epochs=1, formats=["gif"])
    with caplog.at_level(logging.INFO, "callbacks"):
        fitting = make_trainer(tmp_path, video)
        fitting.fit(BCModule(icg.spec, width=8, gru_size=4), datamodule=icg)
    assert fitting.state.finished
    messages = [r.getMessage() for r in caplog.records if r.name.startswith("callbacks")]
    assert messages == ["Video: no videos of icg: the environment cannot render"]
    assert not (tmp_path / "videos").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((4, 4, 3)), r"render\(\): found float64 \(4, 4, 3\), expected an rgb_array"),
        (np.zeros((4, 4), np.uint8), r"render\(\): found uint8 \(4, 4\), expected"),
        (None, r"render\(\): found NoneType, expected"),
        (RuntimeError("no\n display"), "^RuntimeError: no display$"),
    ],
)
def test_an_invalid_frame_raises_an_error_and_leaves_no_file(team, tmp_path, monkeypatch, wrong, message):
    def render(self):
        if isinstance(wrong, Exception):
            raise wrong
        return wrong

    monkeypatch.setattr(RenderedGame, "render", render)
    with pytest.raises(UserError, match=message):
        Video().record(team, tmp_path / "videos", "last")
    assert not (tmp_path / "videos").exists()


def test_an_error_during_an_episode_leaves_no_file(team, tmp_path, monkeypatch):
    monkeypatch.setattr(RenderedGame, "render", lambda self: np.zeros((10 // (5 - self._time), 4, 3), np.uint8))
    with pytest.raises(ZeroDivisionError):
        Video(formats=["gif"]).record(team, tmp_path, "last")
    assert not list(tmp_path.iterdir())


def test_without_an_encoder_only_the_gif_is_written(team, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    video = Video()
    video.setup(SimpleNamespace(is_global_zero=True), team, "fit")
    monkeypatch.undo()
    video.setup(SimpleNamespace(is_global_zero=True), team, "test")
    assert [r.getMessage() for r in caplog.records] == ["Video: mp4 needs pip install imageio-ffmpeg; gif is written"]
    assert video.formats == ("gif",)


@pytest.mark.parametrize("state", [{"is_global_zero": False}, {"fast_dev_run": 1}])
def test_other_ranks_and_fast_dev_run_record_nothing(team, tmp_path, state):
    trainer = SimpleNamespace(**{"is_global_zero": True, "fast_dev_run": 0, "default_root_dir": tmp_path, **state})
    Video(every_n_epochs=1).on_train_epoch_end(SimpleNamespace(**vars(trainer), current_epoch=0), team)
    assert not list(tmp_path.iterdir())


def test_video_seeds_are_disjoint_from_evaluation_seeds():
    seeds = set(episode_seeds("video", 100))
    assert len(seeds) == 100
    assert not seeds & (set(episode_seeds("validation", 100)) | set(episode_seeds("test", 100)))


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("episodes", 0, "found 0, expected at least 1"),
        ("max_steps", 0, "found 0, expected at least 1"),
        ("every_n_epochs", 0, "found 0, expected at least 1"),
        ("fps", -1.0, "found -1.0, expected a positive number"),
        ("formats", ["avi"], r"found \['avi'\], expected a list of some of mp4, gif"),
        ("formats", "gif", "found 'gif', expected a list"),
    ],
)
def test_settings_out_of_range_raise_an_error(setting, value, message):
    with pytest.raises(UserError, match=rf"Video\.{setting}: {message}"):
        Video(**{setting: value})
