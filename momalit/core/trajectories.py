"""A dataset in memory. Every value is stored once; splits and batches are made without copying the whole dataset."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from momalit.core.records import Segments, Sequence, TensorRecord, Transitions, Windows


@dataclass(frozen=True)
class Trajectories(TensorRecord):
    """A set of E real trajectories with N transitions in total, stored one after the other.

    A trajectory of length L has L + 1 consecutive rows in ``state``. The next state of a transition is the next row, so
    no state is stored twice. The position of a transition is computed from ``first``, so no index is stored per
    transition.

    Args:
        state: ``(N + E, S)``.
        action: ``(N, A, U)``.
        reward: ``(N,)``.
        terminated: ``(N,)`` bool.
        truncated: ``(N,)`` bool.
        lengths: ``(E,)`` long, number of transitions of each trajectory, at least 1.
        first: ``(E,)`` long, index of the first transition of each trajectory.
    """

    state: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    lengths: Tensor
    first: Tensor

    def __len__(self) -> int:
        """Number of transitions."""
        return self.reward.shape[0]

    @classmethod
    def from_lengths(
        cls, state: Tensor, action: Tensor, reward: Tensor, terminated: Tensor, truncated: Tensor, lengths: Tensor
    ) -> Trajectories:
        """Computes ``first`` from ``lengths``. The arguments are those of the class."""
        return cls(state, action, reward, terminated, truncated, lengths, torch.cumsum(lengths, 0) - lengths)

    # --- positions of transitions ----------------------------------------------------------------------------------
    def locate(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Locates the transitions numbered ``index``, which may have any shape.

        Returns:
            three tensors in the shape of ``index``: the row of ``state`` with the transition's first state, its time
            step within the trajectory (from 0), and the number of transitions of that trajectory.
        """
        trajectory = self._trajectory_of(index)
        return index + trajectory, index - self.first[trajectory], self.lengths[trajectory]

    def _trajectory_of(self, index: Tensor) -> Tensor:
        """Returns the number of the trajectory that each transition in ``index`` belongs to."""
        return torch.searchsorted(self.first, index.contiguous(), right=True) - 1

    def _per_transition(self, values: Tensor) -> Tensor:
        """Repeats one value per trajectory ``(E,)`` for each of its transitions ``(N,)``."""
        return torch.repeat_interleave(values, self.lengths, output_size=len(self))

    @property
    def _all_indices(self) -> Tensor:
        return torch.arange(len(self), device=self.first.device)

    @property
    def row(self) -> Tensor:
        """The row of ``state`` with each transition's first state, ``(N,)``."""
        return self._all_indices + self._per_transition(torch.arange(len(self.lengths), device=self.first.device))

    @property
    def step(self) -> Tensor:
        """Time step of each transition within its trajectory, from 0, ``(N,)``."""
        return self._all_indices - self._per_transition(self.first)

    @property
    def length(self) -> Tensor:
        """Number of transitions of the trajectory that each transition belongs to, ``(N,)``."""
        return self._per_transition(self.lengths)

    # --- returns ---------------------------------------------------------------------------------------------------
    @property
    def returns(self) -> Tensor:
        """Undiscounted return of each trajectory, ``(E,)``."""
        total = torch.cat([self.reward.new_zeros(1, dtype=torch.float64), self.reward.cumsum(0, dtype=torch.float64)])
        return (total[self.first + self.lengths] - total[self.first]).to(self.reward.dtype)

    def best_episodes(self, fraction: float) -> Tensor:
        """Numbers of the ``fraction`` of the trajectories with the highest returns, at least one, in order."""
        number = max(round(fraction * len(self.lengths)), 1)
        return self.returns.argsort(descending=True, stable=True)[:number].sort().values

    def indices_of(self, episodes: Tensor) -> Tensor:
        """Indices of all transitions of the trajectories numbered ``episodes`` (long), in that order."""
        return _concatenated_ranges(self.first[episodes], self.lengths[episodes])

    @property
    def last(self) -> Tensor:
        """Index of the last transition of each trajectory, ``(E,)``."""
        return self.first + self.lengths - 1

    def discounted_returns(self, discount: float, continuation: Tensor | None = None) -> Tensor:
        """Discounted return-to-go of each transition, ``(N,)``.

        Args:
            discount: γ.
            continuation: value of the state after each trajectory's last transition ``(E,)``; None for 0.
        """
        total = self.reward.clone()
        first, current = self.first, self.last
        if continuation is not None:
            total[current] += discount * continuation
        # All trajectories are processed in parallel, from their last steps backwards.
        while len(current):
            has_previous = current > first
            first, current = first[has_previous], current[has_previous] - 1
            total[current] = self.reward[current] + discount * total[current + 1]
        return total

    def endless_returns(self, discount: float) -> Tensor:
        """Discounted return-to-go of each transition if an episode that did not terminate never ended, ``(N,)``.

        It goes on with its own mean reward. Without this continuation, the last steps of an episode with negative
        rewards would seem to be the best ones.
        """
        mean_reward = self.returns / self.lengths
        return self.discounted_returns(discount, mean_reward / max(1 - discount, 1e-6) * ~self.terminated[self.last])

    # --- subsets ---------------------------------------------------------------------------------------------------
    def span(self, begin: int, end: int) -> Trajectories:
        """Returns the trajectories from number ``begin`` up to, but not including, ``end``, as views."""
        lengths = self.lengths[begin:end]
        skipped = int(self.lengths[:begin].sum())
        steps = slice(skipped, skipped + int(lengths.sum()))
        return Trajectories.from_lengths(
            self.state[steps.start + begin : steps.stop + begin + len(lengths)], self.action[steps],
            self.reward[steps], self.terminated[steps], self.truncated[steps], lengths,
        )  # fmt: skip

    def select(self, episodes: Tensor) -> Trajectories:
        """Returns copies of the trajectories numbered ``episodes`` (long), in that order."""
        lengths, first = self.lengths[episodes], self.first[episodes]
        index = self.indices_of(episodes)
        rows = _concatenated_ranges(first + episodes, lengths + 1)
        return Trajectories.from_lengths(
            self.state[rows], self.action[index], self.reward[index], self.terminated[index], self.truncated[index],
            lengths,
        )  # fmt: skip

    # --- batches ---------------------------------------------------------------------------------------------------
    def transitions(self, index: Tensor) -> Transitions:
        """Returns the transitions numbered ``index``. The shape of ``index`` replaces ``B`` in every tensor."""
        row = index + self._trajectory_of(index)
        return Transitions(
            _gather_rows(self.state, row),
            _gather_rows(self.action, index),
            self.reward[index],
            _gather_rows(self.state, row + 1),
            self.terminated[index],
        )

    def sequence(self, index: Tensor, before: int, after: int = 0) -> Sequence:
        """Returns network inputs around the transitions ``index`` ``(B,)``.

        Time steps outside the trajectory repeat its first or last state, with a previous action of zero and ``keep``
        False.

        Args:
            index: ``(B,)``.
            before: number of time steps before each transition.
            after: number of time steps after each transition.

        Returns:
            a sequence of ``before + 1 + after`` time steps.
        """
        row, start, length = self.locate(index)
        step = start + torch.arange(-before, after + 1, device=index.device).unsqueeze(1)
        shift = step.clamp(min=0).minimum(length) - start
        keep = (step > 0) & (step <= length)
        previous = self.action[(index + shift - 1).clamp(min=0)]
        previous_action = previous * keep[..., None, None].to(previous.dtype)
        return Sequence(self.state[row + shift], previous_action, keep)

    def count_windows(self, length: int) -> int:
        """Number of windows of ``length`` steps that contain a transition; some begin before a trajectory."""
        return len(self) + len(self.lengths) * (length - 1)

    def locate_windows(self, number: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Finds the windows with these numbers, from 0 to ``count_windows(length) - 1``.

        Each transition is in ``length`` of them, so that windows drawn uniformly contain all equally often. Those that
        begin at a transition would contain the first ones of a trajectory less often.

        Args:
            number: any shape.
            length: steps of a window.

        Returns:
            the first transition of each window, and how many of its steps lie before the trajectory.
        """
        begin = self.first + torch.arange(len(self.lengths), device=self.first.device) * (length - 1)
        trajectory = torch.searchsorted(begin, number.contiguous(), right=True) - 1
        start = number - begin[trajectory] - (length - 1)
        return self.first[trajectory] + start.clamp(min=0), (-start).clamp(min=0)

    def windows(self, index: Tensor, before: int, length: int, missing: Tensor | int = 0) -> Windows:
        """Returns windows of ``length`` steps that start at ``index`` ``(B,)``, after ``before`` steps of burn-in.

        The last ``missing`` ``(B,)`` steps of a window are not valid.
        """
        steps, valid = self._following(index, length, missing)
        return Windows(self.sequence(index, before, length - 1), self.action[steps], valid)

    def segments(self, index: Tensor, before: int, length: int, missing: Tensor | int = 0) -> Segments:
        """Returns the same windows with rewards, terminations and the last next state."""
        steps, valid = self._following(index, length, missing)
        sequence = self.sequence(index, before, length)
        return Segments(sequence, self.action[steps], valid, self.reward[steps], self.terminated[steps])

    def remaining(self, index: Tensor) -> Tensor:
        """Returns the number of transitions from ``index`` to the end of the trajectory, including ``index`` itself."""
        _, step, length = self.locate(index)
        return length - step

    def _following(self, index: Tensor, length: int, missing: Tensor | int) -> tuple[Tensor, Tensor]:
        """Returns the ``length`` transitions from ``index`` on, and which of them belong to the same trajectory.

        The last ``missing`` of them do not count.

        Returns:
            indices and a bool mask, both ``(length, B)``.
        """
        offset = torch.arange(length, device=index.device).unsqueeze(1)
        valid = (offset < self.remaining(index)) & (offset < length - missing)
        return (index + offset).clamp(max=len(self) - 1), valid


def _gather_rows(table: Tensor, index: Tensor) -> Tensor:
    """Returns ``table[index]``, copying whole rows, which is faster where rows are long."""
    return table.index_select(0, index.flatten()).unflatten(0, index.shape)


def _concatenated_ranges(begin: Tensor, count: Tensor) -> Tensor:
    """Concatenates the ranges ``begin[i], begin[i] + 1, ...`` of ``count[i]`` integers each; both are ``(E,)``."""
    offset = begin - (torch.cumsum(count, 0) - count)
    return torch.repeat_interleave(offset, count) + torch.arange(int(count.sum()), device=count.device)
