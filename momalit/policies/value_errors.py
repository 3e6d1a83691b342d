"""Errors of reward and next value along a log, from which pessimism takes its penalty."""

from __future__ import annotations

import torch
from torch import Tensor

from momalit.core.records import Sequence, Transitions
from momalit.nn.critics import TeamCritic
from momalit.world_model.dynamics import WorldModel


@torch.no_grad()
def value_errors(
    model: WorldModel, critic: TeamCritic, past: Sequence, happened: Transitions, discount: float
) -> tuple[Tensor, Tensor]:
    """What one step of the world model adds to an imagined return by mistake.

    For elite e that is ``|r̂_e - r + γ (V(ŝ'_e) - V(s'))|``, the temporal-difference error of a critic that values what
    happened correctly. A terminal state is worth 0 whatever it looks like, so that only the reward counts there.

    Args:
        model: the world model.
        critic: the team's value.
        past: H + 1 time steps of the log: the burn-in and the current time step.
        happened: the transitions from the current time step, ``(B,)``.
        discount: γ.

    Returns:
        the mean error of the elites, in standard deviations of the reward ``(B,)``, and their predictions
        ``(E, B, D)``, standardised.
    """
    mean, space, rows = model(happened.state, happened.action).mean, model.space, happened.reward.shape[0]
    outcome = space.target.inverse(mean)
    imagined = (happened.state + outcome[..., :-1]).clamp(space.state_low, space.state_high)
    hidden_state = critic.hidden_states(past)
    before = None if hidden_state is None else hidden_state[:, -1]
    # The elites and, last, what happened are rows of one batch with the same history.
    copies = len(mean) + 1
    state = torch.cat([imagined, happened.next_state.unsqueeze(0)]).view(1, copies * rows, -1)
    previous_action = happened.action.repeat(copies, 1, 1).unsqueeze(0)
    keep = torch.ones(1, copies * rows, dtype=torch.bool, device=state.device)
    before = None if before is None else before.repeat(1, copies, 1)
    value = critic.scale.inverse(critic(Sequence(state, previous_action, keep), before)).view(copies, rows)
    value_error = discount * (value[:-1] - value[-1]) * ~happened.terminated
    error = (outcome[..., -1] - happened.reward + value_error).abs().mean(0)
    return error / space.reward_scale, mean
