"""Tests that steps of a single Ant, stored in both layouts, are imported exactly as recorded."""

import json

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari import create_dataset_from_buffers
from minari.data_collector import EpisodeBuffer

from datamodules import OfflineDataModule, read_dataset
from datamodules.builders.import_dataset import import_dataset
from momalit.core.errors import UserError
from momalit.envs import make_env
from tests.datamodules.broken import BREAKS

LENGTHS = [6, 4, 1, 5]
TERMINATED = [False, True, True, False]  # arbitrary flags, because an Ant does not fall this early
PARTIAL = {"name": "ant", "observability": "partial"}
REACHER = {"name": "reacher"}

# Minari warns that the test datasets have no author and no code link.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")


def record(name, lengths):
    """Yields observations (L + 1), actions (L) and rewards (L) of each episode, seeded with the episode number."""
    env = gymnasium.make(name, disable_env_checker=True).unwrapped
    rng = np.random.default_rng(0)
    for number, length in enumerate(lengths):
        observations, actions, rewards = [env.reset(seed=number)[0]], [], []
        for _ in range(length):
            actions.append(rng.uniform(-1, 1, env.action_space.shape).astype(np.float32))
            observation, reward, *_ = env.step(actions[-1])
            observations.append(observation)
            rewards.append(reward)
        yield np.stack(observations), np.stack(actions), np.array(rewards)
    env.close()


@pytest.fixture(scope="module")
def ant():
    return list(record("Ant-v5", LENGTHS))


def write_d4rl(path, episodes, terminated, omit=(), **changed):
    """Writes a file in D4RL's layout."""
    last = np.cumsum([len(rewards) for *_, rewards in episodes]) - 1
    arrays = {
        "observations": np.concatenate([observations[:-1] for observations, *_ in episodes]),
        "next_observations": np.concatenate([observations[1:] for observations, *_ in episodes]),
        "actions": np.concatenate([actions for _, actions, _ in episodes]),
        "rewards": np.concatenate([rewards for *_, rewards in episodes]),
    }
    arrays["terminals"] = np.isin(np.arange(last[-1] + 1), last[np.array(terminated)])
    arrays["timeouts"] = np.isin(np.arange(last[-1] + 1), last[~np.array(terminated)])
    with h5py.File(path, "w") as file:
        for key, array in {**arrays, **changed}.items():
            if key not in omit:
                file[key] = array
        file["metadata/algorithm"] = "random"
    return path


@pytest.fixture
def d4rl(tmp_path, ant):
    return write_d4rl(tmp_path / "ant.hdf5", ant, TERMINATED)


