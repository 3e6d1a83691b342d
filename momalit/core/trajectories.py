"""The log as it lies in memory: every number of it once, cut into parts and batches without a copy of the whole."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from momalit.core.records import Segments, Sequence, TensorRecord, Transitions, Windows


@dataclass(frozen=True)
class Trajectories(TensorRecord):
    """A set of E real trajectories with N transitions in all, one after the other.

    Each trajectory of length L keeps its L + 1 states in a row, so a successor is the next row and nothing is stored
    twice. Where a transition lies is found from the trajectories' beginnings, so nothing need be kept per transition.

    Args:
        state: ``(N + E, S)``.
        action: ``(N, A, U)``.
        reward: ``(N,)``.
        terminated: ``(N,)`` bool.
        truncated: ``(N,)`` bool.
        lengths: ``(E,)`` long, number of transitions of every trajectory, at least 1.
        first: ``(E,)`` long, index of the first transition of every trajectory.
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
        """Finds the beginnings; the arguments are as in the class."""
        return cls(state, action, reward, terminated, truncated, lengths, torch.cumsum(lengths, 0) - lengths)

    # --- where transitions lie -------------------------------------------------------------------------------------
    def place(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where the transitions numbered ``index``, of any shape, lie; that shape is that of the results.

        Returns:
            the row of ``state`` in which each begins; its time within its trajectory, from 0; and the number of
            transitions of that trajectory.
        """
        episode = self._episode(index)
        return index + episode, index - self.first[episode], self.lengths[episode]

    def _episode(self, index: Tensor) -> Tensor:
        """Number of the trajectory that each of the transitions ``index`` belongs to."""
        return torch.searchsorted(self.first, index.contiguous(), right=True) - 1

    def _each(self, values: Tensor) -> Tensor:
        """What holds for a trajectory ``(E,)``, for each of its transitions ``(N,)``."""
        return torch.repeat_interleave(values, self.lengths, output_size=len(self))

    @property
    def _every(self) -> Tensor:
        return torch.arange(len(self), device=self.first.device)

    @property
    def row(self) -> Tensor:
        """The row of ``state`` in which every transition begins, ``(N,)``."""
        return self._every + self._each(torch.arange(len(self.lengths), device=self.first.device))

    @property
    def step(self) -> Tensor:
        """Time of every transition within its trajectory, from 0, ``(N,)``."""
        return self._every - self._each(self.first)

    @property
    def length(self) -> Tensor:
        """Number of transitions of the trajectory that every transition belongs to, ``(N,)``."""
        return self._each(self.lengths)

    # --- returns ---------------------------------------------------------------------------------------------------
    @property
    def returns(self) -> Tensor:
        """Undiscounted return of every trajectory, ``(E,)``."""
        total = torch.cat([self.reward.new_zeros(1, dtype=torch.float64), self.reward.cumsum(0, dtype=torch.float64)])
        return (total[self.first + self.lengths] - total[self.first]).to(self.reward.dtype)

    def discounted_returns(self, discount: float) -> Tensor:
        """Discounted return-to-go of every transition, ``(N,)``; nothing is added past a trajectory's end."""
        total = self.reward.clone()
        # All trajectories at once, from their last steps backwards.
        first, now = self.first, self.first + self.lengths - 1
        while len(now):
            goes_on = now > first
            first, now = first[goes_on], now[goes_on] - 1
            total[now] = self.reward[now] + discount * total[now + 1]
        return total

    # --- parts -----------------------------------------------------------------------------------------------------
    def span(self, begin: int, end: int) -> Trajectories:
        """The trajectories from number ``begin`` to before ``end``, in the same memory."""
        lengths = self.lengths[begin:end]
        skipped = int(self.lengths[:begin].sum())
        steps = slice(skipped, skipped + int(lengths.sum()))
        return Trajectories.from_lengths(
            self.state[steps.start + begin : steps.stop + begin + len(lengths)], self.action[steps],
            self.reward[steps], self.terminated[steps], self.truncated[steps], lengths,
        )  # fmt: skip

    def select(self, episodes: Tensor) -> Trajectories:
        """The trajectories numbered ``episodes`` (long), in that order, in memory of their own."""
        lengths, first = self.lengths[episodes], self.first[episodes]
        index = _runs(first, lengths)
        rows = _runs(first + episodes, lengths + 1)
        return Trajectories.from_lengths(
            self.state[rows], self.action[index], self.reward[index], self.terminated[index], self.truncated[index],
            lengths,
        )  # fmt: skip

    # --- batches ---------------------------------------------------------------------------------------------------
    def transitions(self, index: Tensor) -> Transitions:
        """The transitions numbered ``index``, of any shape; that shape leads every tensor."""
        row = index + self._episode(index)
        return Transitions(
            _rows(self.state, row),
            _rows(self.action, index),
            self.reward[index],
            _rows(self.state, row + 1),
            self.terminated[index],
        )

    def sequence(self, index: Tensor, before: int, after: int = 0) -> Sequence:
        """Inputs around transitions ``index`` ``(B,)``: ``before`` times ahead of each, itself, and ``after`` more.

        Times outside the trajectory repeat its edge, with ``keep`` False ahead of its beginning.

        Returns:
            a sequence of ``before + 1 + after`` times.
        """
        row, at, length = self.place(index)
        step = at + torch.arange(-before, after + 1, device=index.device).unsqueeze(1)
        shift = step.clamp(min=0).minimum(length) - at
        began = (step > 0) & (step <= length)
        previous = self.action[(index + shift - 1).clamp(min=0)]
        previous_action = previous * began[..., None, None].to(previous.dtype)
        return Sequence(self.state[row + shift], previous_action, began)

    def windows(self, index: Tensor, before: int, length: int) -> Windows:
        """Pieces of ``length`` steps from transitions ``index`` ``(B,)`` on, after ``before`` steps of burn-in."""
        at, valid = self._ahead(index, length)
        return Windows(self.sequence(index, before, length - 1), self.action[at], valid)

    def segments(self, index: Tensor, before: int, length: int) -> Segments:
        """Windows as above, with rewards, terminations and the last successor."""
        at, valid = self._ahead(index, length)
        sequence = self.sequence(index, before, length)
        return Segments(sequence, self.action[at], valid, self.reward[at], self.terminated[at])

    def remaining(self, index: Tensor) -> Tensor:
        """Number of transitions from each of ``index`` to the end of its trajectory, itself included."""
        _, step, whole = self.place(index)
        return whole - step

    def _ahead(self, index: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Transitions ``(length, B)`` from ``index`` on, and whether they belong to the same trajectory."""
        offset = torch.arange(length, device=index.device).unsqueeze(1)
        return (index + offset).clamp(max=len(self) - 1), offset < self.remaining(index)


def _rows(table: Tensor, index: Tensor) -> Tensor:
    """``table[index]`` for rows that are long, whole rows at a time."""
    return table.index_select(0, index.flatten()).unflatten(0, index.shape)


def _runs(begin: Tensor, count: Tensor) -> Tensor:
    """Rising numbers from each of ``begin`` ``(E,)``, ``count`` ``(E,)`` of them, one run after the other."""
    offset = begin - (torch.cumsum(count, 0) - count)
    return torch.repeat_interleave(offset, count) + torch.arange(int(count.sum()), device=count.device)
