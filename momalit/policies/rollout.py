"""Runs a team in batched environments: rollouts for training and episodes for evaluation."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from momalit.core.records import Rollout, Sequence, Step
from momalit.nn.actors import TeamActor

MIN_ROWS = 8  # smallest batch in an evaluation: fewer would save little, and tiny matrices round differently


class TeamEnv(Protocol):
    """Interface of a source of rollouts. The world model and the real environments implement it."""

    def step(self, action: Tensor) -> Step:
        """Applies a joint action ``(B, A, U)`` within bounds to the B environments."""
        ...


def initial_sequence(state: Tensor, n_agents: int, action_size: int) -> Sequence:
    """Returns the sequence of length 1 in which B episodes start in ``state`` ``(B, S)``."""
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
    """Runs the policies step by step and carries their hidden states.

    Args:
        actor: the policies.
        generator: source of the exploration noise; None acts deterministically.
    """

    def __init__(self, actor: TeamActor, generator: torch.Generator | None) -> None:
        self.actor, self.generator = actor, generator
        self.hidden_state: Tensor | None = None

    @torch.no_grad()
    def burn_in(self, past: Sequence) -> None:
        """Computes the hidden states from a history window, which may be empty."""
        self.hidden_state = self.actor.hidden_states(past)[:, -1] if past.state.shape[0] else None

    @torch.no_grad()
    def act(self, now: Sequence) -> Decision:
        """Selects actions for ``now``, a sequence of length 1."""
        policy, hidden_state = self.actor(now, self.hidden_state)
        self.hidden_state = hidden_state[:, -1]
        action = policy.mode if self.generator is None else policy.sample(self.generator)
        return Decision(action[0], policy.log_prob(action)[0])


@torch.no_grad()
def collect_rollout(
    env: TeamEnv, actor: TeamActor, start: Sequence, n_steps: int, generator: torch.Generator | None
) -> Rollout:
    """Runs the team in ``env`` for ``n_steps`` steps and records the rollouts.

    Args:
        env: source of the transitions; its current state is the last state of ``start``.
        actor: the policies.
        start: ``H + 1`` time steps: the burn-in and the current state of every rollout.
        n_steps: T.
        generator: source of the exploration noise; None acts deterministically.
    """
    context, rows, _ = start.state.shape
    total = context + n_steps
    state = start.state.new_empty(total, rows, start.state.shape[2])
    previous = start.previous_action.new_empty(total, *start.previous_action.shape[1:])
    keep = start.keep.new_empty(total, rows)
    state[:context], previous[:context], keep[:context] = start.state, start.previous_action, start.keep
    sequence = Sequence(state, previous, keep)
    team = TeamRunner(actor, generator)
    team.burn_in(start.span(0, context - 1))
    hidden_state = team.hidden_state
    decisions: list[Decision] = []
    steps: list[Step] = []
    for t in range(context, total):
        decision = team.act(sequence.span(t - 1, t))
        clipped = actor.clip(decision.action)
        step = env.step(clipped)
        state[t], keep[t] = step.state, ~step.began
        previous[t] = clipped * ~step.began[:, None, None]
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
    """Runs one real episode per seed, all in parallel.

    Without noise, finished episodes are removed from the policies' batch whenever that at least halves it.

    Args:
        env: a ``VectorTeamEnv`` with one row per seed, without automatic reset.
        actor: the policies, on any device.
        seeds: one per episode.
        generator: source of the exploration noise; None acts deterministically.

    Returns:
        undiscounted team returns ``(B,)``.
    """
    device = actor.mask.device
    now = initial_sequence(env.reset(seeds).to(device), *actor.mask.shape)
    team = TeamRunner(actor, generator)
    team.burn_in(now.span(0, 0))
    joint_action = torch.zeros(len(seeds), *actor.mask.shape)
    total = torch.zeros(len(seeds), dtype=torch.float64)
    acting = torch.arange(len(seeds))  # rows in the policies' batch
    running = torch.ones(len(seeds), dtype=torch.bool)
    while running.any():
        # With noise, all rows stay in the batch, so that an episode's noise does not depend on the others' lengths.
        needed = max(int(running.sum()), MIN_ROWS)
        if generator is None and needed <= len(acting) // 2:
            selected = torch.argsort(~running[acting], stable=True)[:needed]
            acting, index = acting[selected], selected.to(device)
            now = now.map(lambda tensor, index=index: tensor[:, index])
            team.hidden_state = None if team.hidden_state is None else team.hidden_state[:, index]
        action = actor.clip(team.act(now).action)
        joint_action[acting] = action.to(joint_action)
        step = env.step(joint_action)
        total += step.reward.double() * step.valid
        running = step.valid & ~(step.terminated | step.truncated)
        now = Sequence(step.state[acting][None].to(device), action[None], torch.ones_like(now.keep))
    return total.float()
