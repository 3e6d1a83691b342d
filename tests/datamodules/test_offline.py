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
from tests.memory import loading_memory


def test_splits_are_disjoint_sets_of_whole_trajectories(reacher):
    splits = [reacher.train, reacher.validation, reacher.test]
    assert [len(split.lengths) for split in splits] == [32, 4, 4]
    starts = [{tuple(row) for row in split.state[split.row[split.first]].tolist()} for split in splits]
    assert sum(map(len, starts)) == len(set.union(*starts)) == 40
    whole = reacher.trajectories
    assert set.union(*starts) == {tuple(row) for row in whole.state[whole.row[whole.first]].tolist()}
    for split in splits:
        assert split.lengths.tolist() == [50] * len(split.lengths)


def test_seeds_of_the_split_may_be_of_any_size_but_not_missing(reacher):
    large = OfflineDataModule(str(reacher.path), split_seed=2**64 + 5).contents.order
    assert large == OfflineDataModule(str(reacher.path), split_seed=5).contents.order
    with pytest.raises(UserError, match=r"^data\.split_seed: found null, expected an integer of at least 0$"):
        OfflineDataModule(str(reacher.path), split_seed=None)


def test_splits_share_the_memory_of_the_whole_dataset(reacher):
    whole = reacher.contents.trajectories
    for split in (reacher.train, reacher.validation, reacher.test):
        for key in ("state", "action", "reward", "terminated", "truncated"):
            assert getattr(split, key).untyped_storage().data_ptr() == getattr(whole, key).untyped_storage().data_ptr()


def test_memory_order_does_not_affect_contents_or_hash(reacher):
    plain = read_dataset(reacher.path)
    assert sorted(reacher.contents.order) == list(range(40)) != reacher.contents.order
    assert plain.sha256 == reacher.contents.sha256 == contents_hash(plain.spec, plain.trajectories)
    for key, value in vars(plain.trajectories).items():
        assert torch.equal(getattr(reacher.trajectories, key), value), key
    assert torch.allclose(reacher.returns, plain.trajectories.returns)
    splits = [reacher.validation, reacher.test, reacher.train]
    order = iter(reacher.contents.order)
    for split in splits:
        numbers = [next(order) for _ in split.lengths]
        assert numbers == sorted(numbers)
        assert torch.equal(split.state, plain.trajectories.select(torch.tensor(numbers)).state)


@pytest.mark.parametrize(
    ("test_split", "ranks"), [("worst", range(4)), ("middle", range(18, 22)), ("best", range(36, 40))]
)
def test_a_behaviour_can_be_held_out(reacher, test_split, ranks):
    data = OfflineDataModule(str(reacher.path), test_split=test_split, split_seed=reacher.split_seed)
    returns = reacher.returns.sort().values
    torch.testing.assert_close(data.test.returns.sort().values, returns[list(ranks)])
    known = data.known_returns.sort().values
    torch.testing.assert_close(known, torch.cat([data.train.returns, data.validation.returns]).sort().values)
    torch.testing.assert_close(known, returns[[rank for rank in range(40) if rank not in ranks]])
    assert [len(split.lengths) for split in (data.train, data.validation, data.test)] == [32, 4, 4]
    low, high = data.validation.returns.aminmax()
    assert high - low > (returns[-1] - returns[0]) / 20  # the validation split is random
    assert data.contents.sha256 == reacher.contents.sha256
    plain = OfflineDataModule(str(reacher.path), split_seed=reacher.split_seed)
    assert data.dynamics_fingerprint != plain.dynamics_fingerprint
    assert torch.equal(plain.test.state, reacher.test.state)


@pytest.mark.skipif(sys.platform != "linux", reason="reads memory use from /proc")
def test_loading_needs_little_more_memory_than_the_data(reacher, tmp_path):
    lengths, size = torch.full((400,), 500), 200_000
    random, no = torch.Generator().manual_seed(0), torch.zeros(size, dtype=torch.bool)
    state = torch.randn(size + len(lengths), 10, generator=random)
    data = Trajectories.from_lengths(state, torch.zeros(size, 2, 1), torch.zeros(size), no, no, lengths)
    write_dataset(tmp_path / "x", "reacher/large/x-v0", make_spec("reacher"), data, {})
    memory = loading_memory(tmp_path / "x", small=reacher.path)
    assert memory["raw"] == size * (2 * 4 + 4 + 2) + state.nbytes
    assert memory["resident"] <= memory["peak"] <= 1.3 * memory["raw"] + 7e6


def test_fingerprint_depends_on_split_seed_and_fractions(reacher):
    settings = {"env": {"observability": "independent"}, "transitions": 2000}
    same = OfflineDataModule("reacher/expert-mix", **settings)
    other_seed = OfflineDataModule("reacher/expert-mix", **settings, split_seed=1)
    no_test = OfflineDataModule("reacher/expert-mix", **settings, test_fraction=0.0)
    assert same.fingerprint == reacher.fingerprint
    assert torch.equal(same.train.state, reacher.train.state)
    assert len({reacher.fingerprint, other_seed.fingerprint, no_test.fingerprint}) == 3
    assert not torch.equal(other_seed.train.state, reacher.train.state)
    assert len(no_test.test) == 0


