"""UncertaintyLevels: what uncertainty means on held-out data, from which pessimism takes its scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from momalit.core.trajectories import Trajectories
from momalit.functional import uncertainty
from momalit.world_model.dynamics import WorldModel

STOP_QUANTILE = 0.99
SLOPE_DECAY = 0.95  # of the running moments: the slope covers the last 20 or so updates
MIN_LIMIT = 0.01  # smaller disagreement (a variance of 1 % of the targets') does not matter, however exact the model is


class UncertaintyLevels(nn.Module):
    """The scales of pessimism, measured on held-out steps.

    These are the mean uncertainties ū, above which a penalty counts; a cap, above which it does not grow; τ, above
    which the model is not believed at all; and the slope with which errors grow with the disagreement ``u_all``, which
    is the λ_all of ``auto``. An error is what a step adds to an imagined return by mistake, through its reward and the
    value of the next state. Values change with the team, so the slope is a running one.

    The cap of ``u_all`` is the quantile that τ is, without τ's least value; the other uncertainties are capped at τ. A
    slope measured where a very accurate model's members differ by 1e-7 says nothing of differences of 1e-2, and would
    make them cost many times the best return.

    If every step cost its whole penalty, a terminal state, which costs nothing more, would be worth more than a life
    within the data. And if certainty beyond the data's paid, teams would seek it: on Ant they slow down to a gait that
    the ensemble knows best.

    Until ``fit``, the means are 0; until ``update_slope``, the slope is 0.

    Args:
        limit: τ and cap until ``fit``; None for infinity.
    """

    limit: Tensor
    cap: Tensor
    typical: Tensor
    moments: Tensor

    def __init__(self, limit: float | None = None) -> None:
        super().__init__()
        self.register_buffer("limit", torch.tensor(torch.inf if limit is None else float(limit)))
        self.register_buffer("cap", self.limit.expand(3).clone())
        self.register_buffer("typical", torch.zeros(3))
        self.register_buffer("moments", torch.zeros(2))  # of u_all: covariance with the error, and variance
        self.register_load_state_dict_pre_hook(_add_cap)

    @torch.no_grad()
    def fit(self, model: WorldModel, data: Trajectories, limit: float | None = None, chunk: int = 1024) -> None:
        """Measures the levels on ``data``.

        Args:
            model: the world model.
            data: trajectories that did not train the model.
            limit: τ; None for the 99 % quantile of ``u_all``.
            chunk: transitions per forward pass.
        """
        parts = []
        for index in torch.arange(len(data)).split(chunk):
            batch = data.transitions(index).to(self.limit.device)
            prediction = model(batch.state, batch.action)
            parts.append(uncertainty.measures(prediction.mean, prediction.log_variance))
        measured = torch.cat(parts, 1)
        if limit is None:
            rank = max(round(STOP_QUANTILE * measured.shape[1]), 1)
            self.cap[0] = measured[0].kthvalue(rank).values
            self.limit.copy_(self.cap[0].clamp(min=MIN_LIMIT))
        else:
            self.cap[0] = limit
            self.limit.fill_(limit)
        self.cap[1:] = self.limit
        self.typical.copy_(measured.clamp(max=self.cap.unsqueeze(1)).mean(1))

    def update_slope(self, u_all: Tensor, error: Tensor) -> None:
        """Adds a random sample of held-out steps to the running slope.

        Args:
            u_all: disagreement ``(B,)``, B at least 2.
            error: absolute error of reward and next value, in standard deviations of the reward, ``(B,)``.
        """
        samples = torch.stack([error, u_all.clamp(max=self.cap[0])]).double()  # constants then have no variance at all
        centred = samples - samples.mean(1, keepdim=True)
        covariances = (centred * centred[1]).sum(1) / (len(u_all) - 1)
        self.moments.lerp_(covariances.to(self.moments.dtype), 1 - SLOPE_DECAY)

    def slope(self) -> Tensor:
        """The least-squares slope of the error over ``min(u_all, cap)``, at least 0; 0 before the first sample."""
        covariance, variance = self.moments
        return (covariance / variance).nan_to_num(0.0).clamp(min=0)  # 0 / 0 before the first sample


def _add_cap(_: nn.Module, state: dict[str, Tensor], prefix: str, *__: object) -> None:
    """Adds the cap to a checkpoint from before there was one, when τ was the cap."""
    if f"{prefix}limit" in state:
        state.setdefault(f"{prefix}cap", state[f"{prefix}limit"].expand(3).clone())
