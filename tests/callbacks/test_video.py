"""Videos: what is in the files, what they are called, and that nothing about them stops a run."""

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
from callbacks.evaluation import episode_seeds
from callbacks.video_files import GifFile, Mp4File
from momalit.baselines import BCModule
from momalit.core.errors import UserError
from momalit.envs.coordination_game import CoordinationGame
from momalit.envs.factory import TASKS
from momalit.envs.vector_env import VectorTeamEnv
from momalit.policies.rollout import play_episodes


class Painted(CoordinationGame):
    """The coordination game as a strip that fills from the left with time; odd sizes."""

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
def painted(monkeypatch, icg):
    monkeypatch.setitem(TASKS, "icg", Painted)
    torch.manual_seed(0)
    return BCModule(icg.spec, width=8, gru_size=4)


def trainer(path, *callbacks):
    return pl.Trainer(
        max_epochs=2, accelerator="cpu", default_root_dir=path, logger=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        callbacks=list(callbacks), enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip


def images(path):
    with Image.open(path) as gif:
        for number in range(gif.n_frames):
            gif.seek(number)
            yield np.asarray(gif.convert("RGB")), gif.info["duration"]


def test_every_step_is_in_the_gif_and_in_its_colours(painted, tmp_path):
    before = {name: value.clone() for name, value in painted.state_dict().items()}
    (path,) = Video(formats=["gif"], size=100).film(painted, tmp_path, "last")
    frames = list(images(path))
    assert [duration for _, duration in frames] == [100] * 10 + [1000]
    for time, (frame, _) in enumerate(frames):
        assert frame.shape == (10, 100, 3)
        green = (frame[5, :, 1] > 100).sum()
        assert green == pytest.approx(10 * time, abs=1)
    assert np.abs(frames[-1][0].astype(int) - (0, 200, 0)).max() <= 32  # a colour that the first frame lacks
    assert all(torch.equal(value, before[name]) for name, value in painted.state_dict().items())
    assert painted.training
    env = VectorTeamEnv(painted.spec, 1)
    assert path.name == f"icg_last_{float(play_episodes(env, painted.actor, episode_seeds('video', 1))):.2f}.gif"


def test_an_mp4_has_as_many(painted, tmp_path):
    encoder = pytest.importorskip("imageio_ffmpeg", reason="needs imageio-ffmpeg").get_ffmpeg_exe()
    (path,) = Video(formats=["mp4"], fps=5).film(painted, tmp_path, "last")
    command = [encoder, "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    decoded = subprocess.run(command, capture_output=True, check=True)
    assert b" 5 fps" in decoded.stderr
    frames = np.frombuffer(decoded.stdout, np.uint8).reshape(-1, 40, 400, 3)
    assert len(frames) == 11
    assert frames[-1][..., 1].mean() > 150 > 50 > frames[0].mean()


def test_only_the_beginning_of_a_long_episode_is_shown_and_its_return_is_whole(painted, tmp_path):
    (path,) = Video(formats=["gif"], max_steps=3).film(painted, tmp_path, "last")
    whole = Video(formats=["gif"]).film(painted, tmp_path / "whole", "last")
    assert len(list(images(path))) == 4
    assert path.name == whole[0].name


def test_frames_are_left_out_of_fast_and_long_videos(tmp_path):
    strides = [GifFile(tmp_path / "a.gif", rate, steps, 9).stride for rate, steps in ((20, 250), (20, 500), (125, 50))]
    assert strides == [1, 2, 5]
    pytest.importorskip("imageio_ffmpeg", reason="needs imageio-ffmpeg")
    for rate, stride in ((20.0, 1), (50.0, 2), (125.0, 5)):
        file = Mp4File(tmp_path / "a.mp4", rate)
        file.close()
        assert file.stride == stride


def test_a_run_leaves_videos_along_the_way_and_of_its_end_and_test(painted, icg, tmp_path):
    fitting = trainer(tmp_path, Evaluation(episodes=1), Video(formats=["gif"], every_n_epochs=2, episodes=2))
    fitting.fit(painted, datamodule=icg)

    def stems():
        return sorted(path.name.rpartition("_")[0] for path in (tmp_path / "videos").iterdir())

    both = ["icg_{}_episode1", "icg_{}_episode2"]
    assert stems() == [name.format(what) for what in ("epoch00002", "last") for name in both]
    fitting.save_checkpoint(tmp_path / "kept.ckpt", weights_only=True)
    trainer(tmp_path, Video(formats=["gif"])).test(
        painted, datamodule=icg, ckpt_path=tmp_path / "kept.ckpt", verbose=False, weights_only=True
    )
    assert "icg_test-kept" in stems()


def test_the_best_checkpoint_is_filmed_and_replaces_its_earlier_video(painted, icg, tmp_path):
    stale = tmp_path / "videos/icg_best_-3.00.gif"
    stale.parent.mkdir()
    stale.touch()
    best = ModelCheckpoint(tmp_path, "best", monitor="eval/return", mode="max")
    fitting = trainer(tmp_path, Evaluation(episodes=1), best, Video(formats=["gif"]))
    fitting.fit(painted, datamodule=icg)
    (path,) = stale.parent.iterdir()
    assert path.name.startswith("icg_best_")
    assert path != stale
    for parameter in painted.actor.parameters():
        torch.nn.init.constant_(parameter, torch.nan)  # the file's weights are played, not these
    (again,) = Video(formats=["gif"]).film(painted, tmp_path / "again", "best", tmp_path / "best.ckpt")
    assert again.name == path.name


def test_an_environment_that_cannot_render_warns_once(icg, tmp_path, caplog):
    torch.manual_seed(0)
    video = Video(every_n_epochs=1, formats=["gif"])
    with caplog.at_level(logging.INFO, "callbacks"):
        fitting = trainer(tmp_path, video)
        fitting.fit(BCModule(icg.spec, width=8, gru_size=4), datamodule=icg)
    assert fitting.state.finished
    said = [r.getMessage() for r in caplog.records if r.name.startswith("callbacks")]
    assert said == ["Video: no videos of icg: the environment renders nothing"]
    assert not (tmp_path / "videos").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((4, 4, 3)), r"render\(\) gave float64 \(4, 4, 3\), expected an rgb_array"),
        (np.zeros((4, 4), np.uint8), r"render\(\) gave uint8 \(4, 4\), expected"),
        (None, r"render\(\) gave NoneType, expected"),
        (RuntimeError("no\n lamp"), "^RuntimeError: no lamp$"),
    ],
)
def test_what_is_no_picture_is_named_and_leaves_no_file(painted, tmp_path, monkeypatch, wrong, message):
    def render(self):
        if isinstance(wrong, Exception):
            raise wrong
        return wrong

    monkeypatch.setattr(Painted, "render", render)
    with pytest.raises(UserError, match=message):
        Video().film(painted, tmp_path / "videos", "last")
    assert not (tmp_path / "videos").exists()


