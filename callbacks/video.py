"""Videos of episodes."""

from __future__ import annotations

import copy
import glob
import logging
import math
import re
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import lightning.pytorch as pl

from callbacks.filmed_env import FilmedEnv, one_line
from callbacks.final_report import best_checkpoint
from callbacks.real_episodes import episode_seeds
from callbacks.video_files import FORMATS, missing_package
from momalit.core.checks import require_numbers
from momalit.core.errors import UserError
from momalit.envs.rendering import egl_without_display
from momalit.nn.actors import TeamActor
from momalit.policies.rollout import play_episodes
from momalit.policies.team_policy import TeamPolicyModule
from momalit.training.checkpoints import read_checkpoint

logger = logging.getLogger(__name__)


class Video(pl.Callback):
    """Records videos of the deployed policies, which act deterministically on their own observations.

    After ``fit`` it records the best checkpoint if there is one, else the last weights. After ``test`` it records the
    tested weights. Videos have separate environment seeds.

    Files are ``videos/<task>_<what>_<return>.<format>`` in the trainer's ``default_root_dir``, on the command line the
    run's directory. ``what`` is ``best``, ``last``, ``test``, ``test-<checkpoint>`` or ``epoch<number>``, and the
    return is that of the whole episode. Earlier videos of the same task and ``what`` are replaced.

    The environment must render ``rgb_array``. If that or anything else fails, a warning gives the cause and the run
    continues. Only rank 0 records.

    Args:
        episodes: number of episodes recorded each time, one file each.
        formats: some of ``mp4`` (needs the package imageio-ffmpeg) and ``gif``.
        fps: speed in environment steps per second; null for the environment's own. Frames are skipped above 30 per
            second (``mp4``) or 25 per second (``gif``), and in a long ``gif``.
        max_steps: number of recorded steps; the rest of the episode runs without rendering.
        size: width of the ``gif`` in pixels; smaller frames are not enlarged.
        every_n_epochs: training epochs between videos; null for none during training.

    Raises:
        UserError: a setting is outside its range.
    """

    def __init__(
        self,
        episodes: int = 1,
        formats: Sequence[str] = ("mp4", "gif"),
        fps: float | None = None,
        max_steps: int = 500,
        size: int = 320,
        every_n_epochs: int | None = None,
    ) -> None:
        require_numbers("Video.", {"episodes": episodes, "max_steps": max_steps, "size": size}, least=1)
        require_numbers("Video.", {"every_n_epochs": every_n_epochs}, least=1, optional=True)
        if fps is not None and not (math.isfinite(fps) and fps > 0):
            raise UserError(f"Video.fps: found {fps}, expected a positive number")
        if isinstance(formats, str) or not formats or not set(formats) <= set(FORMATS):
            raise UserError(f"Video.formats: found {formats!r}, expected a list of some of {', '.join(FORMATS)}")
        self.episodes, self.fps, self.max_steps, self.size = episodes, fps, max_steps, size
        self.formats = tuple(dict.fromkeys(formats))
        self.every_n_epochs = every_n_epochs

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Removes formats whose package is missing, with a warning."""
        for kind in self.formats:
            if (package := missing_package(kind)) is not None:
                self.formats = tuple(other for other in self.formats if other != kind)
                if trainer.is_global_zero:
                    rest = ", ".join(self.formats) or "nothing"
                    logger.warning("Video: %s needs pip install %s; %s is written", kind, package, rest)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if self.every_n_epochs is not None and epoch % self.every_n_epochs == 0:
            self._record(trainer, pl_module, f"epoch{epoch:05d}")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        best = best_checkpoint(trainer)
        self._record(trainer, pl_module, "last" if best is None else "best", best)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        tested = trainer.ckpt_path
        self._record(trainer, pl_module, f"test-{Path(tested).stem}" if tested else "test")

    def _record(self, trainer: pl.Trainer, module: pl.LightningModule, what: str, weights: Path | None = None) -> None:
        """Records videos of a module, with the weights of a checkpoint if one is given. Errors become warnings."""
        if trainer.fast_dev_run or not self.formats or not isinstance(module, TeamPolicyModule):  # type: ignore[attr-defined]
            return
        if not trainer.is_global_zero or module.spec.env is None:
            return
        try:
            paths = self.record(module, Path(trainer.default_root_dir) / "videos", what, weights)
            logger.info("videos: %s", ", ".join(map(str, paths)))
        except Exception as error:  # a failed video must not end the run
            logger.warning("Video: no videos of %s: %s", module.spec.task, one_line(error))
            self.formats = ()

    def record(self, module: TeamPolicyModule, folder: Path, what: str, weights: Path | None = None) -> list[Path]:
        """Runs and records episodes. The module does not change.

        Args:
            module: the module with the policies.
            folder: directory for the files.
            what: part of the file names.
            weights: a checkpoint of the module; None uses its current weights.

        Returns:
            the files.

        Raises:
            UserError: the environment cannot be rendered.
        """
        actor = _actor(module, weights)
        stem = f"{re.sub(r'[^A-Za-z0-9.+-]+', '-', module.spec.task)}_{what}"
        earlier = set(folder.glob(f"{glob.escape(stem)}_*"))
        paths: list[Path] = []
        with egl_without_display(), closing(FilmedEnv(module.spec, self.max_steps)) as env:
            folder.mkdir(parents=True, exist_ok=True)
            for number, seed in enumerate(episode_seeds("video", self.episodes), 1):
                name = stem if self.episodes == 1 else f"{stem}_episode{number}"
                paths += self._record_episode(env, actor, seed, folder, name)
        for path in earlier - set(paths):
            path.unlink(missing_ok=True)
        return paths

    def _record_episode(self, env: FilmedEnv, actor: TeamActor, seed: int, folder: Path, name: str) -> list[Path]:
        rate = self.fps or env.rate
        steps = min(self.max_steps, env.spec.horizon)
        partial = {kind: folder / f".partial-{name}.{kind}" for kind in self.formats}
        try:
            with ExitStack() as stack:
                env.files = []
                for kind, path in partial.items():
                    env.files.append(FORMATS[kind](path, rate, steps, self.size))
                    stack.callback(env.files[-1].close)
                team_return = float(play_episodes(env, actor, [seed]))
            rounded = f"{team_return:.0f}" if abs(team_return) >= 100 else f"{team_return:.2f}"
            return [path.replace(folder / f"{name}_{rounded}.{kind}") for kind, path in partial.items()]
        finally:
            for path in partial.values():
                path.unlink(missing_ok=True)


def _actor(module: TeamPolicyModule, weights: Path | None) -> TeamActor:
    """Returns a copy of the deployed policies on the CPU."""
    actor = copy.deepcopy(module.deployed).cpu().eval()
    if weights is not None:
        stored = read_checkpoint(weights)["state_dict"]
        start = next(name for name, child in module.named_children() if child is module.deployed) + "."
        own = {name.removeprefix(start): value for name, value in stored.items() if name.startswith(start)}
        actor.load_state_dict(own)
    return actor
