"""How far a world model can be trusted: measured on trajectories it has not seen."""

from __future__ import annotations

import torch
from torch import Tensor

from momalit.core.records import Transitions
from momalit.core.trajectories import Trajectories
from momalit.functional.statistics import rank_correlation
from momalit.functional.uncertainty import ensemble_covariance_norm
from momalit.world_model.dynamics import WorldModel

HORIZONS = (1, 5, 10, 25, 50)


@torch.no_grad()
def one_step_errors(model: WorldModel, batch: Transitions) -> tuple[Tensor, Tensor]:
    """Standardised squared errors of the elites' mean prediction, and the ensemble's uncertainty.

    Args:
        model: the world model.
        batch: real transitions.

    Returns:
        errors ``(B, S + 1)``, the reward's last, and ``u_all`` ``(B,)``.
    """
    prediction = model(batch.state, batch.action)
    target = model.space.target(model.space.raw_target(batch))
    error = ((prediction.mean.mean(0) - target) * model.space.target.varies) ** 2
    return error, ensemble_covariance_norm(prediction.mean)


@torch.no_grad()
def open_loop_errors(
    model: WorldModel, data: Trajectories, horizons: tuple[int, ...] = HORIZONS, rows: int = 2048
) -> dict[int, Tensor]:
    """Error of the model left alone with the recorded actions, against what the simulator did.

    Args:
        model: the world model; its mean over elites is followed.
        data: real trajectories.
        horizons: numbers of steps after which to compare; those longer than all trajectories are left out.
        rows: most start states used, spread evenly over the data.

    Returns:
        for every horizon, the root mean square error per state dimension ``(S,)``, in deviations of the state.
    """
    remaining = data.length - data.step
    errors: dict[int, Tensor] = {}
    scale = model.space.input.std[: data.state.shape[1]]
    for horizon in horizons:
        starts = torch.nonzero(remaining >= horizon).squeeze(1)
        if not len(starts):
            continue
        starts = starts[:: max(len(starts) // rows, 1)]
        state = data.state[data.row[starts]]
        for t in range(horizon):
            change = model.space.target.inverse(model(state, data.action[starts + t]).mean.mean(0))[:, :-1]
            state = (state + change).clamp(model.space.state_low, model.space.state_high)
        errors[horizon] = ((state - data.state[data.row[starts] + horizon]) / scale).square().mean(0).sqrt()
    return errors


@torch.no_grad()
def termination_scores(model: WorldModel, batch: Transitions) -> dict[str, float]:
    """Precision and recall of predicted terminations, where the elites' mean logit is positive.

    Precision is NaN where none is predicted, recall where none happened.
    """
    predicted = model(batch.state, batch.action).termination.mean(0) > 0
    right = (predicted & batch.terminated).sum()
    return {"precision": float(right / predicted.sum()), "recall": float(right / batch.terminated.sum())}


def world_model_metrics(model: WorldModel, data: Trajectories) -> dict[str, float]:
    """Figures that say how far ``model`` can be trusted on ``data``, under the names they are logged by."""
    batch = data.transitions(torch.arange(len(data)))
    error, unsure = one_step_errors(model, batch)
    report = {"test/error": float(error.mean()), "test/error_reward": float(error[:, -1].mean())}
    for dimension, value in enumerate(error[:, :-1].mean(0).tolist()):
        report[f"test/error_state_{dimension:02d}"] = value
    report["test/rank_correlation"] = float(rank_correlation(unsure, error.mean(-1)))
    report["test/uncertainty_median"] = float(unsure.median())
    report["test/uncertainty_99"] = float(unsure.quantile(0.99))
    if model.termination == "learned" and bool(data.terminated.any()):
        for name, score in termination_scores(model, batch).items():
            report[f"test/termination_{name}"] = score
    for horizon, values in open_loop_errors(model, data).items():
        report[f"test/open_loop_{horizon:02d}"] = float(values.square().mean().sqrt())
    return report
