"""Batches of the world model, as they are and seen through symmetries."""

from __future__ import annotations

import torch

from datamodules import OfflineDataModule
from momalit.world_model.batches import member_batches


def data() -> OfflineDataModule:
    return OfflineDataModule("icg/conflicting", env={"n_agents": 3}, transitions=1000, symmetries="declared")


def batches(module: OfflineDataModule, members: slice = slice(0, 4), epoch: int = 0, symmetric: bool = True) -> list:
    maps = module.symmetries if symmetric else None
    return list(member_batches(module.train, 4, members, 64, 0, epoch, 0, 1, maps))


def test_a_step_is_seen_through_one_symmetry_at_random() -> None:
    module = data()
    plain, seen = batches(module, symmetric=False), batches(module)
    assert len(plain) == len(seen)
    different = 0
    for before, after in zip(plain, seen, strict=True):
        assert torch.equal(before.reward, after.reward)  # the same steps in the same order
        assert torch.equal(before.action.sum((-1, -2)), after.action.sum((-1, -2)))
        different += int((before.action != after.action).any(-1).any(-1).sum())
    assert different > 0.5 * sum(batch.reward.numel() for batch in plain)
    for batch in seen:  # in this game the next state is the actions, whatever they are called
        assert torch.equal(batch.next_state, batch.action.flatten(-2))


def test_members_see_the_same_whoever_trains_them() -> None:
    module = data()
    for whole, part in zip(batches(module), batches(module, slice(1, 3)), strict=True):
        assert torch.equal(whole.action[1:3], part.action)
        assert torch.equal(whole.next_state[1:3], part.next_state)


def test_epochs_have_symmetries_of_their_own() -> None:
    module = data()
    first, second = batches(module), batches(module, epoch=1)
    assert not torch.equal(first[0].action, second[0].action)


def test_the_world_model_depends_on_the_symmetries_and_the_data_do_not() -> None:
    module, plain = data(), OfflineDataModule("icg/conflicting", env={"n_agents": 3}, transitions=1000)
    assert module.fingerprint == plain.fingerprint
    assert module.dynamics_fingerprint != plain.dynamics_fingerprint
    assert plain.symmetries is None


def test_processes_divide_a_batch_as_one_would_see_it() -> None:
    module = data()
    parts = [
        list(member_batches(module.train, 4, slice(0, 4), 64, 0, 0, rank, 2, module.symmetries)) for rank in (0, 1)
    ]
    for whole, first, second in zip(batches(module), *parts, strict=True):
        together = torch.cat([first.action, second.action], 1)
        assert torch.equal(together, whole.action)
