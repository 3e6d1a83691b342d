"""Symmetries: maps of states and joint actions that leave the dynamics, rewards and terminations as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from momalit.core.records import TensorRecord, Transitions

MOST = 512  # maps that are kept; of more, a random choice
LARGEST = 2**25  # numbers in the matrices of all maps
ROUNDS = 6  # in which each of these is combined with another one
_SAME = 1e-6  # entries that differ by less are equal

Parts = Mapping[str, np.ndarray]  # of observations or actions, by agent
Symmetry = Callable[[Parts, Parts], tuple[Parts, Parts]]  # see momalit.envs.symmetries.symmetries_of
Affine = tuple[np.ndarray, np.ndarray]  # matrix and offset


@dataclass(frozen=True)
class Symmetries(TensorRecord):
    """N affine maps of ``[state ; joint action]``, the identity among them, in which few entries are not zero.

    Args:
        columns: the columns that make up each entry of a map's result, long ``(N, S + A * U, K)``.
        factors: their factors; 0 where an entry has fewer than K columns.
        offsets: what is added, ``(N, S + A * U)``.
    """

    columns: Tensor
    factors: Tensor
    offsets: Tensor

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def sha256(self) -> str:
        """SHA-256 of all maps, in hex."""
        digest = hashlib.sha256()
        for tensor in (self.columns, self.factors, self.offsets):
            digest.update(tensor.cpu().numpy().tobytes())
        return digest.hexdigest()

    def apply(self, steps: Transitions, which: Tensor) -> Transitions:
        """Returns the steps, each seen through a map of its own.

        Args:
            steps: the steps, with any leading axes ``(...)``.
            which: number of each step's map, long ``(...)``.
        """
        size = steps.state.shape[-1]
        of_states, of_actions = self._part(which, 0, size), self._part(which, size, self.offsets.shape[1])
        return Transitions(
            state=_image(steps.state, *of_states),
            action=_image(steps.action.flatten(-2), *of_actions).view_as(steps.action),
            reward=steps.reward,
            next_state=_image(steps.next_state, *of_states),
            terminated=steps.terminated,
        )

    def _part(self, which: Tensor, begin: int, end: int) -> tuple[Tensor, Tensor, Tensor]:
        """The maps ``which`` of some entries, whose columns are counted from ``begin``."""
        columns, factors, offsets = self.columns[:, begin:end], self.factors[:, begin:end], self.offsets[:, begin:end]
        columns = (columns - begin).clamp(0, end - begin - 1)  # columns of factor 0 may lie elsewhere
        return columns[which], factors[which], offsets[which]


def _image(values: Tensor, columns: Tensor, factors: Tensor, offsets: Tensor) -> Tensor:
    """``factors[k] * values[columns[k]]``, summed over k, plus ``offsets``; ``(..., D)``."""
    image = offsets
    for k in range(columns.shape[-1]):
        image = image + values.gather(-1, columns[..., k]) * factors[..., k]
    return image


def generated(matrices: list[np.ndarray], offsets: list[np.ndarray]) -> Symmetries:
    """Returns the group that maps ``x -> matrix @ x + offset`` generate; of a large one, a random choice of maps.

    Args:
        matrices: ``(D, D)`` each, without entries that mix state and action.
        offsets: ``(D,)`` each.
    """
    size = len(offsets[0])
    most = max(2, min(MOST, LARGEST // size**2))
    identity = (np.eye(size), np.zeros(size))
    generators = [_Map(matrix, offset) for matrix, offset in zip(matrices, offsets, strict=True)]
    maps, seen = [identity], {_key(identity)}
    for known in maps:  # grows while it is read
        for generator in generators:
            new = generator.after(known)
            if (key := _key(new)) not in seen:
                seen.add(key)
                maps.append(new)
        if len(maps) > most:
            return _sparse([identity, *_shuffled(maps[1:most])])
    return _sparse(maps)


class _Map:
    """A map with few entries, so that composing it with another one is cheap."""

    def __init__(self, matrix: np.ndarray, offset: np.ndarray) -> None:
        most = int((np.abs(matrix) > _SAME).sum(1).max())
        self._columns = np.argsort(-np.abs(matrix), 1, kind="stable")[:, :most]
        self._factors, self._offset = np.take_along_axis(matrix, self._columns, 1), offset

    def after(self, first: Affine) -> Affine:
        """The map that applies ``first``, then this one."""
        matrix, offset = np.zeros_like(first[0]), self._offset.copy()
        for columns, factors in zip(self._columns.T, self._factors.T, strict=True):
            matrix += factors[:, None] * first[0][columns]
            offset += factors * first[1][columns]
        return matrix, offset


def _key(affine: Affine) -> bytes:
    rounded = (np.round(part / _SAME).astype(np.int64).tobytes() for part in affine)
    return hashlib.sha256(b"".join(rounded)).digest()


def _shuffled(maps: list[Affine]) -> list[Affine]:
    """Random maps of the group, made from those that few generators make."""
    random = np.random.default_rng(0)
    for _ in range(ROUNDS):
        others = random.permutation(len(maps))
        maps = [_Map(*one).after(maps[other]) for one, other in zip(maps, others, strict=True)]
    return maps


def _sparse(maps: list[Affine]) -> Symmetries:
    matrices = torch.from_numpy(np.stack([matrix for matrix, _ in maps]))
    matrices = torch.where(matrices.abs() < _SAME, 0.0, matrices)
    most = int((matrices != 0).sum(-1).amax())
    columns = matrices.abs().argsort(dim=-1, descending=True, stable=True)[..., :most]
    return Symmetries(
        columns=columns,
        factors=matrices.gather(-1, columns).float(),
        offsets=torch.from_numpy(np.stack([offset for _, offset in maps])).float(),
    )
