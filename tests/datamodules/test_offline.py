import sys

import numpy as np
import pytest
import torch

from datamodules import EnvironmentDataModule, OfflineDataModule, read_dataset
from datamodules.readers.team_dataset import contents_hash
from datamodules.writer import write_dataset
from momalit.core.errors import UserError
from momalit.core.trajectories import Trajectories
from tests.benchmarks.workloads import make_spec
from tests.memory import of_loading


def test_parts_are_whole_trajectories_without_overlap(reacher):
    parts = [reacher.train, reacher.validation, reacher.test]
    assert [len(part.lengths) for part in parts] == [32, 4, 4]
    starts = [{tuple(row) for row in part.state[part.row[part.first]].tolist()} for part in parts]
    assert sum(map(len, starts)) == len(set.union(*starts)) == 40
    everything = reacher.trajectories
    assert set.union(*starts) == {tuple(row) for row in everything.state[everything.row[everything.first]].tolist()}
    for part in parts:
        assert part.lengths.tolist() == [50] * len(part.lengths)


def test_parts_share_the_memory_of_the_whole(reacher):
    everything = reacher.contents.trajectories
    for part in (reacher.train, reacher.validation, reacher.test):
        for key in ("state", "action", "reward", "terminated", "truncated"):
            assert (
                getattr(part, key).untyped_storage().data_ptr() == getattr(everything, key).untyped_storage().data_ptr()
            )


def test_the_order_in_memory_shows_nowhere_else(reacher):
    plain = read_dataset(reacher.path)
    assert sorted(reacher.contents.order) == list(range(40)) != reacher.contents.order
    assert plain.sha256 == reacher.contents.sha256 == contents_hash(plain.spec, plain.trajectories)
    for key, value in vars(plain.trajectories).items():
        assert torch.equal(getattr(reacher.trajectories, key), value), key
    assert torch.allclose(reacher.returns, plain.trajectories.returns)
    parts = [reacher.validation, reacher.test, reacher.train]
    at = iter(reacher.contents.order)
    for part in parts:
        numbers = [next(at) for _ in part.lengths]
        assert numbers == sorted(numbers)
        assert torch.equal(part.state, plain.trajectories.select(torch.tensor(numbers)).state)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's kernel")
def test_loading_takes_little_more_than_the_data(tmp_path):
    lengths, size = torch.full((400,), 500), 200_000
    random, no = torch.Generator().manual_seed(0), torch.zeros(size, dtype=torch.bool)
    state = torch.randn(size + len(lengths), 10, generator=random)
    data = Trajectories.from_lengths(state, torch.zeros(size, 2, 1), torch.zeros(size), no, no, lengths)
    write_dataset(tmp_path / "x", "reacher/large/x-v0", make_spec("reacher"), data, {})
    memory = of_loading(tmp_path / "x")
    # Libraries take 15 MB that do not grow with the data.
    assert memory["raw"] == size * (2 * 4 + 4 + 2) + state.nbytes
    assert memory["resident"] <= memory["peak"] <= 1.3 * memory["raw"] + 15e6


def test_split_seed_and_fractions_make_the_fingerprint(reacher):
    settings = {"env": {"observability": "independent"}, "transitions": 2000}
    again = OfflineDataModule("reacher/expert-mix", **settings)
    other = OfflineDataModule("reacher/expert-mix", **settings, split_seed=1)
    fewer = OfflineDataModule("reacher/expert-mix", **settings, test_fraction=0.0)
    assert again.fingerprint == reacher.fingerprint
    assert torch.equal(again.train.state, reacher.train.state)
    assert len({reacher.fingerprint, other.fingerprint, fewer.fingerprint}) == 3
    assert not torch.equal(other.train.state, reacher.train.state)
    assert len(fewer.test) == 0


def test_round_trip_bit_for_bit(icg, reacher, tmp_path):
    for number, data in enumerate((icg, reacher)):
        target = tmp_path / str(number)
        write_dataset(target, "round/trip-v0", data.spec, data.trajectories, {"sha256": data.contents.sha256})
        found = read_dataset(target)
        assert found.spec == data.spec
        assert found.sha256 == data.contents.sha256
        for key, value in vars(data.trajectories).items():
            assert torch.equal(getattr(found.trajectories, key), value), key


