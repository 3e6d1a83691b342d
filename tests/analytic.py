"""Small batched environments with a known optimum, and their team specifications."""

from __future__ import annotations

import torch
from torch import Tensor

from momalit.core.records import Start, Step
from momalit.core.team import AgentSpec, TeamSpec
from momalit.policies.rollout import initial_start


def split_target_spec() -> TeamSpec:
    """Two agents of different sizes; the state is a target (x, y)."""
    agents = (
        AgentSpec("left", (0,), 2, (-1.0, -1.0), (1.0, 1.0)),
        AgentSpec("right", (1, 0), 1, (-1.0,), (1.0,)),
    )
    return TeamSpec("split-target", agents, 2, False, 4, (("state", 0), ("state", 1)))


def recall_spec() -> TeamSpec:
    """One agent that sees a cue at the first step only; the state is (cue, progress)."""
    agent = AgentSpec("agent", (0, 1), 2)
    return TeamSpec("recall", (agent,), 2, True, 4, (("state", 0), ("state", 1)))


def masked_spec() -> TeamSpec:
    """Two agents with three and two actions. The action mask in the state forbids the first agent's best action."""
    agents = (AgentSpec("one", (0,), 3, legal=(1, 2, 3)), AgentSpec("two", (0,), 2))
    return TeamSpec("masked", agents, 4, True, 1, tuple(("state", i) for i in range(4)))


class AnalyticEnv:
    """B copies of an environment with episodes of ``horizon`` steps. Subclasses define the task.

    Args:
        spec: the team.
        rows: B.
        seed: seed of the initial states.
    """

    def __init__(self, spec: TeamSpec, rows: int, seed: int) -> None:
        self.spec, self.random, self.time = spec, torch.Generator().manual_seed(seed), 0
        self.state = self.first(rows)

    def first(self, rows: int) -> Tensor:
        """Returns the initial states."""
        raise NotImplementedError

    def outcome(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """Returns next state and reward."""
        raise NotImplementedError

    def start(self) -> Start:
        return initial_start(self.state, self.spec.n_agents, self.spec.action_size)

    def step(self, action: Tensor) -> Step:
        self.time += 1
        self.state, reward = self.outcome(action)
        no = torch.zeros(len(reward), dtype=torch.bool)
        truncated = self.time == self.spec.horizon
        valid = torch.full_like(no, self.time <= self.spec.horizon)
        return Step(self.state, reward * valid, no, no | truncated, valid, no, no)


class SplitTarget(AnalyticEnv):
    """Reward -(a_left0 + a_right0 - x - y)^2. The optimum 0 requires both agents to cooperate."""

    def first(self, rows: int) -> Tensor:
        return torch.rand(rows, 2, generator=self.random) - 0.5

    def outcome(self, action: Tensor) -> tuple[Tensor, Tensor]:
        miss = action[:, 0, 0] + action[:, 1, 0] - self.state.sum(-1)
        return self.state, -miss.square() - 0.1 * action[:, 0, 1].square()


class Recall(AnalyticEnv):
    """The cue (±1) is visible only in the first step, and the last action must match it. The best return is 1."""

    def first(self, rows: int) -> Tensor:
        cue = torch.randint(2, (rows,), generator=self.random) * 2.0 - 1
        self.cue = cue
        return torch.stack([cue, torch.zeros(rows)], 1)

    def outcome(self, action: Tensor) -> tuple[Tensor, Tensor]:
        last = self.time == self.spec.horizon
        right = (action[:, 0, 1] > 0.5) == (self.cue > 0)
        blank = torch.zeros_like(self.cue)
        state = torch.stack([blank, blank + self.time / self.spec.horizon], 1)
        return state, right.float() * last


class Masked(AnalyticEnv):
    """A payoff matrix. The largest payoff of valid actions is 2; an invalid action would give 10."""

    table = torch.tensor([[10.0, 10.0], [0.0, 2.0], [1.0, 0.0]])

    def first(self, rows: int) -> Tensor:
        return torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(rows, 4).clone()

    def outcome(self, action: Tensor) -> tuple[Tensor, Tensor]:
        return self.state, torch.einsum("bi,ij,bj->b", action[:, 0], self.table, action[:, 1, :2])
