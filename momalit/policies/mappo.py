"""MAPPOModule: the same PPO, on the real environment ("online MAPPO")."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import torch

from momalit.core.records import Rollout, Sequence
from momalit.core.team import TeamSpec
from momalit.envs.resumable_env import ResumableEnv
from momalit.envs.vector_env import VectorTeamEnv
from momalit.functional.surrogate import masked_mean
from momalit.policies.ppo import PPOModule
from momalit.policies.rollout import collect_rollout, initial_sequence
from momalit.training.batches import keyed_generator

logger = logging.getLogger(__name__)


class MAPPOModule(PPOModule):
    """Multi-agent PPO against the simulator: trains experts, and is the bound that offline methods are compared with.

    Rows live on from one iteration to the next; an episode that ends is followed by a new one. States are standardised
    by running statistics, updated after an iteration so that a policy does not change while its rollout is used. A
    continued run takes its episodes up where they were, by playing them again up to there.

    Args:
        spec: the team (the command line links it to the environment).
        **kwargs: see ``PPOModule``; ``rows`` copies of the environment take ``horizon`` steps per iteration.
    """

    def __init__(self, spec: TeamSpec | Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(spec, **kwargs)
        self._env: ResumableEnv | None = None
        self._now: Sequence | None = None

    def make_rollout(self, rows: int, generator: torch.Generator) -> Rollout:
        """Continues the real episodes for ``horizon`` steps."""
        if self._env is None or self._now is None or self._now.state.shape[1] != rows:
            self._begin(rows)
        assert self._env is not None and self._now is not None
        rollout = collect_rollout(_Beside(self._env, self), self.actor, self._now, self.horizon, generator)
        whole, tail = rollout.sequence, max(rollout.state.shape[0] - self.burn_in - 1, 0)
        self._now = Sequence(whole.state[tail:], whole.previous_action[tail:], whole.keep[tail:])
        self.record({"real/reward": masked_mean(rollout.reward, rollout.valid)})
        return rollout

    def _begin(self, rows: int) -> None:
        random = keyed_generator("cpu", torch.initial_seed(), self.current_epoch, self.global_rank, 5)
        # Training seeds take the upper half of the range, evaluation seeds the lower.
        seeds = torch.randint(2**30, 2**31 - 1, (rows,), generator=random).tolist()
        self._env = ResumableEnv(VectorTeamEnv(self.spec, rows, autoreset=True))
        state = self._like_weights(self._env.reset(seeds))
        self._now = initial_sequence(state, self.spec.n_agents, self.spec.action_size)
        if float(self.actor.inputs.standardizer.count) == 0:
            self._learn_statistics(rows)

    def process_state(self) -> dict[str, Any]:
        """The episodes under way."""
        if self._env is None or self._now is None:
            return {}
        now = [self._now.state, self._now.previous_action, self._now.keep]
        return {"episodes": self._env.history(), "now": now}

    def restore_process_state(self, state: dict[str, Any]) -> None:
        """Plays the episodes under way again, up to where they were.

        An environment that does not come back to the same states begins new episodes; a warning tells so.
        """
        if "episodes" not in state:
            return
        rows = len(state["episodes"]["seeds"])
        env = ResumableEnv(VectorTeamEnv(self.spec, rows, autoreset=True))
        reached = env.replay(state["episodes"])
        if torch.equal(reached, state["now"][0][-1].to(reached)):
            self._env, self._now = env, Sequence(*(tensor.to(self.device) for tensor in state["now"]))
        else:
            logger.warning("%s depends on more than seed and actions: new episodes begin", self.spec.task)

    def _learn_statistics(self, rows: int) -> None:
        """First statistics, from rollouts of the untrained team in copies of their own."""
        env = VectorTeamEnv(self.spec, rows, autoreset=True)
        random = keyed_generator("cpu", torch.initial_seed(), self.global_rank, 6)
        seeds = torch.randint(2**30, 2**31 - 1, (rows,), generator=random).tolist()
        with closing(env):
            state = self._like_weights(env.reset(seeds))
            start = initial_sequence(state, self.spec.n_agents, self.spec.action_size)
            noise = keyed_generator(self.device, torch.initial_seed(), self.global_rank, 7)
            self.after_iteration(collect_rollout(_Beside(env, self), self.actor, start, self.horizon, noise))

    def _like_weights(self, values: torch.Tensor) -> torch.Tensor:
        return values.to(self.actor.head.weight)

    def after_iteration(self, rollout: Rollout) -> None:
        """Takes the states just visited into the running statistics."""
        states = rollout.state[rollout.burn_in :].flatten(0, 1)
        for inputs in (self.actor.inputs, self.critic.inputs):
            inputs.standardizer.update(states, of_all=True)


class _Beside:
    """The real environments live on the CPU in 32 bits, the team where and how Lightning put it."""

    def __init__(self, env: ResumableEnv | VectorTeamEnv, module: MAPPOModule) -> None:
        self.env, self.device, self.dtype = env, module.device, module.actor.head.weight.dtype

    def step(self, action: torch.Tensor) -> Any:
        return self.env.step(action.cpu()).to(self.device).floating(self.dtype)