def test_stored_states_are_what_the_environment_does(reacher):
    """Playing the stored actions from a stored start gives the stored rewards: actions and states are not shifted."""
    from momalit.envs import make_env

    trajectories, env = reacher.trajectories, make_env("reacher")
    env.reset(seed=0)
    for episode in range(3):
        first = int(trajectories.first[episode])
        row = int(trajectories.row[first])
        start = trajectories.state[row].double().numpy()
        angle = np.arctan2(start[2:4], start[0:2])
        env.reset(seed=0)
        env._env.set_state(np.concatenate([angle, start[4:6]]), np.concatenate([start[6:8], [0, 0]]))
        for step in range(5):
            torque = trajectories.action[first + step, :, 0].numpy()
            _, rewards, *_ = env.step({"agent_0": torque[:1], "agent_1": torque[1:]})
            assert rewards["agent_0"] == pytest.approx(float(trajectories.reward[first + step]), abs=1e-4)
            assert env.state() == pytest.approx(trajectories.state[row + step + 1].numpy(), abs=1e-3)


def test_nothing_is_made_before_it_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("MOMALIT_HOME", str(tmp_path))
    data = OfflineDataModule("icg/favourable", transitions=50)
    assert list(tmp_path.iterdir()) == []
    assert data.spec.task == "icg"
    assert data.path.is_relative_to(tmp_path)
    assert len(data.returns) == 5


def test_eyes_of_a_dataset_of_ones_own_may_change(reacher):
    data = OfflineDataModule(str(reacher.path), env={"observability": "full"})
    assert len(data.spec.agents[0].observes) == 10
    assert data.fingerprint != reacher.fingerprint


def test_environment_data_module():
    data = EnvironmentDataModule("icg", {"n_agents": 3})
    assert data.spec.n_agents == 3
    assert data.fingerprint == EnvironmentDataModule("icg", {"n_agents": 3}).fingerprint
    assert data.fingerprint != EnvironmentDataModule("icg").fingerprint


@pytest.mark.parametrize("make", [lambda: OfflineDataModule("icg/favourable"), lambda: EnvironmentDataModule("icg")])
def test_loaders_are_the_modules(make):
    from types import SimpleNamespace

    data = make()
    names = ["train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader"]
    module = SimpleNamespace(**{name: (lambda name=name: name) for name in names})
    data.trainer = SimpleNamespace(lightning_module=module)
    assert [getattr(data, name)() for name in names] == names


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation_fraction": 1.0}, r"data\.validation_fraction: found 1\.0, expected a number from 0 to below 1"),
        ({"test_fraction": -0.1}, r"data\.test_fraction: found -0\.1"),
        ({"test_fraction": float("nan")}, r"data\.test_fraction: found nan"),
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, r"found 1, expected less than 1"),
    ],
)
def test_fractions(settings, message):
    with pytest.raises(UserError, match=message):
        OfflineDataModule("icg/favourable", **settings)


def test_empty_split():
    data = OfflineDataModule("icg/favourable", transitions=20)
    with pytest.raises(UserError, match="found 2 trajectories, expected enough for 1 to validate with"):
        data.train  # noqa: B018


@pytest.mark.parametrize(("keep_on_device", "moves"), [(True, True), (False, False), (None, False)])
def test_the_training_split_moves_to_an_accelerator_if_it_shall(keep_on_device, moves, momalit_home):
    data = OfflineDataModule("icg/unfavourable", transitions=1000, keep_on_device=keep_on_device)
    data.to_device(torch.device("cpu"))
    assert data.train.reward.device.type == "cpu"
    data.to_device(torch.device("meta"))
    assert {data.train.state.device.type, data.train.row.device.type} == {"meta" if moves else "cpu"}
    assert data.validation.reward.device.type == "cpu"


@pytest.mark.parametrize(("factor", "moves"), [(3.9, False), (4.1, True)])
def test_it_moves_by_itself_where_it_takes_a_quarter_of_the_free_memory(factor, moves, momalit_home, monkeypatch):
    data = OfflineDataModule("icg/unfavourable", transitions=1000)
    # 1000 transitions and 100 last states: 4 floats a state, 4 an action, a reward, two flags; 100 times two indices.
    size = 1100 * 16 + 1000 * (16 + 4 + 2) + 100 * 16
    assert data.train.n_bytes == pytest.approx(0.8 * size)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (int(factor * data.train.n_bytes), 0))
    assert data._fits(torch.device("cuda")) == moves
