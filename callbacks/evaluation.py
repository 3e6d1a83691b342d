"""Evaluation of a team, in the real environment where there is one and in the world model."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from momalit.core.checks import require_numbers
from momalit.core.distributed import gather_objects
from momalit.envs import references
from momalit.envs.vector_env import VectorTeamEnv
from momalit.envs.workers import worker_count
from momalit.policies.coverage import VisitRecorder
from momalit.policies.estimate import EliteReturns, ReturnEstimate, ReturnEstimator
from momalit.policies.moma_ppo import MOMAPPOModule
from momalit.policies.rollout import play_episodes
from momalit.policies.team_policy import TeamPolicyModule

# Evaluation seeds are below 2**30, and training on a real environment uses seeds above. Validation (which selects
# checkpoints), test (which is reported) and videos have separate seeds.
_STREAMS = {"validation": 1, "test": 2, "video": 3}
MOST_ROWS = 256  # episodes that run side by side; more of them follow, so that memory does not grow with their number


def episode_seeds(purpose: str, episodes: int) -> list[int]:
    """Returns distinct, reproducible environment seeds for ``purpose`` (``validation``, ``test`` or ``video``)."""
    words = np.random.SeedSequence([20230517, _STREAMS[purpose]]).generate_state(2 * episodes)
    unique = list(dict.fromkeys(int(word) % 2**29 * 2 + _STREAMS[purpose] % 2 for word in words))
    return unique[:episodes]


class Evaluation(pl.Callback):
    """Evaluates the deployed policies, which act on their own observations and by default deterministically.

    In ``fit`` and ``validate`` it runs episodes on the validation seeds and logs ``eval/return``, ``eval/return_std``,
    ``eval/normalized`` (if the task has reference returns). For teams with a world model it also logs the return that
    data alone promise, ``eval/estimate`` with its interval ``eval/estimate_low`` to ``eval/estimate_high``, and
    ``eval/outside``, the share of imagined steps outside the data (see ``ReturnEstimator``). ``test`` does the same on
    the test seeds, under ``test/``. The held-out episodes behind an estimate are those of the validation split, or in
    ``test`` of the test split.

    Without an environment, there are only estimates.

    The episodes are divided among the processes, and the metrics are over all of them.

    Args:
        environment: whether to run episodes in the environment that the dataset names. False evaluates in the world
            model alone, as for a dataset that names none.
        episodes: number of episodes per validation.
        test_episodes: number of episodes per test.
        deterministic: whether actions are the policies' modes; False samples them.
        imagined_episodes: number of imagined episodes of an estimate, over all members of the world model.
        workers: number of worker processes that step the environments. Returns do not depend on it. More than one is
            worthwhile for MuJoCo tasks on a machine with free cores. None means the value of the environment variable
            ``MOMALIT_WORKERS``, else 1.
    """

    def __init__(
        self,
        environment: bool = True,
        episodes: int = 20,
        test_episodes: int = 100,
        deterministic: bool = True,
        imagined_episodes: int = 500,
        workers: int | None = None,
    ) -> None:
        counts = {"episodes": episodes, "test_episodes": test_episodes, "imagined_episodes": imagined_episodes}
        require_numbers("evaluation.", counts, least=1)
        self.environment, self.episodes, self.test_episodes = environment, episodes, test_episodes
        self.deterministic, self.imagined_episodes = deterministic, imagined_episodes
        self.workers = workers if workers is None else worker_count(workers, "evaluation.workers")
        self.returns: Tensor | None = None
        self.elites: EliteReturns | None = None
        self._env: VectorTeamEnv | None = None
        self._estimators: dict[str, ReturnEstimator] = {}

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._run(trainer, pl_module, "validation", self.episodes, "eval")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._run(trainer, pl_module, "test", self.test_episodes, "test")

    def _run(self, trainer: pl.Trainer, module: pl.LightningModule, purpose: str, episodes: int, prefix: str) -> None:
        if not isinstance(module, TeamPolicyModule):
            return
        metrics = {}
        if self.plays(module):
            self.returns = self.episode_returns(module, purpose, episodes, trainer.global_rank, trainer.world_size)
            metrics = {"return": self.returns.mean(), "return_std": self.returns.std(correction=0)}
            if (reference := references(module.spec)) is not None:
                span = reference["expert"] - reference["random"]
                metrics["normalized"] = (metrics["return"] - reference["random"]) / span
        if isinstance(module, MOMAPPOModule) and module.world_model is not None:
            found = self.estimate(module, purpose)
            self.elites = found.elites
            metrics |= {"estimate": torch.tensor(found.mean), "estimate_low": torch.tensor(found.low)}
            metrics["estimate_high"] = torch.tensor(found.high)
            if found.outside is not None:
                metrics["outside"] = torch.tensor(found.outside)
        for name, value in metrics.items():
            module.log_synced({f"{prefix}/{name}": value.float()}, prog_bar=name == "return")

    def plays(self, module: TeamPolicyModule) -> bool:
        """Whether episodes run in the real environment: not if the dataset names none or ``environment`` is False."""
        return self.environment and module.spec.env is not None

    def episode_returns(
        self,
        module: TeamPolicyModule,
        purpose: str,
        episodes: int,
        rank: int = 0,
        world_size: int = 1,
        visits: VisitRecorder | None = None,
    ) -> Tensor:
        """Runs episodes in the real environment and returns their returns, ``(episodes,)``, in the order of the seeds.

        With ``world_size`` above 1, every process must call this. All get the same result.

        Args:
            module: the module of the team.
            purpose: ``validation``, ``test`` or ``video``, which determines the seeds.
            episodes: number of episodes over all processes.
            rank: rank of this process.
            world_size: number of processes.
            visits: records the states and joint actions of this process's first 256 episodes.
        """
        seeds = episode_seeds(purpose, episodes)
        own = list(range(rank, episodes, world_size))
        noise = None if self.deterministic else torch.Generator(module.device).manual_seed(seeds[0])
        played = [torch.zeros(0)]
        for first in range(0, len(own), MOST_ROWS):
            part = [seeds[i] for i in own[first : first + MOST_ROWS]]
            env = self._env_of(module, len(part))
            recorded = env if visits is None or first else visits.wrap(env)
            played.append(play_episodes(recorded, module.deployed, part, noise))
        own_returns = torch.cat(played)
        returns = torch.zeros(episodes)
        for process, part in enumerate(gather_objects(own_returns) if world_size > 1 else [own_returns]):
            returns[process::world_size] = part
        return returns

    def _env_of(self, module: TeamPolicyModule, n_rows: int) -> VectorTeamEnv:
        """The environment of the last evaluation if it has as many rows, else a new one."""
        if self._env is None or self._env.n_rows != n_rows:
            if self._env is not None:
                self._env.close()
            self._env = VectorTeamEnv(module.spec, n_rows, workers=self.workers)
        return self._env

    def estimate(self, module: MOMAPPOModule, purpose: str) -> ReturnEstimate:
        """The team's return according to its world model and held-out data.

        Args:
            module: the module of the team.
            purpose: ``validation`` or ``test``, which determines the held-out episodes.
        """
        estimator = self._estimators.get(purpose)
        if estimator is None or estimator.model is not module.world_model:
            data = module.data
            splits = (data.test, data.validation) if purpose == "test" else (data.validation, data.test)
            held_out = splits[0] if len(splits[0]) else splits[1]
            estimator = self._estimators[purpose] = ReturnEstimator(
                module.model,
                held_out,
                data.train,
                module.spec.horizon,
                self.imagined_episodes,
                bool(module.hparams["sample_predictions"]),
                self.deterministic,
            )
        return estimator.estimate(module.deployed)
