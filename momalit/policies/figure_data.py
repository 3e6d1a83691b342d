"""What the figures of a run's page show: the world model's calibration, and the team's states and actions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from momalit.core.records import Rollout
from momalit.core.team import TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.functional.statistics import evenly_spaced
from momalit.functional.uncertainty import ensemble_covariance_norm
from momalit.world_model.diagnostics import open_loop_errors
from momalit.world_model.dynamics import WorldModel

STEPS, POINTS, GROUPS, BINS = 20_000, 400, 10, 20
MOST_AGENTS, MOST_COMPONENTS = 6, 4  # whose actions are shown


@torch.no_grad()
def figure_data(
    spec: TeamSpec, model: WorldModel, rollout: Rollout, train: Trajectories, held_out: Trajectories
) -> dict[str, Any]:
    """Numbers for figures, JSON-serialisable.

    Args:
        spec: the team.
        model: its world model.
        rollout: imagined episodes of the team.
        train: training episodes.
        held_out: episodes that did not train the model, at least one.

    Returns:
        ``calibration``: mean ``u_all`` and root mean square error of ten equally large groups of held-out steps, in the
        order of ``u_all``; ``open_loop``: error by length of rollouts with recorded actions, in standard deviations of
        the state; ``actions``: for agents and components, how the data and the team distribute them; ``states``:
        states of both in the two directions in which the data vary most.
    """
    batch = held_out.transitions(evenly_spaced(len(held_out), STEPS)).to(model.space.reward_low.device)
    means = model.means(batch.state, batch.action)
    error = (means.mean(0) - model.space.target(model.space.raw_target(batch))) * model.space.target.varies
    u_all, square = ensemble_covariance_norm(means), error.square().mean(1)
    order = [part for part in u_all.argsort().tensor_split(GROUPS) if len(part)]
    taken = torch.nonzero(rollout.valid.flatten()).squeeze(1)
    state, action = (
        rollout.state[:-1].flatten(0, 1)[taken].cpu(),
        rollout.previous_action[1:].flatten(0, 1)[taken].cpu(),
    )
    index = evenly_spaced(len(train), STEPS)
    return {
        "calibration": [
            {"uncertainty": float(u_all[part].mean()), "error": float(square[part].mean().sqrt())} for part in order
        ],
        "open_loop": {
            str(steps): float(values.square().mean().sqrt())
            for steps, values in open_loop_errors(model, held_out.to(batch.reward.device)).items()
        },
        "actions": _actions(spec, train.action[index].cpu(), action),
        "states": _states(train.state[train.row[index]].cpu(), state),
    }


def _actions(spec: TeamSpec, data: Tensor, team: Tensor) -> dict[str, Any]:
    """Shares of choices, or of bins of equal width between the bounds, by agent and component."""
    found: dict[str, Any] = {}
    for i, agent in enumerate(spec.agents[:MOST_AGENTS]):
        if agent.discrete:
            shares = {"data": data[:, i, : agent.action_size], "team": team[:, i, : agent.action_size]}
            found[agent.name] = {name: values.mean(0).tolist() for name, values in shares.items()}
            continue
        for component in range(min(agent.action_size, MOST_COMPONENTS)):
            low, high = agent.low[component], agent.high[component]
            bins = {
                name: torch.histc(values[:, i, component].float(), BINS, low, high)
                for name, values in (("data", data), ("team", team))
            }
            name = agent.name if agent.action_size == 1 else f"{agent.name}[{component}]"
            found[name] = {key: (count / count.sum().clamp(min=1)).tolist() for key, count in bins.items()}
            found[name] |= {"low": low, "high": high}
    return found


def _states(data: Tensor, team: Tensor) -> dict[str, Any]:
    """States on the first two principal components of the standardised data."""
    std = data.std(0, correction=0)
    varies = std > 1e-6
    mean, scale = data.mean(0)[varies], std[varies]
    standard = (data[:, varies] - mean) / scale
    sample = standard[evenly_spaced(len(standard), 5_000)].double()
    directions = torch.zeros(2, sample.shape[1], dtype=torch.float64)
    found = torch.linalg.svd(sample, full_matrices=False).Vh[:2]
    directions[: len(found)] = found  # fewer than two where fewer dimensions vary
    projected = {"data": standard, "team": (team[:, varies] - mean) / scale}
    return {
        name: (values[evenly_spaced(len(values), POINTS)].double() @ directions.T).tolist()
        for name, values in projected.items()
    }
