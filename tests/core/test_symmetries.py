"""Groups of maps that generators amount to, and steps seen through them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from momalit.core.records import Transitions
from momalit.core.symmetries import MOST, Symmetries, generated


def permutation(order: list[int]) -> np.ndarray:
    return np.eye(len(order))[order]


def matrix(maps: Symmetries, which: int) -> np.ndarray:
    """The dense matrix of one map."""
    size = maps.columns.shape[1]
    result = np.zeros((size, size))
    for row in range(size):
        np.add.at(result[row], maps.columns[which, row].numpy(), maps.factors[which, row].numpy())
    return result


def steps(rows: int, states: int = 4, agents: int = 2, actions: int = 1) -> Transitions:
    random = torch.Generator().manual_seed(0)
    return Transitions(
        state=torch.randn(rows, states, generator=random),
        action=torch.randn(rows, agents, actions, generator=random),
        reward=torch.randn(rows, generator=random),
        next_state=torch.randn(rows, states, generator=random),
        terminated=torch.zeros(rows, dtype=torch.bool),
    )


def test_a_group_is_closed_and_begins_with_the_identity() -> None:
    swap, cycle = permutation([1, 0, 2, 3, 4, 5]), permutation([1, 2, 0, 3, 4, 5])
    maps = generated([swap, cycle], [np.zeros(6)] * 2)
    assert len(maps) == 6
    matrices = [matrix(maps, i) for i in range(6)]
    np.testing.assert_array_equal(matrices[0], np.eye(6))
    for a in matrices:
        for b in matrices:
            assert any(np.allclose(a @ b, c) for c in matrices)


def test_rotations_need_several_columns() -> None:
    turn = np.eye(6)
    turn[:2, :2] = np.array([[1, -1], [1, 1]]) / np.sqrt(2)
    maps = generated([turn], [np.zeros(6)])
    assert len(maps) == 8
    assert maps.columns.shape[-1] == 2
    for i in range(8):
        np.testing.assert_allclose(matrix(maps, i), np.linalg.matrix_power(turn, i), atol=1e-6)


def test_of_a_large_group_there_is_a_random_choice_that_is_always_the_same() -> None:
    swaps = []
    for i in range(7):
        order = list(range(16))
        order[i : i + 2] = i + 1, i
        swaps.append(permutation(order))
    maps, again = (generated(swaps, [np.zeros(16)] * 7) for _ in range(2))
    assert len(maps) == MOST
    assert maps.sha256 == again.sha256
    np.testing.assert_array_equal(matrix(maps, 0), np.eye(16))
    place = torch.tensor(np.stack([matrix(maps, i)[0].argmax() for i in range(MOST)]))
    assert (place.bincount(minlength=8)[:8] > MOST / 16).all()  # every column comes to every place


def test_other_symmetries_have_another_hash() -> None:
    one = generated([permutation([1, 0, 2])], [np.zeros(3)])
    assert one.sha256 != generated([permutation([0, 2, 1])], [np.zeros(3)]).sha256
    assert one.sha256 != generated([permutation([1, 0, 2])], [np.ones(3)]).sha256


@pytest.mark.parametrize("shape", [(12,), (3, 4)])
def test_steps_are_seen_through_their_maps(shape: tuple[int, ...]) -> None:
    swap = np.eye(6)
    swap[4:, 4:] = [[0, -1], [-1, 0]]
    offset = np.array([0, 0, 1.0, -1.0, 0, 0])
    maps = generated([swap, np.eye(6)], [np.zeros(6), offset])
    assert len(maps) > 4  # shifts go on for ever
    which = torch.arange(12) % len(maps)
    before = steps(12)
    after = maps.apply(before.map(lambda t: t.view(*shape, *t.shape[1:])), which.view(shape))
    after = after.map(lambda t: t.reshape(12, *t.shape[len(shape) :]))
    for i in range(12):
        dense, shift = matrix(maps, int(which[i])), maps.offsets[which[i]].numpy()
        for name in ("state", "next_state"):
            expected = dense[:4, :4] @ getattr(before, name)[i].numpy() + shift[:4]
            np.testing.assert_allclose(getattr(after, name)[i], expected, atol=1e-5)
        np.testing.assert_allclose(
            after.action[i].flatten(), dense[4:, 4:] @ before.action[i].flatten().numpy(), atol=1e-5
        )
    assert torch.equal(after.reward, before.reward)
    assert torch.equal(after.terminated, before.terminated)
