"""Which joint actions of a log a team should take more often."""

from __future__ import annotations

import torch
from torch import Tensor

LEAST_SHARE = 0.1  # of the better steps: the least effective number of steps that the weights leave
HALVINGS = 16  # of the exponent, until it is 0
MAX_ADVANTAGE = 10.0  # in standard deviations


def imitation_advantage(advantage: Tensor, log_prob: Tensor, log_ratio: Tensor, valid: Tensor) -> Tensor:
    """What logged joint actions count in the policies' objective: more than 0 where they are better than the team's.

    Agents that each imitate all that was good in a log end up between its conventions: if half of the good joint
    actions are (0, 0) and half (1, 1), each agent plays 0 half of the time. So a logged step that is better than the
    team's own counts with a weight q ∝ (ρ exp(A))^κ, where ρ = π(a) / π(a*) compares the probability of the logged
    joint action with that of the team's likeliest one. With κ = 1, π exp(A) is what gains most within a bound on the
    change of the team (maximum a posteriori policy optimisation, Abdolmaleki et al., 2018), here among what was logged.
    A convention that agents follow a little more often than another thus counts more, until they all follow it. κ is
    the largest of 1, 1/2, 1/4, ... with an effective number of at least a tenth of the better steps.

    A step also counts with 1 - π(a), what is left to learn from it. Otherwise the many steps that the team already
    takes, half of which seem better because values are never exact, would outweigh the few that it should learn. With
    continuous actions π is a density, and a step where it is 1 or more does not count.

    Args:
        advantage: A, of the logged joint actions, in standard deviations of the team's own advantages, ``(T, B)``.
        log_prob: log π(a), ``(T, B)``.
        log_ratio: log ρ, ``(T, B)``.
        valid: ``(T, B)`` bool.

    Returns:
        ``max(A, 0)``, at most 10, times the weight, whose sum over the better steps is that of 1 - π(a), ``(T, B)``.
    """
    better = valid & (advantage > 0)
    left = torch.where(better, -torch.expm1(log_prob.clamp(max=0.0)), 0.0).flatten()
    count = left.sum()
    halvings = torch.arange(HALVINGS, device=advantage.device)
    exponents = torch.cat([0.5**halvings, halvings.new_zeros(1)]).view(-1, 1, 1)
    score = torch.where(better, exponents * (log_ratio + advantage), -torch.inf).flatten(1) + left.log()
    weights = torch.softmax(score, 1).nan_to_num(0.0)  # without a better step, 0 / 0
    share = 1 / ((weights.square() / left.clamp(min=1e-12)).sum(1) * count).clamp(min=1e-12)
    first = (share >= LEAST_SHARE).int().argmax(0, keepdim=True)
    chosen = weights.index_select(0, first).view_as(advantage)  # an index of its own would wait for the accelerator
    return advantage.clamp(0.0, MAX_ADVANTAGE) * (chosen * count)
