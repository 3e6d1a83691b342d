"""UncertaintyLevels: how uncertain the ensemble is on held-out data, from which pessimism takes its scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from momalit.core.trajectories import Trajectories
from momalit.functional import uncertainty
from momalit.world_model.dynamics import WorldModel

STOP_QUANTILE = 0.999
MIN_LIMIT = 0.01  # smaller disagreement (a variance of 1 % of the targets') does not matter, however exact the model is


class UncertaintyLevels(nn.Module):
    """The uncertainties on held-out steps: their mean ū, above which a penalty counts, and τ, which limits them.

    If every step cost its whole penalty, a terminal state, which costs nothing more, would be worth more than a life
    within the data. And if certainty beyond the data's paid, teams would seek it: on Ant they slow down to a gait that
    the ensemble knows best.

    Until ``fit``, the means are 0.

    Args:
        limit: τ until ``fit``; None for infinity.
    """

    limit: Tensor
    typical: Tensor

    def __init__(self, limit: float | None = None) -> None:
        super().__init__()
        self.register_buffer("limit", torch.tensor(torch.inf if limit is None else float(limit)))
        self.register_buffer("typical", torch.zeros(3))

    @torch.no_grad()
    def fit(self, model: WorldModel, data: Trajectories, limit: float | None = None, chunk: int = 4096) -> None:
        """Measures the levels on ``data``.

        Args:
            model: the world model.
            data: trajectories that did not train the model.
            limit: τ; None for the 99.9 % quantile of ``u_all``.
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
            self.limit.copy_(measured[0].kthvalue(rank).values.clamp(min=MIN_LIMIT))
        else:
            self.limit.fill_(limit)
        self.typical.copy_(measured.clamp(max=self.limit).mean(1))
