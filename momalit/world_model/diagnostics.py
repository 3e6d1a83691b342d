"""Accuracy and calibration of a world model on held-out trajectories."""

from __future__ import annotations

import torch
from torch import Tensor

from momalit.core.records import Transitions
from momalit.core.trajectories import Trajectories
from momalit.functional.statistics import evenly_spaced, rank_correlation
from momalit.functional.uncertainty import ensemble_covariance_norm
from momalit.world_model.dynamics import WorldModel

HORIZONS = (1, 5, 10, 25, 50)


@torch.no_grad()
def one_step_errors(model: WorldModel, batch: Transitions) -> tuple[Tensor, Tensor]:
    """Squared errors of the elites' mean prediction in standardised units, and the ensemble's uncertainty.

    Args:
        model: the world model.
        batch: real transitions.

    Returns:
        errors ``(B, S + 1)``, with the reward's error last, and ``u_all`` ``(B,)``.
    """
    means = model.means(batch.state, batch.action)
    target = model.space.target(model.space.raw_target(batch))
    error = ((means.mean(0) - target) * model.space.target.varies) ** 2
    return error, ensemble_covariance_norm(means)


@torch.no_grad()
def open_loop_errors(
    model: WorldModel, data: Trajectories, horizons: tuple[int, ...] = HORIZONS, max_starts: int = 1024
) -> dict[int, Tensor]:
    """Errors of open-loop rollouts with the recorded actions, compared with the recorded states.

    Args:
        model: the world model; rollouts follow the elites' mean prediction.
        data: real trajectories.
        horizons: rollout lengths in steps; those longer than every trajectory are skipped.
        max_starts: maximum number of start states, spread evenly over the data.

    Returns:
        for every horizon, the root mean square error per state dimension ``(S,)``, in standard deviations of the state.
    """
    starts = evenly_spaced(len(data), max_starts).to(data.reward.device)
    state = data.state[data.row[starts]]
    errors: dict[int, Tensor] = {}
    scale = model.space.input.std[: data.state.shape[1]]
    for step in range(1, max(horizons) + 1):
        goes_on = (data.length - data.step)[starts] >= step
        starts, state = starts[goes_on], state[goes_on]
        if not len(starts):
            break
        change = model.space.target.inverse(model.means(state, data.action[starts + step - 1]).mean(0))[:, :-1]
        state = (state + change).clamp(model.space.state_low, model.space.state_high)
        if step in horizons:
            errors[step] = ((state - data.state[data.row[starts] + step]) / scale).square().mean(0).sqrt()
    return errors


def termination_scores(logits: Tensor, terminated: Tensor) -> dict[str, float]:
    """Precision and recall of predicted terminations; a positive mean logit of the elites counts as a prediction.

    Precision is NaN if no termination is predicted, recall is NaN if none occurs.

    Args:
        logits: of the elites ``(E, B)``.
        terminated: what happened ``(B,)``.
    """
    predicted = logits.mean(0) > 0
    correct = (predicted & terminated).sum()
    return {"precision": float(correct / predicted.sum()), "recall": float(correct / terminated.sum())}


def error_slope(u_all: Tensor, error: Tensor) -> Tensor:
    """By how much the error grows with the disagreement: the least-squares slope, 0 if that is the same everywhere.

    Args:
        u_all: disagreement ``(B,)``; what exceeds its 99 % quantile counts as that.
        error: squared error ``(B,)``.
    """
    doubt = u_all.clamp(max=float(u_all.quantile(0.99)))
    centred = doubt - doubt.mean()
    return (centred @ error / (centred @ centred)).nan_to_num(0.0)


def world_model_metrics(model: WorldModel, data: Trajectories) -> dict[str, float]:
    """All metrics of ``model`` on ``data``, with the names under which they are logged."""
    batch = data.transitions(torch.arange(len(data)))
    error, u_all = one_step_errors(model, batch)
    metrics = {"test/error": float(error.mean()), "test/error_reward": float(error[:, -1].mean())}
    for dimension, value in enumerate(error[:, :-1].mean(0).tolist()):
        metrics[f"test/error_state_{dimension:02d}"] = value
    metrics["test/rank_correlation"] = float(rank_correlation(u_all, error.mean(-1)))
    metrics["test/slope"] = float(error_slope(u_all, error.mean(-1)))
    metrics["test/uncertainty_median"] = float(u_all.median())
    metrics["test/uncertainty_99"] = float(u_all.quantile(0.99))
    if model.termination == "learned" and bool(data.terminated.any()):
        logits = torch.cat([part.termination for part in model.in_parts(batch.state, batch.action)], 1)
        for name, score in termination_scores(logits, batch.terminated).items():
            metrics[f"test/termination_{name}"] = score
    for horizon, values in open_loop_errors(model, data).items():
        metrics[f"test/open_loop_{horizon:02d}"] = float(values.square().mean().sqrt())
    return metrics