@pytest.fixture
def minari_directory(tmp_path, ant, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    buffers = []
    for number, (observations, actions, rewards) in enumerate(ant):
        end = np.arange(len(rewards)) == len(rewards) - 1
        flags = {"terminations": end & TERMINATED[number], "truncations": end & (not TERMINATED[number])}
        buffers.append(EpisodeBuffer(id=number, observations=observations, actions=actions, rewards=rewards, **flags))
    create_dataset_from_buffers(
        "mujoco/ant/own-v0",
        buffer=buffers,
        observation_space=spaces.Box(-np.inf, np.inf, (105,), np.float64),
        action_space=spaces.Box(-1, 1, (8,), np.float32),
    )
    return tmp_path / "minari" / "mujoco" / "ant" / "own-v0"


def assert_same_episodes(data, episodes, drives, size):
    """Asserts that the dataset contains exactly the given episodes."""
    trajectories = data.trajectories
    assert trajectories.lengths.tolist() == [len(rewards) for *_, rewards in episodes]
    for number, (observations, actions, rewards) in enumerate(episodes):
        first, length = int(trajectories.first[number]), len(rewards)
        row = int(trajectories.row[first])
        assert (trajectories.state[row : row + length + 1].numpy() == observations[:, :size].astype(np.float32)).all()
        assert (trajectories.reward[first : first + length].numpy() == rewards.astype(np.float32)).all()
        for i, agent in enumerate(data.spec.names):
            own = trajectories.action[first : first + length, i, : len(drives[agent])].numpy()
            assert (own == actions[:, list(drives[agent])]).all()


@pytest.mark.parametrize("layout", ["d4rl", "minari_directory"])
@pytest.mark.parametrize("factoring", ["4x2", "2x4d"])
def test_import_is_complete_with_next_observations(layout, factoring, ant, tmp_path, request):
    source = request.getfixturevalue(layout)
    env = {**PARTIAL, "factoring": factoring}
    data = OfflineDataModule(str(import_dataset(source, env, output=tmp_path / "out")))
    task_env = make_env(**env)
    assert_same_episodes(data, ant, task_env.drives, 27)
    ends = np.cumsum(LENGTHS) - 1
    assert data.trajectories.terminated.nonzero().squeeze(1).tolist() == [ends[1], ends[2]]
    assert data.trajectories.truncated.nonzero().squeeze(1).tolist() == [ends[0], ends[3]]
    assert (data.spec.task, data.spec.state_size, data.spec.env) == ("ant", 27, env)

    # Replaying the agents' imported actions in the task's environment gives the recorded states.
    task_env.reset(seed=0)
    for step in range(LENGTHS[0]):
        joint = data.trajectories.action[step].numpy()
        names = enumerate(task_env.possible_agents)
        task_env.step({agent: joint[i, : len(task_env.drives[agent])] for i, agent in names})
        assert (task_env.state() == data.trajectories.state[step + 1].numpy()).all()


def test_provenance_names_the_source(d4rl, minari_directory, tmp_path):
    data = read_dataset(import_dataset(d4rl, PARTIAL, output=tmp_path / "a"))
    provenance = data.provenance
    assert (provenance["dataset"], provenance["transitions"]) == ("ant", 16)
    assert provenance["settings"] == {"observability": "partial"}
    assert (provenance["source"]["file"], provenance["sha256"]) == ("ant.hdf5", data.sha256)
    assert len(provenance["source"]["sha256"]) == 64
    assert "mujoco" in provenance["versions"]
    assert read_dataset(import_dataset(minari_directory, PARTIAL)).provenance["dataset"] == "mujoco/ant/own-v0"


def extrapolated(states):
    """The states of a terminated episode whose last one is not recorded but continues the change before."""
    known = states[:-1].astype(np.float32)
    return np.concatenate([known, [2 * known[-1] - known[-2]]])


def test_last_steps_without_next_observations_are_left_out_unless_the_task_ended(tmp_path, ant, caplog):
    caplog.set_level("INFO")
    source = write_d4rl(tmp_path / "ant.hdf5", ant, TERMINATED, omit=["next_observations"])
    data = read_dataset(import_dataset(source, PARTIAL, output=tmp_path / "out"))
    known = [(states[:-1], actions[:-1], rewards[:-1]) for states, actions, rewards in ant]
    known[1] = (extrapolated(ant[1][0]), *ant[1][1:])
    del known[2]  # a single step
    assert_same_episodes(data, known, make_env(**PARTIAL).drives, 27)
    assert data.trajectories.terminated.nonzero().squeeze(1).tolist() == [8]
    assert data.trajectories.truncated.nonzero().squeeze(1).tolist() == [4, 12]
    assert (
        "13 transitions in 3 episodes, 1 of which terminated; 3 last steps left out because the file has no"
        " next_observations; 1 observations after terminal steps extrapolated"
    ) in caplog.text


def test_unflagged_resets_are_detected(tmp_path, ant, caplog):
    caplog.set_level("INFO")
    nothing = np.zeros(sum(LENGTHS), bool)
    source = write_d4rl(tmp_path / "ant.hdf5", ant, TERMINATED, omit=["timeouts"], terminals=nothing)
    data = read_dataset(import_dataset(source, PARTIAL, output=tmp_path / "out"))
    assert_same_episodes(data, ant, make_env(**PARTIAL).drives, 27)
    assert int(data.trajectories.truncated.sum()) == 4
    assert "4 episodes end without a flag and count as truncated" in caplog.text


def test_horizon_truncates_without_timeouts_and_next_observations(tmp_path, caplog):
    episodes = list(record("Reacher-v5", [50, 3, 50, 50, 20]))
    terminated = [False, True, False, False, False]
    source = write_d4rl(tmp_path / "reacher.hdf5", episodes, terminated, omit=["timeouts", "next_observations"])
    data = read_dataset(import_dataset(source, REACHER, output=tmp_path / "out"))
    known = [(s[:-1], a[:-1], r[:-1]) for s, a, r in episodes]
    known[1] = (extrapolated(episodes[1][0]), *episodes[1][1:])
    assert_same_episodes(data, known, {"agent_0": [0], "agent_1": [1]}, 10)
    assert "episodes are assumed to be truncated after 50 steps" in caplog.text


def test_step_with_both_flags_counts_as_terminated(d4rl, minari_directory, tmp_path, caplog):
    caplog.set_level("INFO")
    with h5py.File(d4rl, "a") as file:
        file["terminals"][5] = True
    with h5py.File(minari_directory / "data" / "main_data.hdf5", "a") as file:
        file["episode_0/terminations"][5] = True
    for source, name in ((d4rl, "a"), (minari_directory, "b")):
        caplog.clear()
        data = read_dataset(import_dataset(source, PARTIAL, output=tmp_path / name))
        assert data.trajectories.terminated.nonzero().squeeze(1).tolist() == [5, 9, 10]
        assert "1 steps are both terminated and truncated and count as terminated" in caplog.text


def test_state_columns_are_given_or_known_from_the_width(tmp_path):
    episodes = list(record("Reacher-v5", [3, 2]))
    wide = [(np.hstack([np.full((len(states), 2), np.nan), states]), *rest) for states, *rest in episodes]
    older = [(np.hstack([states, np.zeros((len(states), 1))]), *rest) for states, *rest in episodes]
    shifted = write_d4rl(tmp_path / "wide.hdf5", wide, [False, False])
    with pytest.raises(UserError, match=r"observations has 12 columns, expected 10 or 11 for reacher; --columns FIRST"):
        import_dataset(shifted, REACHER)
    for source, columns in ((shifted, "2:12"), (write_d4rl(tmp_path / "old.hdf5", older, [False, False]), None)):
        data = read_dataset(import_dataset(source, REACHER, columns))
        assert_same_episodes(data, episodes, {"agent_0": [0], "agent_1": [1]}, 10)


def test_compressed_files_give_the_same_data(d4rl, tmp_path, ant, monkeypatch):
    monkeypatch.setattr("datamodules.readers.d4rl_file.BLOCK_ROWS", 5)
    with h5py.File(d4rl) as file, h5py.File(tmp_path / "packed.hdf5", "w") as packed:
        for key in [key for key in file if key != "metadata"]:
            packed.create_dataset(key, data=file[key], compression="gzip", chunks=(3, 20)[: file[key].ndim] if
                                  file[key].shape[-1] > 20 or file[key].ndim == 1 else True)  # fmt: skip
    data = read_dataset(import_dataset(tmp_path / "packed.hdf5", PARTIAL))
    assert_same_episodes(data, ant, make_env(**PARTIAL).drives, 27)


def test_actions_out_of_bounds_are_clipped_with_a_warning(d4rl, tmp_path, caplog):
    with h5py.File(d4rl, "a") as file:
        file["actions"][0, 2] = 1.5  # the first agent's hip
    data = read_dataset(import_dataset(d4rl, PARTIAL, output=tmp_path / "out"))
    assert float(data.trajectories.action[0, 0, 0]) == 1.0
    assert "actions exceed their bounds by up to 0.5; clipped" in caplog.text


def set_value(key, index, value):
    def edit(file):
        file[key][index] = value

    return edit


def replace(key, value=None):
    def edit(file):
        del file[key]
        if value is not None:
            file[key] = value

    return edit


INVALID_D4RL = {
    "missing": (replace("rewards"), r"rewards is missing, found actions, .*expected observations, actions, rewards, t"),
    "narrow": (replace("observations", np.zeros((16, 5))), r"observations has 5 columns, expected 27 or 105 or 111"),
    "one row": (replace("observations", np.zeros(16)), r"observations has shape \(16,\), expected one row for each"),
    "short": (replace("next_observations", np.zeros((9, 105))), r"next_observations has shape \(9, 105\), expected"),
    "other robot": (replace("actions", np.zeros((16, 6))), r"actions has shape \(16, 6\), expected \(16, 8\)"),
    "short flags": (replace("timeouts", np.zeros(3, bool)), r"timeouts has shape \(3,\), expected \(16,\)"),
    "not numeric": (replace("actions", np.full((16, 8), b"a")), r"actions has type .*expected numbers"),
    "no steps": (replace("rewards", np.zeros(0)), r"rewards has shape \(0,\), expected at least one step"),
    "nan": (set_value("observations", (3, 20), np.nan), r"observations at step 3: found nan, expected finite numbers"),
    "too large": (set_value("rewards", 4, 1e300), r"rewards at step 4: found inf, expected finite numbers \(1 such"),
    "flags": (replace("terminals", np.full(16, 2)), r"terminals at step 0: found 2, expected 0 or 1 \(16 such steps"),
}


@pytest.mark.parametrize("case", INVALID_D4RL)
def test_invalid_d4rl_files_are_reported(d4rl, case, momalit_home, tmp_path):
    edit, message = INVALID_D4RL[case]
    with h5py.File(d4rl, "a") as file:
        edit(file)
    with pytest.raises(UserError, match=message) as caught:
        import_dataset(d4rl, PARTIAL, output=tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert str(d4rl) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["ant.hdf5"]


INVALID_MINARI = {
    "nan": (set_value("episode_1/observations", (2, 3), np.nan), r"episode_1/observations at step 2: found nan"),
    "early end": (set_value("episode_3/terminations", 1, True), r"episode_3/terminations at step 1: found True"),
    "other robot": (replace("episode_0/actions", np.zeros((6, 6))), r"episode_0/actions has shape \(6, 6\), expected"),
    "missing": (replace("episode_0/observations"), r"episode_0/observations is missing, the episode has"),
    "no episodes": (lambda file: [file.move(key, f"x{key}") for key in list(file)], r"found xepisode_0, .*D4RL's layo"),
}


@pytest.mark.parametrize("case", INVALID_MINARI)
def test_invalid_minari_datasets_are_reported(minari_directory, case):
    edit, message = INVALID_MINARI[case]
    with h5py.File(minari_directory / "data" / "main_data.hdf5", "a") as file:
        edit(file)
    with pytest.raises(UserError, match=message) as caught:
        import_dataset(minari_directory, PARTIAL)
    assert "\n" not in str(caught.value)


def test_team_dataset_needs_no_import(reacher):
    with pytest.raises(
        UserError, match=r"observations holds agent_0, agent_1, state, expected one array; a dataset key"
    ):
        import_dataset(reacher.path, REACHER)


@pytest.mark.parametrize(
    ("env", "columns", "message"),
    [
        ({}, None, r"env: found None, expected the name of a task, e\.g\. --env ant"),
        ({"name": "icg"}, None, r"env icg: has discrete actions or no attribute drives"),
        ({"name": "ant", "factorin": "2x4"}, None, r"env\.factorin: not a setting of ant.*did you mean factoring\?"),
        (PARTIAL, "27", r"columns: found '27', expected FIRST:END, e\.g\. 0:27"),
        (PARTIAL, "0:20", r"columns: 0:20 selects 20 columns, expected the 27 of ant's state"),
        (PARTIAL, "90:117", r"columns: found '90:117', but .*observations has 105 columns"),
    ],
)
def test_invalid_arguments_are_reported(d4rl, env, columns, message):
    with pytest.raises(UserError, match=message):
        import_dataset(d4rl, env, columns)


def test_missing_sources_are_reported(tmp_path, monkeypatch):
    def fail_download(name):
        raise OSError(f"no route to the host of {name}")

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setattr(minari, "download_dataset", fail_download)
    for source, message in {
        "gone.hdf5": r"source: found no file 'gone\.hdf5', expected an HDF5 file in D4RL's layout, a Minari",
        "mujoco/ant/gone-v0": r"found no mujoco/ant/gone-v0 in .*cannot be downloaded \(no route to the host of mujoco",
        str(tmp_path): r"found no data/main_data\.hdf5, expected a Minari",
    }.items():
        with pytest.raises(UserError, match=message):
            import_dataset(source, PARTIAL)
    (tmp_path / "text.hdf5").write_text("no HDF5")
    with pytest.raises(UserError, match=r"text\.hdf5: cannot be read as HDF5"):
        import_dataset(tmp_path / "text.hdf5", PARTIAL)


def test_minari_name_and_directory_give_the_same_dataset(minari_directory):
    assert import_dataset("mujoco/ant/own-v0", PARTIAL) == import_dataset(minari_directory, PARTIAL)


def test_dataset_is_imported_once_per_source_and_settings(d4rl, tmp_path, ant):
    first = import_dataset(d4rl, PARTIAL)
    before = (first / "data" / "main_data.hdf5").stat().st_mtime_ns
    assert import_dataset(d4rl, PARTIAL) == first
    assert (first / "data" / "main_data.hdf5").stat().st_mtime_ns == before
    assert import_dataset(d4rl, {**PARTIAL, "factoring": "2x4"}) != first
    assert import_dataset(write_d4rl(d4rl, ant, TERMINATED, rewards=np.zeros(16)), PARTIAL) != first


def test_minari_loads_imported_datasets(d4rl, monkeypatch, momalit_home):
    directory = import_dataset(d4rl, PARTIAL)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(momalit_home / "datasets"))
    loaded = minari.load_dataset(json.loads((directory / "data" / "metadata.json").read_text())["dataset_id"])
    assert [len(episode.rewards) for episode in loaded.iterate_episodes()] == LENGTHS


def test_output_must_be_new_and_interrupted_import_leaves_no_files(d4rl, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"output: .* exists, expected a new directory"):
        import_dataset(d4rl, PARTIAL, output=tmp_path)

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("datamodules.writer._write_episodes", fail)
    with pytest.raises(KeyboardInterrupt):
        import_dataset(d4rl, PARTIAL, output=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["ant.hdf5"]


OPTIONAL = ("timeouts", "next_observations")


@pytest.mark.fault("array of a D4RL file broken or hostile", "22 ways, 6 arrays", "one line with file and key")
@pytest.mark.parametrize("key", ["observations", "next_observations", "actions", "rewards", "terminals", "timeouts"])
@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_d4rl_file_is_refused(name, key, d4rl, tmp_path):
    with h5py.File(d4rl, "r+") as file:
        array = file[key][()]
        del file[key]
        BREAKS[name](file, key, array)
    if key in OPTIONAL and name in ("missing", "a group"):
        assert import_dataset(d4rl, PARTIAL, output=tmp_path / "out").is_dir()
        return
    with pytest.raises(UserError) as error:
        import_dataset(d4rl, PARTIAL, output=tmp_path / "out")
    line = str(error.value)
    assert "\n" not in line
    assert str(d4rl) in line
    assert not (tmp_path / "out").exists()


@pytest.mark.fault("D4RL file cut short", "truncated at random lengths", "one line with the file", times=30)
def test_a_truncated_d4rl_file_is_refused(d4rl, tmp_path):
    whole, rng = d4rl.read_bytes(), np.random.default_rng(0)
    for length in rng.integers(len(whole), size=30):
        d4rl.write_bytes(whole[:length])
        with pytest.raises(UserError) as error:
            import_dataset(d4rl, PARTIAL, output=tmp_path / "out")
        assert "\n" not in str(error.value)
        assert str(d4rl) in str(error.value)