def test_what_breaks_half_way_leaves_no_file(painted, tmp_path, monkeypatch):
    monkeypatch.setattr(Painted, "render", lambda self: np.zeros((10 // (5 - self._time), 4, 3), np.uint8))
    with pytest.raises(ZeroDivisionError):
        Video(formats=["gif"]).film(painted, tmp_path, "last")
    assert not list(tmp_path.iterdir())


def test_without_the_encoder_the_gif_remains(painted, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    video = Video()
    video.setup(SimpleNamespace(is_global_zero=True), painted, "fit")
    monkeypatch.undo()
    video.setup(SimpleNamespace(is_global_zero=True), painted, "test")
    assert [r.getMessage() for r in caplog.records] == ["Video: mp4 needs pip install imageio-ffmpeg; gif is written"]
    assert video.formats == ("gif",)


@pytest.mark.parametrize("state", [{"is_global_zero": False}, {"fast_dev_run": 1}])
def test_other_processes_and_trial_runs_film_nothing(painted, tmp_path, state):
    fake = SimpleNamespace(**{"is_global_zero": True, "fast_dev_run": 0, "default_root_dir": tmp_path, **state})
    Video(every_n_epochs=1).on_train_epoch_end(SimpleNamespace(**vars(fake), current_epoch=0), painted)
    assert not list(tmp_path.iterdir())


def test_videos_have_seeds_of_their_own():
    video = set(episode_seeds("video", 100))
    assert len(video) == 100
    assert not video & (set(episode_seeds("validation", 100)) | set(episode_seeds("test", 100)))


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
def test_settings_out_of_range(setting, value, message):
    with pytest.raises(UserError, match=rf"Video\.{setting}: {message}"):
        Video(**{setting: value})
