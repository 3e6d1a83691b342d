"""Where imagination and reality part: the world model's errors on a team's own path, and both over time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from momalit.core.records import Rollout, Transitions
from momalit.core.trajectories import Trajectories
from momalit.functional.statistics import evenly_spaced
from momalit.functional.uncertainty import ensemble_covariance_norm
from momalit.world_model.dynamics import WorldModel

MAX_STEPS = 20_000
LARGEST = 5


@torch.no_grad()
def errors_on_path(model: WorldModel, visited: Transitions, held_out: Trajectories) -> dict[str, Any]:
    """One-step errors of the world model where the team goes, beside those on held-out data.

    An error is the elites' mean prediction minus what happened, in standard deviations of the target. A bias is its
    mean: a model that is exploited errs to one side. At most 20,000 evenly spaced steps of either are used.

    Args:
        model: the world model.
        visited: real transitions of the team.
        held_out: episodes of the dataset that trained nothing.

    Returns:
        for ``path`` and ``held_out``: ``error`` (mean square), ``uncertainty`` (median of ``u_all``), and ``bias``: the
        five targets with the largest bias on the path, by name (``state_13``, ``reward``).
    """
    path_error, path_u = _errors(
        model, visited.map(lambda tensor: tensor[evenly_spaced(len(visited.reward), MAX_STEPS)])
    )
    data_error, data_u = _errors(model, held_out.transitions(evenly_spaced(len(held_out), MAX_STEPS)))
    names = [f"state_{number:02d}" for number in range(path_error.shape[1] - 1)] + ["reward"]
    worst = path_error.mean(0).abs().argsort(descending=True)[:LARGEST].tolist()
    return {
        name: {
            "error": float(error.square().mean()),
            "uncertainty": float(u.median()),
            "bias": {names[target]: float(error[:, target].mean()) for target in worst},
        }
        for name, error, u in (("path", path_error, path_u), ("held_out", data_error, data_u))
    }


def _errors(model: WorldModel, batch: Transitions) -> tuple[Tensor, Tensor]:
    """Signed errors ``(B, S + 1)`` in standardised units and ``u_all`` ``(B,)``."""
    batch = batch.to(model.space.reward_low.device)
    means = model.means(batch.state, batch.action)
    target = model.space.target(model.space.raw_target(batch))
    return (means.mean(0) - target) * model.space.target.varies, ensemble_covariance_norm(means)


def over_time(real: list[Tensor], imagined: Rollout, episodes: int, parts: int = 5) -> list[dict[str, float]]:
    """Mean reward per step and share of running episodes, real and imagined, in equal parts of the task's horizon.

    Args:
        real: the rewards of the running real episodes at every time step.
        imagined: imagined episodes of the same team.
        episodes: number of real episodes.
        parts: number of parts.
    """
    rows = []
    for steps in torch.arange(imagined.n_steps).tensor_split(min(parts, imagined.n_steps)):
        first, end = int(steps[0]), int(steps[-1]) + 1
        lived = torch.cat([torch.zeros(0), *real[first:end]])  # empty once all episodes have ended
        valid = imagined.valid[first:end]
        rows.append(
            {
                "from": first,
                "to": end,
                "real_reward": float(lived.sum()) / max(len(lived), 1),
                "imagined_reward": float((imagined.reward[first:end] * valid).sum() / valid.sum().clamp(min=1)),
                "real_running": len(lived) / (episodes * (end - first)),
                "imagined_running": float(valid.float().mean()),
            }
        )
    return rows