def test_views_of_one_dataset_have_the_same_dynamics(reacher):
    other_view = OfflineDataModule("reacher/expert-mix", env={"observability": "full"}, transitions=2000)
    other_seed = OfflineDataModule("reacher/expert-mix", env={"observability": "full"}, transitions=2000, split_seed=1)
    assert torch.equal(other_view.train.state, reacher.train.state)
    assert other_view.fingerprint != reacher.fingerprint
    assert other_view.dynamics_fingerprint == reacher.dynamics_fingerprint != other_seed.dynamics_fingerprint


def test_writing_and_reading_is_exact(icg, reacher, tmp_path):
    for number, data in enumerate((icg, reacher)):
        target = tmp_path / str(number)
        write_dataset(target, "round/trip-v0", data.spec, data.trajectories, {"sha256": data.contents.sha256})
        found = read_dataset(target)
        assert found.spec == data.spec
        assert found.sha256 == data.contents.sha256
        for key, value in vars(data.trajectories).items():
            assert torch.equal(getattr(found.trajectories, key), value), key


def test_stored_transitions_match_the_environment(reacher):
    """Replaying stored actions from a stored state gives the stored rewards and next states, so no array is shifted."""
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


def test_dataset_is_generated_on_first_access(monkeypatch, tmp_path):
    monkeypatch.setenv("MOMALIT_HOME", str(tmp_path))
    data = OfflineDataModule("icg/favourable", transitions=50)
    assert list(tmp_path.iterdir()) == []
    assert data.spec.task == "icg"
    assert data.path.is_relative_to(tmp_path)
    assert len(data.returns) == 5


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("icg/conflicting", {"n_agents": 3}),
        ("reacher/expert-mix", {"observability": "leader"}),
        ("ridges/conflicting", {}),
        ("ant/random", {"factoring": "2x4"}),
    ],
)
def test_the_team_of_a_builtin_dataset_is_known_before_it_is_collected(name, settings, monkeypatch, tmp_path):
    monkeypatch.setenv("MOMALIT_HOME", str(tmp_path))
    data = OfflineDataModule(name, settings, transitions=10)
    spec = data.spec
    assert list(tmp_path.iterdir()) == []
    assert spec == data.contents.spec == OfflineDataModule(name, settings, transitions=10).spec


def test_observability_of_a_dataset_given_by_path_can_be_changed(reacher):
    data = OfflineDataModule(str(reacher.path), env={"observability": "full"})
    assert len(data.spec.agents[0].observes) == 10
    assert data.fingerprint != reacher.fingerprint


def test_environment_fingerprint_depends_on_settings():
    data = EnvironmentDataModule("icg", {"n_agents": 3})
    assert data.spec.n_agents == 3
    assert data.fingerprint == EnvironmentDataModule("icg", {"n_agents": 3}).fingerprint
    assert data.fingerprint != EnvironmentDataModule("icg").fingerprint


@pytest.mark.parametrize("make", [lambda: OfflineDataModule("icg/favourable"), lambda: EnvironmentDataModule("icg")])
def test_loaders_come_from_the_module(make):
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
        ({"test_split": "bset"}, r"data\.test_split: found 'bset', expected one of random, best, middle, worst"),
        ({"test_fraction": -0.1}, r"data\.test_fraction: found -0\.1"),
        ({"test_fraction": float("nan")}, r"data\.test_fraction: found nan"),
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, r"found 1, expected less than 1"),
    ],
)
def test_invalid_fractions_are_reported(settings, message):
    with pytest.raises(UserError, match=message):
        OfflineDataModule("icg/favourable", **settings)


def test_too_few_trajectories_for_the_split():
    data = OfflineDataModule("icg/favourable", transitions=20)
    with pytest.raises(UserError, match="found 2 trajectories, expected at least 1 for validation"):
        data.train  # noqa: B018


@pytest.mark.parametrize(("keep_on_device", "moves"), [(True, True), (False, False), (None, False)])
def test_training_split_moves_to_the_accelerator_if_requested(keep_on_device, moves, momalit_home):
    data = OfflineDataModule("icg/unfavourable", transitions=1000, keep_on_device=keep_on_device)
    data.to_device(torch.device("cpu"))
    assert data.train.reward.device.type == "cpu"
    data.to_device(torch.device("meta"))
    assert {data.train.state.device.type, data.train.row.device.type} == {"meta" if moves else "cpu"}
    assert data.validation.reward.device.type == "cpu"


@pytest.mark.parametrize(("factor", "moves"), [(3.9, False), (4.1, True)])
def test_training_split_moves_by_default_if_it_fits_a_quarter_of_free_memory(factor, moves, momalit_home, monkeypatch):
    data = OfflineDataModule("icg/unfavourable", transitions=1000)
    # 1100 states of 4 floats; 1000 transitions with 4 action floats, a reward and two flags; two indices per episode.
    size = 1100 * 16 + 1000 * (16 + 4 + 2) + 100 * 16
    assert data.train.n_bytes == pytest.approx(0.8 * size)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (int(factor * data.train.n_bytes), 0))
    assert data._fits_on(torch.device("cuda")) == moves
