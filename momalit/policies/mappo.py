"""MAPPOModule: PPO with rollouts from the real environment ("online MAPPO")."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import torch

from momalit.core.records import Rollout
from momalit.core.team import TeamSpec
from momalit.envs.resumable_env import ResumableEnv
from momalit.envs.vector_env import VectorTeamEnv
from momalit.functional.surrogate import masked_mean
from momalit.policies.ppo import PPOModule
from momalit.policies.rollout import collect_rollout, initial_start
from momalit.training.batches import keyed_generator

logger = logging.getLogger(__name__)


class MAPPOModule(PPOModule):
    """Multi-agent PPO in the simulator. It trains experts and is the reference for offline methods.

    Episodes continue from one iteration to the next; a new one starts after each end. States are standardised with
    running statistics, which are updated after an iteration so that the policy is constant while its rollout is used.
    A resumed run restores unfinished episodes by replaying their actions.

    Args:
        spec: the team (the command line links it to the environment).
        warm_start: checkpoint of any team with one policy per agent, such as one that was trained offline, whose
            policies initialise the training; None starts from random weights.
        warm_start_std: initial standard deviation of the actions after a warm start, as a fraction of half the action
            range. None keeps that of the checkpoint.
        **kwargs: see ``PPOModule``; ``n_rollouts`` copies of the environment take ``horizon`` steps per iteration.
    """

    def __init__(
        self,
        spec: TeamSpec | Mapping[str, Any],
        warm_start: str | None = None,
        warm_start_std: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(spec, **kwargs)
        self.save_hyperparameters("warm_start", "warm_start_std")
        self._env: ResumableEnv | None = None

    def on_fit_start(self) -> None:
        """Loads the initial policies. A resumed run has its own, and the file may be gone."""
        super().on_fit_start()
        path = self.hparams["warm_start"]
        if path is not None and not self.steps_taken:
            self.warm_start_from(path, "the environment", self.hparams["warm_start_std"])
            self.critic.inputs.standardizer.load_state_dict(self.actor.inputs.standardizer.state_dict())

    def make_rollout(self, rows: int, generator: torch.Generator) -> Rollout:
        """Continues the real episodes for ``horizon`` steps in ``rows`` environments."""
        if self._env is None or self.unfinished is None or self.unfinished.now.state.shape[1] != rows:
            self._start_episodes(rows)
        assert self._env is not None and self.unfinished is not None
        env = _DeviceAdapter(self._env, self)
        rollout = collect_rollout(env, self.actor, self.unfinished, self.horizon, generator)
        self.record({"real/reward": masked_mean(rollout.reward, rollout.valid)})
        return rollout

    def _start_episodes(self, rows: int) -> None:
        random = keyed_generator("cpu", torch.initial_seed(), self.current_epoch, self.global_rank, 5)
        # Training seeds are in the upper half of the range and evaluation seeds in the lower half.
        seeds = torch.randint(2**30, 2**31 - 1, (rows,), generator=random).tolist()
        self._env = ResumableEnv(VectorTeamEnv(self.spec, rows, autoreset=True))
        state = self._to_weights(self._env.reset(seeds))
        self.unfinished = initial_start(state, self.spec.n_agents, self.spec.action_size)
        if float(self.actor.inputs.standardizer.count) == 0:
            self._initialize_statistics(rows)

    def process_state(self) -> dict[str, Any]:
        """Returns what is needed to restore the unfinished episodes."""
        return {} if self._env is None else {**super().process_state(), "episodes": self._env.history()}

    def restore_process_state(self, state: dict[str, Any]) -> None:
        """Replays the unfinished episodes up to the point where they were saved.

        If the environment does not reach the same states, new episodes start and a warning is logged.
        """
        if "episodes" not in state:
            return
        rows = len(state["episodes"]["seeds"])
        env = ResumableEnv(VectorTeamEnv(self.spec, rows, autoreset=True))
        replayed = env.replay(state["episodes"])
        if torch.equal(replayed, state["unfinished"][0][-1].to(replayed)):
            self._env = env
            super().restore_process_state(state)
        else:
            logger.warning("%s depends on more than seed and actions: new episodes start", self.spec.task)

    def _initialize_statistics(self, rows: int) -> None:
        """Computes the first statistics from a rollout of the untrained team in separate environments."""
        env = VectorTeamEnv(self.spec, rows, autoreset=True)
        random = keyed_generator("cpu", torch.initial_seed(), self.global_rank, 6)
        seeds = torch.randint(2**30, 2**31 - 1, (rows,), generator=random).tolist()
        with closing(env):
            state = self._to_weights(env.reset(seeds))
            start = initial_start(state, self.spec.n_agents, self.spec.action_size)
            noise = keyed_generator(self.device, torch.initial_seed(), self.global_rank, 7)
            self.after_iteration(collect_rollout(_DeviceAdapter(env, self), self.actor, start, self.horizon, noise))

    def _to_weights(self, values: torch.Tensor) -> torch.Tensor:
        return values.to(self.actor.head.weight)

    def after_iteration(self, rollout: Rollout) -> None:
        """Updates the running statistics with the states of the rollout."""
        states = rollout.state.flatten(0, 1)
        for inputs in (self.actor.inputs, self.critic.inputs):
            inputs.standardizer.update(states, all_ranks=True)


class _DeviceAdapter:
    """Moves tensors between the environments (CPU, float32) and the team's device and precision."""

    def __init__(self, env: ResumableEnv | VectorTeamEnv, module: MAPPOModule) -> None:
        self.env, self.device, self.dtype = env, module.device, module.actor.head.weight.dtype

    def step(self, action: torch.Tensor) -> Any:
        return self.env.step(action.cpu()).to(self.device).floating(self.dtype)
