"""Evaluation in the real environment."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from momalit.core.distributed import gather_objects
from momalit.core.errors import UserError
from momalit.envs import references
from momalit.envs.vector_env import VectorTeamEnv
from momalit.envs.workers import worker_count
from momalit.policies.coverage import VisitRecorder
from momalit.policies.moma_ppo import MOMAPPOModule
from momalit.policies.rollout import play_episodes
from momalit.policies.team_policy import TeamPolicyModule

# Evaluation seeds lie below 2**30; training on a real environment draws from above. Validation, which selects
# checkpoints, test, which is reported, and videos have streams of their own.
_STREAMS = {"validation": 1, "test": 2, "video": 3}


def episode_seeds(purpose: str, episodes: int) -> list[int]:
    """Distinct, reproducible environment seeds for ``purpose`` (``validation``, ``test`` or ``video``)."""
    words = np.random.SeedSequence([20230517, _STREAMS[purpose]]).generate_state(2 * episodes)
    unique = list(dict.fromkeys(int(word) % 2**29 * 2 + _STREAMS[purpose] % 2 for word in words))
    return unique[:episodes]


class Evaluation(pl.Callback):
    """Plays whole episodes with the team as it would be deployed: deterministic, each agent on its own observations.

    In ``fit`` and ``validate`` it plays the validation seeds and logs ``eval/return``, ``eval/return_std``,
    ``eval/normalized`` (where the task has reference returns) and, for teams with a world model, ``eval/imagined``:
    the return the model promises the same team. ``test`` does the same on the test seeds, under ``test/``.

    Every process plays its share of the seeds; the numbers are those of all.

    Args:
        episodes: episodes per validation.
        test_episodes: episodes per test.
        deterministic: take each policy's mode; False samples.
        imagined_episodes: episodes imagined for comparison.
        workers: among how many processes the real episodes are shared out, the returns being the same; worthwhile for
            MuJoCo's robots where cores are free. None is what the environment variable ``MOMALIT_WORKERS`` says,
            else 1.
    """

    def __init__(
        self,
        episodes: int = 20,
        test_episodes: int = 100,
        deterministic: bool = True,
        imagined_episodes: int = 256,
        workers: int | None = None,
    ) -> None:
        for name, number in (("episodes", episodes), ("test_episodes", test_episodes)):
            if number < 1:
                raise UserError(f"Evaluation.{name}: found {number}, expected at least 1")
        self.episodes, self.test_episodes = episodes, test_episodes
        self.deterministic, self.imagined_episodes = deterministic, imagined_episodes
        self.workers = workers if workers is None else worker_count(workers, "Evaluation.workers")
        self.returns: Tensor | None = None
        self._env: VectorTeamEnv | None = None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._run(trainer, pl_module, "validation", self.episodes, "eval")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._run(trainer, pl_module, "test", self.test_episodes, "test")

    def _run(self, trainer: pl.Trainer, module: pl.LightningModule, purpose: str, episodes: int, prefix: str) -> None:
        if not isinstance(module, TeamPolicyModule):
            return
        self.returns = self.play(module, purpose, episodes, trainer.global_rank, trainer.world_size)
        figures = {"return": self.returns.mean(), "return_std": self.returns.std(correction=0)}
        if (reference := references(module.spec)) is not None:
            span = reference["expert"] - reference["random"]
            figures["normalized"] = (figures["return"] - reference["random"]) / span
        if isinstance(module, MOMAPPOModule) and module.world_model is not None:
            figures["imagined"] = self.imagine(module).mean().cpu()
        for name, value in figures.items():
            module.log_synced({f"{prefix}/{name}": value.float()}, prog_bar=name == "return")

    def play(
        self,
        module: TeamPolicyModule,
        purpose: str,
        episodes: int,
        rank: int = 0,
        world_size: int = 1,
        visits: VisitRecorder | None = None,
    ) -> Tensor:
        """Returns of all episodes of ``purpose``, in the order of their seeds, the same in every process.

        Args:
            module: the team's.
            purpose: ``validation``, ``test`` or ``video``.
            episodes: of all processes together.
            rank: of this process.
            world_size: number of processes.
            visits: takes down the states and joint actions of this process's share.
        """
        seeds = episode_seeds(purpose, episodes)
        mine = list(range(rank, episodes, world_size))
        played = torch.zeros(0)
        if mine:
            if self._env is None or self._env.n_rows != len(mine):
                if self._env is not None:
                    self._env.close()
                self._env = VectorTeamEnv(module.spec, len(mine), workers=self.workers)
            noise = None if self.deterministic else torch.Generator(module.device).manual_seed(seeds[0])
            env = self._env if visits is None else visits.of(self._env)
            played = play_episodes(env, module.deployed, [seeds[i] for i in mine], noise)
        returns = torch.zeros(episodes)
        for share, part in enumerate(gather_objects(played) if world_size > 1 else [played]):
            returns[share::world_size] = part
        return returns

    def imagine(self, module: MOMAPPOModule) -> Tensor:
        """Imagined, unpenalised returns of the same team from the first states of the data's episodes."""
        data = module.data.train
        first = data.first[: self.imagined_episodes]
        return module.imagined_returns(data.state[data.row[first]].to(module.device), module.spec.horizon)
