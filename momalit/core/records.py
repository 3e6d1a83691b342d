"""Records of named tensors that the whole library passes around.

The axes are always in the same order: time ``T``, batch entries ``B``, agents ``A``, features. The size of the state is
``S``, that of the padded observation ``O`` and that of the padded action ``U``. A discrete action is a one-hot vector.

A recurrent network reads a *sequence*. At each time step it contains the state (each agent observes some of its
columns), the previous joint action (zero at an episode's first step) and ``keep``. ``keep`` is False where the hidden
state must be reset: at an episode's first step and in the padding before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class TensorRecord:
    """A frozen dataclass of tensors (or None) with operations that apply to all of them."""

    def map(self, function: Any) -> Self:
        """Returns the record with ``function`` applied to every tensor, including those of nested records."""
        changed: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, Tensor):
                changed[entry.name] = function(value)
            elif isinstance(value, TensorRecord):
                changed[entry.name] = value.map(function)
        return replace(self, **changed)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Returns the record on another device."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    @property
    def n_bytes(self) -> int:
        """Number of bytes that the tensors occupy, without those of nested records."""
        tensors = [value for entry in fields(self) if isinstance(value := getattr(self, entry.name), Tensor)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def floating(self, dtype: torch.dtype) -> Self:
        """Returns the record with its floating-point tensors converted to ``dtype``."""
        return self.map(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)


@dataclass(frozen=True)
class Transitions(TensorRecord):
    """Single steps.

    Args:
        state: ``(B, S)``.
        action: ``(B, A, U)``.
        reward: ``(B,)``, the team reward.
        next_state: ``(B, S)``.
        terminated: ``(B,)`` bool: whether ``next_state`` is terminal. Time limits do not count.
    """

    state: Tensor
    action: Tensor
    reward: Tensor
    next_state: Tensor
    terminated: Tensor


@dataclass(frozen=True)
class Sequence(TensorRecord):
    """The input of recurrent networks.

    Args:
        state: ``(T, B, S)``.
        previous_action: ``(T, B, A, U)``.
        keep: ``(T, B)`` bool: False where the hidden state is reset.
    """

    state: Tensor
    previous_action: Tensor
    keep: Tensor

    def span(self, begin: int, end: int | None) -> Sequence:
        """Returns the time steps from ``begin`` up to, but not including, ``end``."""
        return self.map(lambda tensor: tensor[begin:end])


@dataclass(frozen=True)
class Start(TensorRecord):
    """Where B rollouts start or continue.

    Args:
        now: the current time step, a sequence of length 1.
        hidden_state: ``(n, B, M)``, hidden states of n networks before that time step, the actors' first; None for
            zeros.
    """

    now: Sequence
    hidden_state: Tensor | None = None

    def where(self, condition: Tensor, other: Start) -> Start:
        """Returns the rows of ``self`` where ``condition`` ``(B,)`` is true and those of ``other`` elsewhere."""

        def select(mine: Tensor | float, theirs: Tensor | float, dimensions: int = 3) -> Tensor:
            return torch.where(condition.view(1, -1, *[1] * (dimensions - 2)), mine, theirs)

        pairs = [(getattr(self.now, entry.name), getattr(other.now, entry.name)) for entry in fields(self.now)]
        now = Sequence(*(select(mine, theirs, mine.dim()) for mine, theirs in pairs))
        if self.hidden_state is None and other.hidden_state is None:
            return Start(now)
        mine, theirs = (0.0 if start.hidden_state is None else start.hidden_state for start in (self, other))
        return Start(now, select(mine, theirs))


@dataclass(frozen=True)
class Windows(TensorRecord):
    """Windows of real trajectories for supervised learning of recurrent policies.

    Args:
        sequence: inputs of ``H + T`` time steps. The first H are for burn-in only.
        action: ``(T, B, A, U)``, the actions taken in the last T time steps.
        valid: ``(T, B)`` bool: False after the end of the trajectory.
        weight: as in ``Rollout``.
    """

    sequence: Sequence
    action: Tensor
    valid: Tensor
    weight: Tensor | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Segments(Windows):
    """Windows with rewards, terminations and next states, for learning values.

    The sequence has one time step more than in ``Windows``, ``H + T + 1``. The additional one is the true next state
    after the last action, also at the end of an episode.

    Args:
        reward: ``(T, B)``, the team reward.
        terminated: ``(T, B)`` bool: whether the next state is terminal, so that its value is 0. Time limits do not
            count.
    """

    reward: Tensor
    terminated: Tensor


@dataclass(frozen=True)
class Rollout(TensorRecord):
    """T steps of B parallel rollouts, imagined or real.

    ``action[t]`` was taken in ``state[t]``. Wherever ``valid[t]``, ``state[t + 1]`` is the true next state, also at the
    end of an episode. When a real environment starts a new episode, the reset takes one invalid step, so
    the same computations apply to real and imagined rollouts.

    Args:
        state: ``(T + 1, B, S)``.
        previous_action: ``(T + 1, B, A, U)``.
        keep: ``(T + 1, B)`` bool.
        action: ``(T, B, A, U)``, as sampled, before clipping to the bounds.
        log_prob: ``(T, B, A)``, log-probability of that action under the policy that took it.
        reward: ``(T, B)``, the team reward. It includes the uncertainty penalty if imagined.
        terminated: ``(T, B)`` bool: whether the next state is terminal, so that its value is 0.
        truncated: ``(T, B)`` bool: whether a time limit ended the episode. Targets bootstrap from the next state,
            unless nothing follows a time limit (see ``PPOModule``).
        stopped: ``(T, B)`` bool: whether the rollout stopped because the model was too uncertain. Targets bootstrap
            from a pessimistic value.
        valid: ``(T, B)`` bool: whether the step counts.
        advantage: ``(T, B)``, or None until computed.
        target: ``(T, B)``, value targets in units of reward, or None until computed.
        hidden_state: ``(n, B, M)``, hidden states of n networks before ``state[0]``, the actors' first; None for zeros.
        next_hidden_state: the same before ``state[T]``, where the rollouts continue.
        weight: scalar weight of this minibatch's means over valid steps when several processes average their
            gradients. None stands for 1.
        logged: ``(T, B)`` bool: steps of the log, none of them valid. Their advantages raise the probability of their
            actions, and nothing else is learned from them. None stands for False.
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
    next_hidden_state: Tensor | None = None
    weight: Tensor | None = None
    logged: Tensor | None = None

    @property
    def n_steps(self) -> int:
        return self.action.shape[0]

    @property
    def n_rows(self) -> int:
        return self.action.shape[1]

    @property
    def returns(self) -> Tensor:
        """Undiscounted sum of the rewards of valid steps, ``(B,)``."""
        return (self.reward * self.valid).sum(0)

    @property
    def sequence(self) -> Sequence:
        """The inputs of the networks at all ``T + 1`` time steps."""
        return Sequence(self.state, self.previous_action, self.keep)

    @property
    def end(self) -> Start:
        """Where the rollouts continue."""
        return Start(self.sequence.span(self.n_steps, None), self.next_hidden_state)

    def rows(self, index: Tensor) -> Rollout:
        """Returns the rollouts numbered ``index`` ``(b,)``, with all their time steps."""
        return self.map(lambda tensor: tensor.index_select(1, index))

    def beside(self, other: Rollout) -> Rollout:
        """Returns the rollouts of both, which have the same fields, as rows of one record."""
        changed: dict[str, Any] = {}
        for entry in fields(self):
            mine, theirs = getattr(self, entry.name), getattr(other, entry.name)
            changed[entry.name] = None if mine is None else torch.cat([mine, theirs], 1)
        return replace(self, **changed)


@dataclass(frozen=True)
class Step(TensorRecord):
    """The result of one joint action in a batch of environments, real or imagined.

    Args:
        state: ``(B, S)``, the state after the step.
        reward: ``(B,)``, the team reward. It is 0 where ``valid`` is False.
        terminated: ``(B,)`` bool: whether ``state`` is terminal.
        truncated: ``(B,)`` bool: whether a time limit ended the episode in ``state``.
        valid: ``(B,)`` bool: False where the episode had already ended, so that the environment did not take a step.
        began: ``(B,)`` bool: whether ``state`` is the first of a new episode.
        stopped: ``(B,)`` bool: whether the model was too uncertain to continue. Always False in a real environment.
    """

    state: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    began: Tensor
    stopped: Tensor
