"""The records that flow through everything: tensors with names.

Axes are the same everywhere: time ``T`` first, then rows ``B``, then agents ``A``, then features. ``S`` is the state,
``O`` the padded observation and ``U`` the padded action (a discrete action is its one-hot vector).

A recurrent network reads a *sequence*: at each time the state (of which an agent sees its columns), the previous joint
action (zero at an episode's first step) and ``keep``, 0 where the memory must start afresh: at an episode's first step
and in the padding before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class TensorRecord:
    """A frozen dataclass of tensors (or None) that moves and maps as one."""

    def map(self, function: Any) -> Self:
        """Applies ``function`` to every tensor, those of records inside too."""
        changed: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Tensor):
                changed[each.name] = function(value)
            elif isinstance(value, TensorRecord):
                changed[each.name] = value.map(function)
        return replace(self, **changed)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The record on another device."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    @property
    def n_bytes(self) -> int:
        """Memory that the tensors take."""
        tensors = [value for each in fields(self) if isinstance(value := getattr(self, each.name), Tensor)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def floating(self, dtype: torch.dtype) -> Self:
        """The record with its floats in another format."""
        return self.map(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)


@dataclass(frozen=True)
class Transitions(TensorRecord):
    """Single steps.

    Args:
        state: ``(B, S)``.
        action: ``(B, A, U)``.
        reward: ``(B,)``, the team's.
        next_state: ``(B, S)``.
        terminated: ``(B,)`` bool: the task ended in ``next_state``; time limits are not in here.
    """

    state: Tensor
    action: Tensor
    reward: Tensor
    next_state: Tensor
    terminated: Tensor


@dataclass(frozen=True)
class Sequence(TensorRecord):
    """What recurrent policies read.

    Args:
        state: ``(T, B, S)``.
        previous_action: ``(T, B, A, U)``.
        keep: ``(T, B)`` bool: False where the memory starts afresh.
    """

    state: Tensor
    previous_action: Tensor
    keep: Tensor

    def span(self, begin: int, end: int | None) -> Sequence:
        """The times from ``begin`` to before ``end``."""
        return self.map(lambda tensor: tensor[begin:end])


@dataclass(frozen=True)
class Windows(TensorRecord):
    """Pieces of real trajectories for supervised learning of recurrent policies.

    Args:
        sequence: inputs of ``H + T`` times, the first H for burn-in only.
        action: ``(T, B, A, U)``, the actions taken at the last T times.
        valid: ``(T, B)`` bool: False past the end of the trajectory.
        weight: as in ``Rollout``.
    """

    sequence: Sequence
    action: Tensor
    valid: Tensor
    weight: Tensor | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Segments(Windows):
    """Windows with what followed each action, for learning values.

    The sequence has one time more than in ``Windows``, ``H + T + 1``: the true successor of the last action, at the end
    of an episode too.

    Args:
        reward: ``(T, B)``, the team's.
        terminated: ``(T, B)`` bool: the task ended, no value follows; time limits are not in here.
    """

    reward: Tensor
    terminated: Tensor


@dataclass(frozen=True)
class Rollout(TensorRecord):
    """T steps of B rows, imagined or real, after H steps of burn-in.

    ``state[H + t]`` is the state in which ``action[t]`` was taken, and ``state[H + t + 1]`` is its true successor
    wherever ``valid[t]``, at the end of an episode too. A real environment that starts a new episode spends one
    invalid step on it, so the same arithmetic serves both sources.

    Args:
        state: ``(H + T + 1, B, S)``.
        previous_action: ``(H + T + 1, B, A, U)``.
        keep: ``(H + T + 1, B)`` bool.
        action: ``(T, B, A, U)``, as sampled (before clipping to bounds).
        log_prob: ``(T, B, A)`` of that action under the policy that took it.
        reward: ``(T, B)``, the team's, penalised if imagined.
        terminated: ``(T, B)`` bool: the task ended, no value follows.
        truncated: ``(T, B)`` bool: a limit of time cut the episode, the value of the successor follows.
        stopped: ``(T, B)`` bool: the model was too unsure to go on; a pessimistic value follows.
        valid: ``(T, B)`` bool: the step counts.
        advantage: ``(T, B)`` or None until computed.
        target: ``(T, B)`` value targets in units of reward, or None until computed.
        hidden_state: ``(n, B, M)``, what n networks (at least the actors) remember when the first action is taken, or
            None for nothing.
        weight: what the mean over the valid steps of this minibatch is worth, a scalar, where several processes average
            theirs; None for 1.
    """

    state: Tensor
    previous_action: Tensor
    keep: Tensor
    action: Tensor
    log_prob: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    stopped: Tensor
    valid: Tensor
    advantage: Tensor | None = None
    target: Tensor | None = None
    hidden_state: Tensor | None = None
    weight: Tensor | None = None

    @property
    def n_steps(self) -> int:
        return self.action.shape[0]

    @property
    def n_rows(self) -> int:
        return self.action.shape[1]

    @property
    def burn_in(self) -> int:
        return self.state.shape[0] - self.n_steps - 1

    @property
    def sequence(self) -> Sequence:
        """The inputs of the networks at all ``H + T + 1`` times."""
        return Sequence(self.state, self.previous_action, self.keep)

    def rows(self, index: Tensor) -> Rollout:
        """Whole trajectories of the rows in ``index`` ``(b,)``."""
        return self.map(lambda tensor: tensor.index_select(1, index))


@dataclass(frozen=True)
class Step(TensorRecord):
    """What a batch of environments, real or imagined, answers to one joint action.

    Args:
        state: ``(B, S)``, the state after the step.
        reward: ``(B,)``, the team's; 0 where the step was not real.
        terminated: ``(B,)`` bool: the task ended in ``state``.
        truncated: ``(B,)`` bool: a limit of time cut the episode in ``state``.
        valid: ``(B,)`` bool: False where the row had ended before, so that nothing was stepped.
        began: ``(B,)`` bool: ``state`` is the first of a new episode.
        stopped: ``(B,)`` bool: the model was too unsure to go on; never so in a real environment.
    """

    state: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    began: Tensor
    stopped: Tensor
