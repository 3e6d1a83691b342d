"""A team practises: rollouts for learning, episodes for evaluation, in any batched environment."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from momalit.core.records import Rollout, Sequence, Step
from momalit.nn.actors import TeamActor

FEWEST_ROWS = 8  # an evaluation's policies act on no fewer: it would save little, and tiny matrices round differently


class TeamEnv(Protocol):
    """What a source of rollouts must offer; the world model and the real environments both do."""

    def step(self, action: Tensor) -> Step:
        """Steps all rows with a joint action ``(B, A, U)`` within bounds."""
        ...


def initial_sequence(state: Tensor, n_agents: int, action_size: int) -> Sequence:
    """The sequence of one time at which every row begins an episode in ``state`` ``(B, S)``."""
    rows = state.shape[0]
    return Sequence(
        state.unsqueeze(0),
        state.new_zeros(1, rows, n_agents, action_size),
        torch.zeros(1, rows, dtype=torch.bool, device=state.device),
    )


class Decision(NamedTuple):
    """Joint action ``(B, A, U)`` and its log-probabilities ``(B, A)``."""

    action: Tensor
    log_prob: Tensor


class TeamRunner:
    """The policies at work: carries the agents' memories from step to step.

    Args:
        actor: the policies.
        generator: source of the exploration noise; None acts deterministically.
    """

    def __init__(self, actor: TeamActor, generator: torch.Generator | None) -> None:
        self.actor, self.generator = actor, generator
        self.hidden_state: Tensor | None = None

    @torch.no_grad()
    def recall(self, past: Sequence) -> None:
        """Builds the memories from a stretch of history (which may be empty)."""
        self.hidden_state = self.actor.hidden_states(past)[:, -1] if past.state.shape[0] else None

    @torch.no_grad()
    def act(self, now: Sequence) -> Decision:
        """Decides at the one time that ``now`` holds."""
        policy, hidden_state = self.actor(now, self.hidden_state)
        self.hidden_state = hidden_state[:, -1]
        action = policy.mode if self.generator is None else policy.sample(self.generator)
        return Decision(action[0], policy.log_prob(action)[0])


@torch.no_grad()
def collect_rollout(
    env: TeamEnv, actor: TeamActor, start: Sequence, n_steps: int, generator: torch.Generator | None
) -> Rollout:
    """Rolls the team ``n_steps`` through ``env``.

    Args:
        env: stands in the last state of ``start``.
        actor: the policies.
        start: ``H + 1`` times: the history of every row and where it is now.
        n_steps: T.
        generator: source of the exploration noise; None acts deterministically.
    """
    history, rows, _ = start.state.shape
    total = history + n_steps
    state = start.state.new_empty(total, rows, start.state.shape[2])
    previous = start.previous_action.new_empty(total, *start.previous_action.shape[1:])
    keep = start.keep.new_empty(total, rows)
    state[:history], previous[:history], keep[:history] = start.state, start.previous_action, start.keep
    filled = Sequence(state, previous, keep)
    team = TeamRunner(actor, generator)
    team.recall(start.span(0, history - 1))
    hidden_state = team.hidden_state
    decisions: list[Decision] = []
    steps: list[Step] = []
    for t in range(history, total):
        decision = team.act(filled.span(t - 1, t))
        taken = actor.clip(decision.action)
        step = env.step(taken)
        state[t], keep[t] = step.state, ~step.began
        previous[t] = taken * ~step.began[:, None, None]
        decisions.append(decision)
        steps.append(step)
    names = ("reward", "terminated", "truncated", "stopped", "valid")
    outcome = {name: torch.stack([getattr(step, name) for step in steps]) for name in names}
    return Rollout(
        state=state,
        previous_action=previous,
        keep=keep,
        action=torch.stack([d.action for d in decisions]),
        log_prob=torch.stack([d.log_prob for d in decisions]),
        hidden_state=hidden_state,
        **outcome,
    )


@torch.no_grad()
def play_episodes(env: Any, actor: TeamActor, seeds: list[int], generator: torch.Generator | None = None) -> Tensor:
    """Plays one real episode per seed, all at once, and counts every one.

    Without noise the policies act only on rows that still run, give or take a factor of two.

    Args:
        env: a ``VectorTeamEnv`` with as many rows as seeds, without automatic reset.
        actor: the policies; on the CPU or moved for each step.
        seeds: one per episode.
        generator: exploration noise; None acts deterministically.

    Returns:
        undiscounted team returns ``(B,)``.
    """
    device = actor.mask.device
    now = initial_sequence(env.reset(seeds).to(device), *actor.mask.shape)
    team = TeamRunner(actor, generator)
    team.recall(now.span(0, 0))
    taken = torch.zeros(len(seeds), *actor.mask.shape)
    total = torch.zeros(len(seeds), dtype=torch.float64)
    acting = torch.arange(len(seeds))  # the rows that the policies still act on
    running = torch.ones(len(seeds), dtype=torch.bool)
    while running.any():
        # Noise is drawn for all rows, so that a longer episode elsewhere does not change that of this row.
        needed = max(int(running.sum()), FEWEST_ROWS)
        if generator is None and needed <= len(acting) // 2:
            kept = torch.argsort(~running[acting], stable=True)[:needed]
            acting, there = acting[kept], kept.to(device)
            now = now.map(lambda tensor, there=there: tensor[:, there])
            team.hidden_state = None if team.hidden_state is None else team.hidden_state[:, there]
        action = actor.clip(team.act(now).action)
        taken[acting] = action.to(taken)
        step = env.step(taken)
        total += step.reward.double() * step.valid
        running = step.valid & ~(step.terminated | step.truncated)
        now = Sequence(step.state[acting][None].to(device), action[None], torch.ones_like(now.keep))
    return total.float()
