"""Tests reading a user's own multi-agent Minari file, valid and invalid."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from gymnasium import spaces
from minari import create_dataset_from_buffers
from minari.data_collector import EpisodeBuffer

from datamodules import OfflineDataModule, read_dataset
from momalit.core.errors import UserError

LENGTHS = [4, 6, 5]


def buffers(discrete):
    """Episodes of two agents that share one observation column. The second agent observes one column more."""
    rng = np.random.default_rng(0)
    for number, length in enumerate(LENGTHS):
        shared = rng.normal(size=(length + 1, 1)).astype(np.float32)
        own = rng.normal(size=(length + 1, 2)).astype(np.float32)
        end = np.arange(length) == length - 1
        if discrete:
            actions = {"agent_2": rng.integers(1, 4, length), "agent_10": rng.integers(0, 2, length)}
        else:
            actions = {
                k: rng.uniform(-1, 1, (length, n)).astype(np.float32) for k, n in (("agent_2", 1), ("agent_10", 2))
            }
        yield EpisodeBuffer(
            id=number,
            observations={"agent_2": np.hstack([own[:, :1], shared]), "agent_10": np.hstack([shared, own[:, ::-1]])},
            actions=actions,
            rewards=rng.normal(size=length),
            terminations=end & (number == 1),
            truncations=end & (number != 1),
        )


def create_minari_dataset(root: Path, discrete: bool, monkeypatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    box = lambda n, b=np.inf: spaces.Box(-b, b, (n,), np.float32)  # noqa: E731
    action_spaces = (
        {"agent_2": spaces.Discrete(3, start=1), "agent_10": spaces.Discrete(2)}
        if discrete
        else {"agent_2": box(1, 1), "agent_10": box(2, 1)}
    )
    create_dataset_from_buffers(
        "mine/own-v0",
        buffer=list(buffers(discrete)),
        observation_space=spaces.Dict({"agent_2": box(2), "agent_10": box(3)}),
        action_space=spaces.Dict(action_spaces),
    )
    return root / "mine" / "own-v0"


# Minari warns that the test datasets have no author and no code link.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")


@pytest.fixture
def continuous(tmp_path, monkeypatch):
    return create_minari_dataset(tmp_path, False, monkeypatch)


@pytest.fixture
def discrete(tmp_path, monkeypatch):
    return create_minari_dataset(tmp_path, True, monkeypatch)


def edit(directory, change):
    path = directory / "data" / "main_data.hdf5"
    with h5py.File(path, "a") as file:
        change(file)
    return directory


def replace(file, key, value):
    del file[key]
    file[key] = value


def test_team_is_inferred(continuous):
    data = read_dataset(continuous)
    spec = data.spec
    assert spec.names == ("agent_2", "agent_10")
    assert (spec.state_size, spec.horizon, spec.discrete, spec.env) == (3, 6, False, None)
    assert [agent.observes for agent in spec.agents] == [(0, 1), (1, 2, 0)]
    assert [agent.high for agent in spec.agents] == [(1.0,), (1.0, 1.0)]
    for number, buffer in enumerate(buffers(False)):
        first = int(data.trajectories.first[number])
        row, length = int(data.trajectories.row[first]), LENGTHS[number]
        state = data.trajectories.state[row : row + length + 1].numpy()
        for i, agent in enumerate(spec.agents):
            assert (state[:, list(agent.observes)] == buffer.observations[agent.name]).all()
            action = data.trajectories.action[first : first + length, i, : agent.action_size].numpy()
            assert (action == buffer.actions[agent.name]).all()
        assert (data.trajectories.reward[first : first + length].numpy() == buffer.rewards.astype(np.float32)).all()
    assert data.trajectories.terminated.nonzero().squeeze(1).tolist() == [9]
    assert data.trajectories.truncated.nonzero().squeeze(1).tolist() == [3, 14]


def test_discrete_actions_are_one_hot_relative_to_their_start(discrete):
    data = read_dataset(discrete)
    assert [agent.action_size for agent in data.spec.agents] == [3, 2]
    expected = np.concatenate([buffer.actions["agent_2"] for buffer in buffers(True)]) - 1
    assert (data.trajectories.action[:, 0].argmax(-1).numpy() == expected).all()
    assert (data.trajectories.action.sum(-1) == 1).all()


def test_directory_and_file_give_the_same_dataset(continuous):
    file = continuous / "data" / "main_data.hdf5"
    assert OfflineDataModule(str(continuous)).fingerprint == OfflineDataModule(str(file)).fingerprint


def test_rewards_per_agent_are_averaged(continuous):
    edit(continuous, lambda f: replace(f, "episode_0/rewards", np.arange(8.0).reshape(4, 2)))
    with pytest.raises(UserError, match=r"episode_1/rewards has shape \(6,\), expected \(6, 2\)"):
        read_dataset(continuous)
    for i, length in enumerate(LENGTHS):
        edit(continuous, lambda f, i=i, n=length: replace(f, f"episode_{i}/rewards", np.arange(2.0 * n).reshape(n, 2)))
    assert read_dataset(continuous).trajectories.reward[:4].tolist() == [0.5, 2.5, 4.5, 6.5]


@pytest.mark.parametrize("key", ["rewards", "terminations", "truncations"])
@pytest.mark.parametrize("width", [0, 3])
def test_rewards_and_flags_are_the_teams_or_one_per_agent(key, width, continuous):
    for i, length in enumerate(LENGTHS):
        edit(continuous, lambda f, i=i, n=length: replace(f, f"episode_{i}/{key}", np.zeros((n, width))))
    found = rf"episode_0/{key} has shape \(4, {width}\), expected \(4,\) or one column per agent: \(4, 2\)"
    with pytest.raises(UserError, match=found) as caught:
        read_dataset(continuous)
    assert str(continuous) in str(caught.value)


def test_numbers_of_episodes_may_have_leading_zeros(continuous):
    expected = read_dataset(continuous)
    edit(continuous, lambda f: [f.move(f"episode_{i}", f"episode_0{i}") for i in range(len(LENGTHS))])
    assert read_dataset(continuous).sha256 == expected.sha256
    edit(continuous, lambda f: f.copy("episode_01", "episode_1"))
    with pytest.raises(UserError, match="found episode_01 and episode_1, expected each number of an episode once"):
        read_dataset(continuous)


def test_last_step_without_a_flag_is_truncated(continuous, caplog):
    edit(continuous, lambda f: replace(f, "episode_2/truncations", np.zeros(5, bool)))
    assert bool(read_dataset(continuous).trajectories.truncated[-1])
    assert "1 episodes end without a flag; treated as truncated" in caplog.text


def set_flag(key, number, step):
    def change(file):
        file[f"episode_{number}/{key}"][step] = True

    return change


def set_value(key, index, value):
    def change(file):
        file[key][index] = value

    return change


INVALID = {
    "missing key": (lambda f: f.__delitem__("episode_1/rewards"), r"episode_1/rewards is missing"),
    "missing observations": (
        lambda f: f.__delitem__("episode_0/observations/agent_10"),
        r"episode_0/observations/agent_10 is missing, found agent_2",
    ),
    "missing actions": (lambda f: f.__delitem__("episode_2/actions/agent_2"), r"episode_2/actions/agent_2 is missing"),
    "missing actions of an agent in every episode": (
        lambda f: [f[episode]["actions"].__delitem__("agent_2") for episode in f],
        r"episode_0/actions/agent_2 is missing, found agent_10, expected one for each key of observations but state",
    ),
    "an agent in one episode only": (
        lambda f: [
            f[f"episode_{i}/{key}"].__delitem__("agent_2") for i in (0, 1) for key in ("observations", "actions")
        ],
        r"episode_0/actions/agent_2 is missing, but episode_2 has it",
    ),
    "an array as episode": (
        lambda f: replace(f, "episode_1", np.zeros(3)),
        r"episode_1 is an array, expected a group with the arrays of an episode",
    ),
    "no episodes": (lambda f: [f.__delitem__(k) for k in list(f)], r"expected groups episode_0"),
    "no steps": (
        lambda f: replace(f, "episode_1/rewards", np.zeros(0)),
        r"episode_1/rewards has shape \(0,\), expected at least one step",
    ),
    "short observations": (
        lambda f: replace(f, "episode_1/observations/agent_2", np.zeros((6, 2))),
        r"episode_1/observations/agent_2 has shape \(6, 2\), expected \(7, 2\)",
    ),
    "wide actions": (
        lambda f: replace(f, "episode_0/actions/agent_10", np.zeros((4, 3), np.float32)),
        r"episode_0/actions/agent_10 has shape \(4, 3\), expected \(4, 2\)",
    ),
    "short flags": (
        lambda f: replace(f, "episode_0/truncations", np.zeros(3, bool)),
        r"episode_0/truncations has shape \(3,\), expected \(4,\)",
    ),
    "not numeric": (lambda f: replace(f, "episode_0/rewards", np.array([b"a"] * 4)), r"has type .*expected numbers"),
    "one array": (
        lambda f: replace(f, "episode_0/observations", np.zeros((5, 2))),
        r"episode_0/observations is one array \(5, 2\), expected a group keyed by agent",
    ),
    "nan": (
        set_value("episode_1/observations/agent_10", (2, 1), np.nan),
        r"episode_1/observations/agent_10 at step 2: found nan, expected finite numbers",
    ),
    "infinite reward": (set_value("episode_2/rewards", 4, np.inf), r"episode_2/rewards at step 4: found inf"),
    "both flags": (
        set_flag("terminations", 0, 3),
        r"episode_0/terminations at step 3: found True, expected at most one of terminations and truncations",
    ),
    "truncated in the middle": (
        set_flag("truncations", 1, 2),
        r"episode_1/truncations at step 2: found True, expected True only at the last step of an episode",
    ),
    "terminated in the middle": (set_flag("terminations", 2, 0), r"episode_2/terminations at step 0: found True"),
}


@pytest.mark.parametrize("case", INVALID)
def test_invalid_files_are_reported(continuous, case):
    change, message = INVALID[case]
    edit(continuous, change)
    with pytest.raises(UserError, match=message) as caught:
        read_dataset(continuous)
    assert "\n" not in str(caught.value)
    assert str(continuous) in str(caught.value)


@pytest.mark.parametrize(("value", "agent"), [(0, "agent_2"), (4, "agent_2"), (2, "agent_10"), (-1, "agent_10")])
def test_discrete_action_out_of_range_is_reported(discrete, value, agent):
    edit(discrete, set_value(f"episode_1/actions/{agent}", 3, value))
    expected = "1 to 3" if agent == "agent_2" else "0 to 1"
    message = rf"episode_1/actions/{agent} at step 3: found {value}, expected an integer from {expected}"
    with pytest.raises(UserError, match=message):
        read_dataset(discrete)


def test_actions_out_of_bounds_are_clipped_with_a_warning(continuous, caplog):
    edit(continuous, set_value("episode_0/actions/agent_2", 0, 1.5))
    assert float(read_dataset(continuous).trajectories.action[0, 0, 0]) == 1.0
    assert "exceeds its bounds by up to 0.5" in caplog.text


def test_file_that_is_not_hdf5_is_reported(continuous):
    (continuous / "data" / "main_data.hdf5").write_bytes(b"no HDF5")
    with pytest.raises(UserError, match="cannot be read as HDF5"):
        read_dataset(continuous)


def test_incomplete_file_is_reported(continuous):
    path = continuous / "data" / "main_data.hdf5"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="cannot be read as HDF5"):
        read_dataset(continuous)


def test_missing_files_are_reported(tmp_path):
    with pytest.raises(UserError, match=r"none\.hdf5: no such file.*built-in datasets are given by name"):
        read_dataset(tmp_path / "none.hdf5")
    with pytest.raises(UserError, match=r"found no data/main_data\.hdf5, expected a Minari"):
        read_dataset(tmp_path)
    with pytest.raises(UserError, match=r"did you mean reacher/expert-mix\?"):
        OfflineDataModule("reacher/expertmix").spec  # noqa: B018


def test_invalid_metadata_is_reported(continuous):
    (continuous / "data" / "metadata.json").write_text("{")
    with pytest.raises(UserError, match=r"metadata\.json: cannot be read as JSON"):
        read_dataset(continuous)


@pytest.mark.parametrize("key", ["team", "provenance"])
def test_invalid_entries_of_the_metadata_are_named(key, icg, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(icg.path.parent.parent, copy)
    file = copy / "data" / "metadata.json"
    metadata = json.loads(file.read_text())
    metadata["momalit"][key] = 5
    file.write_text(json.dumps(metadata))
    with pytest.raises(UserError, match=rf"metadata\.json: momalit\.{key}: found 5, expected a JSON object$"):
        read_dataset(copy)


def test_action_bounds_are_inferred_without_metadata(continuous, caplog):
    (continuous / "data" / "metadata.json").unlink()
    values = {name: np.concatenate([b.actions[name] for b in buffers(False)]) for name in ("agent_2", "agent_10")}
    with caplog.at_level("INFO"):
        data = read_dataset(continuous)
    for i, agent in enumerate(data.spec.agents):
        assert agent.low == tuple(values[agent.name].min(0).tolist())
        assert agent.high == tuple(values[agent.name].max(0).tolist())
        assert (data.trajectories.action[:, i, : agent.action_size].numpy() == values[agent.name]).all()
    low, high = float(values["agent_2"].min()), float(values["agent_2"].max())
    assert f"agent_2 has action bounds from the smallest and largest found: [{low:g}, {high:g}]" in caplog.text


def test_whole_numbers_of_float_type_are_continuous(discrete_without_metadata):
    for i, buffer in enumerate(buffers(True)):
        chosen = buffer.actions["agent_2"].astype(np.float64)
        edit(discrete_without_metadata, lambda f, i=i, v=chosen: replace(f, f"episode_{i}/actions/agent_2", v))
    agents = read_dataset(discrete_without_metadata).spec.agents
    assert [(agent.discrete, agent.low, agent.high) for agent in agents] == [(False, (1.0,), (3.0,)), (True, (), ())]


def test_choices_are_inferred_without_metadata(discrete_without_metadata):
    assert [agent.action_size for agent in read_dataset(discrete_without_metadata).spec.agents] == [4, 2]


@pytest.mark.parametrize("value", [False, True])
def test_boolean_actions_are_two_choices(value, discrete_without_metadata):
    for i, length in enumerate(LENGTHS):
        key, chosen = f"episode_{i}/actions/agent_10", np.full(length, value)
        edit(discrete_without_metadata, lambda f, key=key, chosen=chosen: replace(f, key, chosen))
    data = read_dataset(discrete_without_metadata)
    assert data.spec.agents[1].action_size == 2
    assert (data.trajectories.action[:, 1].argmax(-1) == int(value)).all()


def test_several_columns_of_whole_numbers_need_metadata(discrete_without_metadata):
    for i, length in enumerate(LENGTHS):
        key, chosen = f"episode_{i}/actions/agent_10", np.zeros((length, 2), int)
        edit(discrete_without_metadata, lambda f, key=key, chosen=chosen: replace(f, key, chosen))
    with pytest.raises(UserError, match=r"episode_0/actions/agent_10 has 2 columns of int64, expected one column of"):
        read_dataset(discrete_without_metadata)


@pytest.fixture
def discrete_without_metadata(tmp_path_factory, monkeypatch):
    directory = create_minari_dataset(tmp_path_factory.mktemp("discrete"), True, monkeypatch)
    (directory / "data" / "metadata.json").unlink()
    return directory


def test_modified_contents_are_reported(icg, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(icg.path.parent.parent, copy)
    edit(copy, set_value("episode_5/rewards", 3, 7.0))
    with pytest.raises(UserError, match=r"contents have SHA-256 \w+, expected \w+ from the metadata"):
        read_dataset(copy)


def test_environment_that_does_not_fit_the_dataset_is_reported(continuous, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "envs"))
    with pytest.raises(UserError, match=r"names no environment, expected env\.name too"):
        read_dataset(continuous, {"horizon": 3})
    with pytest.raises(UserError, match=r"env stock:Stock does not fit .*found agents \('buyer', 'seller'\)"):
        read_dataset(continuous, {"name": "stock:Stock"})
