"""WorldModel: the frozen elites of a trained ensemble and the statistics needed to use them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from momalit.core.records import Transitions
from momalit.core.team import TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.nn.ensemble import EnsembleNetwork, Prediction
from momalit.nn.standardizer import Standardizer

TERMINATIONS = ("learned", "never")
ROWS = 1024  # that are predicted at once


class ModelSpace(nn.Module):
    """Converts between the units of the task and the standardised units of the networks.

    Standardises the input ``[s ; a_1..a_n]`` (actions unpadded) and the target ``[s' - s ; r]`` with statistics of the
    training split. The prediction of a constant target dimension is its constant.

    Args:
        spec: the team.
    """

    joint_index: Tensor
    state_low: Tensor
    state_high: Tensor
    reward_low: Tensor
    reward_high: Tensor
    worst_return: Tensor
    terminates: Tensor
    present_columns: Tensor | None

    def __init__(self, spec: TeamSpec) -> None:
        super().__init__()
        self.input = Standardizer(spec.state_size + spec.joint_action_size)
        self.target = Standardizer(spec.state_size + 1)
        joint = spec.action_mask().flatten().nonzero().squeeze(1)
        self.register_buffer("joint_index", joint, persistent=False)
        self.register_buffer("state_low", torch.zeros(spec.state_size))
        self.register_buffer("state_high", torch.zeros(spec.state_size))
        for name in ("reward_low", "reward_high", "worst_return"):
            self.register_buffer(name, torch.zeros(()))
        self.register_buffer("terminates", torch.zeros((), dtype=torch.bool))
        index = spec.present_index()
        columns = None if index is None else index[index >= 0].unique()
        self.register_buffer("present_columns", columns, persistent=False)

    @torch.no_grad()
    def fit(self, data: Trajectories, discount: float) -> None:
        """Sets statistics, bounding box, worst return and whether episodes terminate to those of ``data``."""
        # One column at a time: the inputs and targets of the whole dataset would take several times its memory.
        row, states = data.row, data.state.split(1, 1)
        actions = (data.action.flatten(1)[:, column] for column in self.joint_index.split(1))
        changes = (column[1:][row] - column[row] for column in states)
        self.input.fit_columns(chain((column[row] for column in states), actions))
        self.target.fit_columns(chain(changes, [data.reward.unsqueeze(1)]))
        self.state_low.copy_(data.state.amin(0))
        self.state_high.copy_(data.state.amax(0))
        self.reward_low.copy_(data.reward.amin())
        self.reward_high.copy_(data.reward.amax())
        self.worst_return.copy_(data.endless_returns(discount).amin())
        self.terminates.copy_(data.terminated.any())

    def describes(self, data: Trajectories) -> bool:
        """Whether the statistics are those of ``data``, up to rounding."""
        other = copy.deepcopy(self)
        other.fit(data, 0.0)
        for mine, theirs in ((self.input, other.input), (self.target, other.target)):
            same = torch.isclose(mine.mean / mine.std, theirs.mean.to(mine.mean) / mine.std, atol=1e-4)
            if not bool(same.all()) or not torch.allclose(mine.std, theirs.std.to(mine.std), rtol=1e-4):
                return False
        return True

    def raw_input(self, state: Tensor, action: Tensor) -> Tensor:
        """``[s ; a]`` from ``(..., S)`` and ``(..., A, U)``, in the units of the task."""
        return torch.cat([state, action.flatten(-2)[..., self.joint_index]], -1)

    def raw_target(self, batch: Transitions) -> Tensor:
        """``[s' - s ; r]``, in the units of the task."""
        return torch.cat([batch.next_state - batch.state, batch.reward.unsqueeze(-1)], -1)

    def settle(self, before: Tensor, after: Tensor) -> Tensor:
        """A predicted state ``(B, S)`` in which agents are there or not, and nobody comes back."""
        if self.present_columns is None:
            return after
        stay = (before[:, self.present_columns] > 0.5) & (after[:, self.present_columns] > 0.5)
        return after.index_copy(1, self.present_columns, stay.to(after.dtype))

    def target_weights(self, reward_share: float | None) -> Tensor:
        """Weights ``(S + 1,)`` of the targets that vary, which sum to 1 unless none does.

        Args:
            reward_share: weight of the reward; the dimensions of the state share the rest in equal parts. None for the
                same as each of these.
        """
        varies = self.target.varies.to(self.target.std.dtype)
        if reward_share is None:
            return varies / varies.sum().clamp(min=1)
        states = varies[:-1] * (1 - reward_share) / varies[:-1].sum().clamp(min=1)
        weights = torch.cat([states, varies[-1:] * reward_share])
        return weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)

    @property
    def reward_scale(self) -> Tensor:
        """The standard deviation of the reward, which is one standardised unit."""
        return self.target.std[-1]


class WorldModel(nn.Module):
    """A frozen ensemble of E elites, which predicts one step for a batch of states and joint actions.

    Args:
        spec: the team.
        n_elites: E.
        width: features of the residual blocks.
        n_blocks: number of residual blocks.
        termination: ``learned`` (predicted by the ensemble), or ``never`` if only time limits end an episode.
        prior_scale: scale of the elites' random priors; 0 for none.
    """

    def __init__(
        self,
        spec: TeamSpec,
        n_elites: int,
        width: int,
        n_blocks: int,
        termination: str = "learned",
        prior_scale: float = 0.0,
    ) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {
            "n_elites": n_elites,
            "width": width,
            "n_blocks": n_blocks,
            "termination": termination,
            "prior_scale": prior_scale,
        }
        self.termination = termination
        self.space = ModelSpace(spec)
        n_in = spec.state_size + spec.joint_action_size
        self.network = EnsembleNetwork(n_elites, n_in, width, n_blocks, spec.state_size + 1, prior_scale)
        self.requires_grad_(False)
        self.eval()

    @property
    def n_elites(self) -> int:
        return int(self.architecture["n_elites"])

    def train(self, mode: bool = True) -> WorldModel:
        """Stays in evaluation mode whatever ``mode`` is, because the model is frozen."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, state: Tensor, action: Tensor) -> Prediction:
        """Predictions of all elites, in standardised units.

        Args:
            state: ``(B, S)``.
            action: ``(B, A, U)``, within bounds.
        """
        x = self.space.input(self.space.raw_input(state, action))
        prediction = self.network(x.expand(self.n_elites, *x.shape))
        varies = self.space.target.varies
        # Constant target dimensions have no training loss. Their prediction is exact, so their variance is zero.
        return prediction._replace(
            mean=prediction.mean * varies, log_variance=prediction.log_variance.masked_fill(~varies, -torch.inf)
        )

    def in_parts(self, state: Tensor, action: Tensor) -> Iterator[Prediction]:
        """Predictions for many steps, a part at a time to save memory.

        Args:
            state: ``(B, S)``.
            action: ``(B, A, U)``, within bounds.
        """
        for some, actions in zip(state.split(ROWS), action.split(ROWS), strict=True):
            yield self(some, actions)

    def means(self, state: Tensor, action: Tensor) -> Tensor:
        """The predicted means for many steps, ``(E, B, S + 1)``; see ``in_parts``."""
        return torch.cat([prediction.mean for prediction in self.in_parts(state, action)], 1)
