"""Steps of a log beside those that a team has played."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from momalit.core.records import Rollout, Segments, Start


def add_logged_steps(
    rollout: Rollout, segments: Segments, start: Start, log_prob: Tensor, advantage: Tensor
) -> Rollout:
    """Returns rollouts with windows of a log as additional rows, from which the policies learn by ``advantage`` alone.

    Args:
        rollout: T steps of a team.
        segments: windows of T real steps and the burn-in before them, ``(H + T + 1, B)`` time steps.
        start: their first steps, with the hidden states after the burn-in.
        log_prob: log-probabilities of the logged actions under the policies, ``(T, B, A)``.
        advantage: what the logged joint actions count, ``(T, B)``.
    """
    now = segments.sequence.span(-rollout.n_steps - 1, None)
    nothing = torch.zeros_like(segments.valid)
    hidden_state = start.hidden_state
    if rollout.hidden_state is not None and hidden_state is None:
        hidden_state = torch.zeros_like(rollout.hidden_state[:, :1]).expand(-1, advantage.shape[1], -1)
    logged = Rollout(
        state=now.state,
        previous_action=now.previous_action,
        keep=now.keep,
        action=segments.action,
        log_prob=log_prob,
        reward=segments.reward,
        terminated=segments.terminated,
        truncated=nothing,
        stopped=nothing,
        valid=nothing,
        advantage=advantage,
        target=torch.zeros_like(advantage),
        hidden_state=hidden_state,
        logged=segments.valid,
    )
    played = replace(rollout, next_hidden_state=None, logged=torch.zeros_like(rollout.valid))
    return played.beside(logged)
