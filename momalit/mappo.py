"""MAPPOModule: the same PPO, on the real environment ("online MAPPO")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from momalit.batches import generator_for
from momalit.envs.vector import VectorTeamEnv
from momalit.functional.surrogate import masked_mean
from momalit.ppo import PPOModule
from momalit.records import Rollout, Sequence
from momalit.rollout import collect_rollout, first_times
from momalit.team import TeamSpec


class MAPPOModule(PPOModule):
    """Multi-agent PPO against the simulator: trains experts, and is the bound that offline methods are compared with.

    Rows live on from one iteration to the next; an episode that ends is followed by a new one. States are standardised
    by running statistics, updated after an iteration so that a policy does not change while its rollout is used.

    Args:
        spec: the team (the command line links it to the environment).
        **kwargs: see ``PPOModule``; ``rows`` copies of the environment take ``horizon`` steps per iteration.
    """

    def __init__(self, spec: TeamSpec | Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(spec, **kwargs)
        self._env: VectorTeamEnv | None = None
        self._now: Sequence | None = None

    def make_rollout(self, rows: int, generator: torch.Generator) -> Rollout:
        """Continues the real episodes for ``horizon`` steps."""
        if self._env is None or self._now is None:
            self._begin(rows)
        assert self._env is not None and self._now is not None
        rollout = collect_rollout(_OnDevice(self._env, self.device), self.actor, self._now, self.horizon, generator)
        whole, tail = rollout.sequence, max(rollout.state.shape[0] - self.memory_length - 1, 0)
        self._now = Sequence(whole.state[tail:], whole.previous_action[tail:], whole.keep[tail:])
        self._note({"real/reward": masked_mean(rollout.reward, rollout.valid)})
        return rollout

    def _begin(self, rows: int) -> None:
        random = generator_for("cpu", torch.initial_seed(), self.current_epoch, self.global_rank, 5)
        # Training seeds take the upper half of the range, evaluation seeds the lower.
        seeds = torch.randint(2**30, 2**31 - 1, (rows,), generator=random).tolist()
        self._env = VectorTeamEnv(self.spec, rows, autoreset=True)
        state = self._env.reset(seeds).to(self.device)
        self._now = first_times(state, self.spec.n_agents, self.spec.action_size)
        if float(self.actor.inputs.standardizer.count) == 0:
            self._learn_statistics(rows)

    def _learn_statistics(self, rows: int) -> None:
        """First statistics, from rollouts of the untrained team in copies of their own."""
        env = VectorTeamEnv(self.spec, rows, autoreset=True)
        random = generator_for("cpu", torch.initial_seed(), self.global_rank, 6)
        state = env.reset(torch.randint(2**30, 2**31 - 1, (rows,), generator=random).tolist()).to(self.device)
        start = first_times(state, self.spec.n_agents, self.spec.action_size)
        noise = generator_for(self.device, torch.initial_seed(), self.global_rank, 7)
        self.after_iteration(collect_rollout(_OnDevice(env, self.device), self.actor, start, self.horizon, noise))

    def after_iteration(self, rollout: Rollout) -> None:
        """Takes the states just visited into the running statistics."""
        gathered: Any = self.all_gather(rollout.state[rollout.burn_in :])
        states = gathered.reshape(-1, self.spec.state_size)
        for inputs in (self.actor.inputs, self.critic.inputs):
            inputs.standardizer.update(states)


class _OnDevice:
    """The real environments live on the CPU, the team where Lightning put it."""

    def __init__(self, env: VectorTeamEnv, device: torch.device) -> None:
        self.env, self.device = env, device

    def step(self, action: torch.Tensor) -> Any:
        return self.env.step(action.cpu()).to(self.device)
