"""Evaluation of a team, in the real environment where there is one and in the world model."""

from __future__ import annotations

from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor

from callbacks.real_episodes import Played, RealEpisodes, changed_spec, episode_seeds
from momalit.core.checks import require_numbers
from momalit.core.distributed import gather_objects
from momalit.core.errors import UserError
from momalit.envs import VectorTeamEnv, references
from momalit.envs.workers import worker_count
from momalit.policies.coverage import VisitRecorder
from momalit.policies.estimate import EliteReturns, ReturnEstimate, ReturnEstimator
from momalit.policies.moma_ppo import MOMAPPOModule
from momalit.policies.team_policy import TeamPolicyModule


class Judgement(NamedTuple):
    """What is known of a team.

    Args:
        returns: of real episodes ``(episodes,)``, in the order of their seeds; None without an environment.
        visits: the steps of this process's first episodes, if they were to be recorded.
        estimate: the return that data alone promise; None for teams without a world model.
    """

    returns: Tensor | None
    visits: VisitRecorder
    estimate: ReturnEstimate | None


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
        workers: number of processes that run episodes. Results do not depend on it. None means the value of the
            environment variable ``MOMALIT_WORKERS``, else 1; on the command line built-in tasks use all cores if
            ``--parallel`` is ``auto``.
        changed: names of worlds that are not that of the data, each with settings of its environment, such as
            ``{"heavier": {"dynamics": {"mass": 1.3}}}``. The test of the last checkpoint is repeated in them.
    """

    def __init__(
        self,
        environment: bool = True,
        episodes: int = 20,
        test_episodes: int = 100,
        deterministic: bool = True,
        imagined_episodes: int = 500,
        workers: int | None = None,
        changed: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        counts = {"episodes": episodes, "test_episodes": test_episodes, "imagined_episodes": imagined_episodes}
        require_numbers("evaluation.", counts, least=1)
        self.environment, self.episodes, self.test_episodes = environment, episodes, test_episodes
        self.deterministic, self.imagined_episodes = deterministic, imagined_episodes
        self.real = RealEpisodes(
            deterministic, None if workers is None else worker_count(workers, "evaluation.workers")
        )
        self.changed = changed or {}
        self.returns: Tensor | None = None
        self.elites: EliteReturns | None = None
        self._estimators: dict[str, ReturnEstimator] = {}

    def use_cores(self, cores: int) -> None:
        """Sets the number of processes that play built-in tasks if neither ``workers`` nor ``MOMALIT_WORKERS`` does."""
        self.real.cores = cores

    def require_worlds(self, module: TeamPolicyModule) -> None:
        """Makes each changed world and starts an episode there.

        Raises:
            UserError: one cannot be made or has another team, or there is no environment to change.
        """
        if self.changed and not self.plays(module):
            names = ", ".join(self.changed)
            raise UserError(f"evaluation.changed: found {names}, expected none, as there is no environment to change")
        for name, settings in self.changed.items():
            try:
                env = VectorTeamEnv(changed_spec(module.spec, settings), 1, workers=1)
                env.reset(episode_seeds("test", 1))
                env.close()
            except UserError as error:
                raise UserError(f"evaluation.changed.{name}: {error}") from error
            except (ValueError, IndexError) as error:
                raise UserError(f"evaluation.changed.{name}: its states do not fit the team ({error})") from error

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._run(trainer, pl_module, "validation", self.episodes, "eval")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._run(trainer, pl_module, "test", self.test_episodes, "test")
        if isinstance(pl_module, TeamPolicyModule):
            changed = self.in_changed_worlds(pl_module, trainer.global_rank, trainer.world_size)
            pl_module.log_synced({f"test/return in {name}": returns.mean() for name, returns in changed.items()})

    def _run(self, trainer: pl.Trainer, module: pl.LightningModule, purpose: str, episodes: int, prefix: str) -> None:
        if not isinstance(module, TeamPolicyModule):
            return
        metrics = {}
        judged = self.judge(module, purpose, episodes, trainer.global_rank, trainer.world_size)
        if judged.returns is not None:
            self.returns = judged.returns
            metrics = {"return": self.returns.mean(), "return_std": self.returns.std(correction=0)}
            if (reference := references(module.spec)) is not None:
                span = reference["expert"] - reference["random"]
                metrics["normalized"] = (metrics["return"] - reference["random"]) / span
        if (found := judged.estimate) is not None:
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

    def judge(
        self,
        module: TeamPolicyModule,
        purpose: str,
        episodes: int,
        rank: int = 0,
        world_size: int = 1,
        record: bool = False,
    ) -> Judgement:
        """Runs real episodes, where there is an environment, and imagined ones, where there is a world model.

        With ``world_size`` above 1, every process must call this. All get the same returns.

        Args:
            module: the module of the team.
            purpose: ``validation``, ``test`` or ``video``, which determines the seeds.
            episodes: number of real episodes over all processes.
            rank: rank of this process.
            world_size: number of processes.
            record: whether to record the steps of this process's first 256 episodes.
        """

        def estimate() -> ReturnEstimate | None:
            if isinstance(module, MOMAPPOModule) and module.world_model is not None:
                return self.estimate(module, purpose)
            return None

        if not self.plays(module):
            return Judgement(None, VisitRecorder(), estimate())
        own = episode_seeds(purpose, episodes)[rank::world_size]
        played, found = self.real.play(module, own, record, estimate)
        returns = _of_all_processes(played, episodes, world_size)
        return Judgement(returns, VisitRecorder.joined([part.visits for part in played if part.visits]), found)

    def in_changed_worlds(self, module: TeamPolicyModule, rank: int = 0, world_size: int = 1) -> dict[str, Tensor]:
        """Repeats the test in each of ``changed``, and returns the returns there ``(test_episodes,)``.

        With ``world_size`` above 1, every process must call this. All get the same returns.
        """
        own = episode_seeds("test", self.test_episodes)[rank::world_size]
        returns = {}
        for name, settings in self.changed.items() if self.plays(module) else ():
            played, _ = self.real.play(module, own, False, lambda: None, settings)
            returns[name] = _of_all_processes(played, self.test_episodes, world_size)
        return returns

    def episode_returns(self, module: TeamPolicyModule, purpose: str, episodes: int) -> Tensor:
        """Runs episodes in the real environment and returns their returns, ``(episodes,)``, in the order of the seeds.

        Args:
            module: the module of the team.
            purpose: ``validation``, ``test`` or ``video``, which determines the seeds.
            episodes: number of episodes.
        """
        played, _ = self.real.play(module, episode_seeds(purpose, episodes), False, lambda: None)
        return torch.cat([part.returns for part in played])

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


def _of_all_processes(played: list[Played], episodes: int, world_size: int) -> Tensor:
    """The returns of all processes' episodes ``(episodes,)``, in the order of the seeds."""
    own_returns = torch.cat([part.returns for part in played])
    returns = torch.zeros(episodes)
    for process, part in enumerate(gather_objects(own_returns) if world_size > 1 else [own_returns]):
        returns[process::world_size] = part
    return returns
