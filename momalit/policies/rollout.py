"""Runs a team in batched environments: rollouts for training and episodes for evaluation."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from momalit.core.records import Rollout, Sequence, Start, Step
from momalit.nn.actors import TeamActor

_OUTCOME = ("reward", "terminated", "truncated", "stopped", "valid")
MIN_ROWS = 8  # smallest batch in an evaluation: fewer would save little, and tiny matrices round differently


class TeamEnv(Protocol):
    """Interface of a source of rollouts. The world model and the real environments implement it."""

    def step(self, action: Tensor) -> Step:
        """Applies a joint action ``(B, A, U)`` within bounds to the B environments."""
        ...


def initial_start(state: Tensor, n_agents: int, action_size: int) -> Start:
    """Returns the start of B episodes in ``state`` ``(B, S)``."""
    rows = state.shape[0]
    previous_action = state.new_zeros(1, rows, n_agents, action_size)
    keep = torch.zeros(1, rows, dtype=torch.bool, device=state.device)
    return Start(Sequence(state.unsqueeze(0), previous_action, keep))


class Decision(NamedTuple):
    """Joint action ``(B, A, U)`` and its log-probabilities ``(B, A)``."""

    action: Tensor
    log_prob: Tensor


class TeamRunner:
    """Runs the policies step by step and carries their hidden states.

    Args:
        actor: the policies.
        generator: source of the exploration noise; None acts deterministically.
        hidden_state: the policies' hidden states ``(A, B, M)``; None for zeros.
    """

    def __init__(self, actor: TeamActor, generator: torch.Generator | None, hidden_state: Tensor | None = None) -> None:
        self.actor, self.generator, self.hidden_state = actor, generator, hidden_state

    @torch.no_grad()
    def act(self, now: Sequence) -> Decision:
        """Selects actions for ``now``, a sequence of length 1."""
        policy, hidden_state = self.actor(now, self.hidden_state)
        self.hidden_state = hidden_state[:, -1]
        action = policy.mode if self.generator is None else policy.sample(self.generator)
        return Decision(action[0], policy.log_prob(action)[0])


@torch.no_grad()
def collect_rollout(
    env: TeamEnv, actor: TeamActor, start: Start, n_steps: int, generator: torch.Generator | None
) -> Rollout:
    """Runs the team in ``env`` for ``n_steps`` steps and records the rollouts.

    Args:
        env: source of the transitions; its current states are those of ``start``.
        actor: the policies.
        start: the current time step of every rollout, with the hidden states of the policies, or of the policies and
            of other networks after them.
        n_steps: T.
        generator: source of the exploration noise; None acts deterministically.
    """
    now = start.now
    sequence = now.map(lambda tensor: tensor.new_empty(n_steps + 1, *tensor.shape[1:]))
    state, previous, keep = sequence.state, sequence.previous_action, sequence.keep
    state[0], previous[0], keep[0] = now.state[0], now.previous_action[0], now.keep[0]
    hidden_state = None if start.hidden_state is None else start.hidden_state[: actor.mask.shape[0]]
    team = TeamRunner(actor, generator, hidden_state)
    # Tensors for all steps: small ones that outlive each step would lie scattered between large ones that do not.
    recorded: dict[str, Tensor] = {}
    for t in range(1, n_steps + 1):
        decision = team.act(sequence.span(t - 1, t))
        clipped = actor.clip(decision.action)
        step = env.step(clipped)
        state[t], keep[t] = step.state, ~step.began
        previous[t] = clipped * ~step.began[:, None, None]
        values = {**decision._asdict(), **{name: getattr(step, name) for name in _OUTCOME}}
        for name, value in values.items():
            if t == 1:
                recorded[name] = value.new_empty(n_steps, *value.shape)
            recorded[name][t - 1] = value
    return Rollout(
        state=state,
        previous_action=previous,
        keep=keep,
        hidden_state=start.hidden_state,
        next_hidden_state=team.hidden_state,
        **recorded,
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
    now = initial_start(env.reset(seeds).to(device), *actor.mask.shape).now
    team = TeamRunner(actor, generator)
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
