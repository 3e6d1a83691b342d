"""Real steps of a single Ant, stored in both layouts, imported, and compared with what was recorded."""

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

LENGTHS = [6, 4, 1, 5]
TERMINATED = [False, True, True, False]  # as it is claimed: an Ant does not fall so soon
PARTIAL = {"name": "ant", "observability": "partial"}
REACHER = {"name": "reacher"}

# Minari warns of the authors and links that a dataset of a test does not have.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")


def record(name, lengths):
    """Per episode: observations of all its times, actions and rewards of its steps; seeded with its number."""
    env = gymnasium.make(name, disable_env_checker=True).unwrapped
    rng = np.random.default_rng(0)
    for number, length in enumerate(lengths):
        seen, actions, rewards = [env.reset(seed=number)[0]], [], []
        for _ in range(length):
            actions.append(rng.uniform(-1, 1, env.action_space.shape).astype(np.float32))
            observation, reward, *_ = env.step(actions[-1])
            seen.append(observation)
            rewards.append(reward)
        yield np.stack(seen), np.stack(actions), np.array(rewards)
    env.close()


@pytest.fixture(scope="module")
def ant():
    return list(record("Ant-v5", LENGTHS))


def flat(path, episodes, terminated, drop=(), **changed):
    """Writes a file in D4RL's layout."""
    last = np.cumsum([len(rewards) for *_, rewards in episodes]) - 1
    arrays = {
        "observations": np.concatenate([seen[:-1] for seen, *_ in episodes]),
        "next_observations": np.concatenate([seen[1:] for seen, *_ in episodes]),
        "actions": np.concatenate([actions for _, actions, _ in episodes]),
        "rewards": np.concatenate([rewards for *_, rewards in episodes]),
    }
    arrays["terminals"] = np.isin(np.arange(last[-1] + 1), last[np.array(terminated)])
    arrays["timeouts"] = np.isin(np.arange(last[-1] + 1), last[~np.array(terminated)])
    with h5py.File(path, "w") as file:
        for key, array in {**arrays, **changed}.items():
            if key not in drop:
                file[key] = array
        file["metadata/algorithm"] = "random"
    return path


@pytest.fixture
def d4rl(tmp_path, ant):
    return flat(tmp_path / "ant.hdf5", ant, TERMINATED)


@pytest.fixture
def in_minari(tmp_path, ant, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    buffers = []
    for number, (seen, actions, rewards) in enumerate(ant):
        end = np.arange(len(rewards)) == len(rewards) - 1
        flags = {"terminations": end & TERMINATED[number], "truncations": end & (not TERMINATED[number])}
        buffers.append(EpisodeBuffer(id=number, observations=seen, actions=actions, rewards=rewards, **flags))
    create_dataset_from_buffers(
        "mujoco/ant/own-v0",
        buffer=buffers,
        observation_space=spaces.Box(-np.inf, np.inf, (105,), np.float64),
        action_space=spaces.Box(-1, 1, (8,), np.float32),
    )
    return tmp_path / "minari" / "mujoco" / "ant" / "own-v0"


def same(data, episodes, drives, size):
    """Whether all of the episodes are in the dataset, step by step."""
    trajectories = data.trajectories
    assert trajectories.lengths.tolist() == [len(rewards) for *_, rewards in episodes]
    for number, (seen, actions, rewards) in enumerate(episodes):
        first, length = int(trajectories.first[number]), len(rewards)
        row = int(trajectories.row[first])
        assert (trajectories.state[row : row + length + 1].numpy() == seen[:, :size].astype(np.float32)).all()
        assert (trajectories.reward[first : first + length].numpy() == rewards.astype(np.float32)).all()
        for i, agent in enumerate(data.spec.names):
            own = trajectories.action[first : first + length, i, : len(drives[agent])].numpy()
            assert (own == actions[:, list(drives[agent])]).all()


@pytest.mark.parametrize("layout", ["d4rl", "in_minari"])
@pytest.mark.parametrize("factoring", ["4x2", "2x4d"])
def test_nothing_is_lost_where_successors_are_stored(layout, factoring, ant, tmp_path, request):
    source = request.getfixturevalue(layout)
    env = {**PARTIAL, "factoring": factoring}
    data = OfflineDataModule(str(import_dataset(source, env, output=tmp_path / "out")))
    live = make_env(**env)
    same(data, ant, live.drives, 27)
    ends = np.cumsum(LENGTHS) - 1
    assert data.trajectories.terminated.nonzero().squeeze(1).tolist() == [ends[1], ends[2]]
    assert data.trajectories.truncated.nonzero().squeeze(1).tolist() == [ends[0], ends[3]]
    assert (data.spec.task, data.spec.state_size, data.spec.env) == ("ant", 27, env)

    # The task's own Ant, started alike and driven by its agents' imported actions, goes where the recorded one went.
    live.reset(seed=0)
    for step in range(LENGTHS[0]):
        joint = data.trajectories.action[step].numpy()
        live.step({agent: joint[i, : len(live.drives[agent])] for i, agent in enumerate(live.possible_agents)})
        assert (live.state() == data.trajectories.state[step + 1].numpy()).all()


def test_provenance_says_where_it_comes_from(d4rl, in_minari, tmp_path):
    data = read_dataset(import_dataset(d4rl, PARTIAL, output=tmp_path / "a"))
    given = data.provenance
    assert (given["dataset"], given["settings"], given["transitions"]) == ("ant", {"observability": "partial"}, 16)
    assert (given["source"]["file"], given["sha256"]) == ("ant.hdf5", data.sha256)
    assert len(given["source"]["sha256"]) == 64
    assert "mujoco" in given["versions"]
    assert read_dataset(import_dataset(in_minari, PARTIAL)).provenance["dataset"] == "mujoco/ant/own-v0"


def test_steps_with_unknown_successors_are_left_out(tmp_path, ant, caplog):
    caplog.set_level("INFO")
    source = flat(tmp_path / "ant.hdf5", ant, TERMINATED, drop=["next_observations"])
    data = read_dataset(import_dataset(source, PARTIAL, output=tmp_path / "out"))
    known = [(seen[:-1], actions[:-1], rewards[:-1]) for seen, actions, rewards in ant if len(rewards) > 1]
    same(data, known, make_env(**PARTIAL).drives, 27)
    assert not data.trajectories.terminated.any()
    assert data.trajectories.truncated.nonzero().squeeze(1).tolist() == [4, 7, 11]
    assert (
        "12 transitions in 3 episodes, 0 of which terminated; 4 last steps left out, as the file holds no"
        " next_observations to say what they led to; 2 of them terminated, so a world model of this data never ends"
    ) in caplog.text


def test_resets_that_were_not_flagged_are_found(tmp_path, ant, caplog):
    caplog.set_level("INFO")
    nothing = np.zeros(sum(LENGTHS), bool)
    source = flat(tmp_path / "ant.hdf5", ant, TERMINATED, drop=["timeouts"], terminals=nothing)
    data = read_dataset(import_dataset(source, PARTIAL, output=tmp_path / "out"))
    same(data, ant, make_env(**PARTIAL).drives, 27)
    assert int(data.trajectories.truncated.sum()) == 4
    assert "4 episodes end without a flag and count as truncated" in caplog.text


def test_without_timeouts_and_successors_the_horizon_cuts(tmp_path, caplog):
    episodes = list(record("Reacher-v5", [50, 3, 50, 50, 20]))
    terminated = [False, True, False, False, False]
    source = flat(tmp_path / "reacher.hdf5", episodes, terminated, drop=["timeouts", "next_observations"])
    data = read_dataset(import_dataset(source, REACHER, output=tmp_path / "out"))
    same(data, [(s[:-1], a[:-1], r[:-1]) for s, a, r in episodes], {"agent_0": [0], "agent_1": [1]}, 10)
    assert "episodes are taken to be cut after 50 steps" in caplog.text


def test_a_step_that_ends_both_ways_terminated(d4rl, in_minari, tmp_path, caplog):
    caplog.set_level("INFO")
    with h5py.File(d4rl, "a") as file:
        file["terminals"][5] = True
    with h5py.File(in_minari / "data" / "main_data.hdf5", "a") as file:
        file["episode_0/terminations"][5] = True
    for source, name in ((d4rl, "a"), (in_minari, "b")):
        caplog.clear()
        data = read_dataset(import_dataset(source, PARTIAL, output=tmp_path / name))
        assert data.trajectories.terminated.nonzero().squeeze(1).tolist() == [5, 9, 10]
        assert "1 end both ways and count as terminated" in caplog.text


def test_columns_are_chosen_or_known(tmp_path):
    episodes = list(record("Reacher-v5", [3, 2]))
    wide = [(np.hstack([np.full((len(seen), 2), np.nan), seen]), *rest) for seen, *rest in episodes]
    older = [(np.hstack([seen, np.zeros((len(seen), 1))]), *rest) for seen, *rest in episodes]
    shifted = flat(tmp_path / "wide.hdf5", wide, [False, False])
    with pytest.raises(UserError, match=r"observations has 12 columns, expected 10 or 11 for reacher; --columns FIRST"):
        import_dataset(shifted, REACHER)
    for source, columns in ((shifted, "2:12"), (flat(tmp_path / "old.hdf5", older, [False, False]), None)):
        data = read_dataset(import_dataset(source, REACHER, columns))
        same(data, episodes, {"agent_0": [0], "agent_1": [1]}, 10)


def test_compressed_files_are_read_alike(d4rl, tmp_path, ant, monkeypatch):
    monkeypatch.setattr("datamodules.readers.d4rl_file.BLOCK", 5)
    with h5py.File(d4rl) as file, h5py.File(tmp_path / "packed.hdf5", "w") as packed:
        for key in [key for key in file if key != "metadata"]:
            packed.create_dataset(key, data=file[key], compression="gzip", chunks=(3, 20)[: file[key].ndim] if
                                  file[key].shape[-1] > 20 or file[key].ndim == 1 else True)  # fmt: skip
    data = read_dataset(import_dataset(tmp_path / "packed.hdf5", PARTIAL))
    same(data, ant, make_env(**PARTIAL).drives, 27)


def test_actions_beyond_their_bounds_are_clipped_and_said(d4rl, tmp_path, caplog):
    with h5py.File(d4rl, "a") as file:
        file["actions"][0, 2] = 1.5  # the first agent's hip
    data = read_dataset(import_dataset(d4rl, PARTIAL, output=tmp_path / "out"))
    assert float(data.trajectories.action[0, 0, 0]) == 1.0
    assert "actions goes 0.5 beyond its bounds; clipped" in caplog.text


def change(key, place, value):
    def edit(file):
        file[key][place] = value

    return edit


def replace(key, value=None):
    def edit(file):
        del file[key]
        if value is not None:
            file[key] = value

    return edit


FLAT_FAULTS = {
    "missing": (replace("rewards"), r"rewards is missing, found actions, .*expected observations, actions, rewards, t"),
    "narrow": (replace("observations", np.zeros((16, 5))), r"observations has 5 columns, expected 27 or 105 or 111"),
    "one row": (replace("observations", np.zeros(16)), r"observations has shape \(16,\), expected one row for each"),
    "short": (replace("next_observations", np.zeros((9, 105))), r"next_observations has shape \(9, 105\), expected"),
    "other robot": (replace("actions", np.zeros((16, 6))), r"actions has shape \(16, 6\), expected \(16, 8\)"),
    "short flags": (replace("timeouts", np.zeros(3, bool)), r"timeouts has shape \(3,\), expected \(16,\)"),
    "words": (replace("actions", np.full((16, 8), b"a")), r"actions has type .*expected numbers"),
    "no steps": (replace("rewards", np.zeros(0)), r"rewards has shape \(0,\), expected at least one step"),
    "nan": (change("observations", (3, 20), np.nan), r"observations at step 3: found nan, expected finite numbers"),
    "too large": (change("rewards", 4, 1e300), r"rewards at step 4: found inf, expected finite numbers \(1 such"),
    "flags": (replace("terminals", np.full(16, 2)), r"terminals at step 0: found 2, expected 0 or 1 \(16 such steps"),
}


@pytest.mark.parametrize("fault", FLAT_FAULTS)
def test_faults_of_flat_files_are_named(d4rl, fault, momalit_home, tmp_path):
    edit, message = FLAT_FAULTS[fault]
    with h5py.File(d4rl, "a") as file:
        edit(file)
    with pytest.raises(UserError, match=message) as caught:
        import_dataset(d4rl, PARTIAL, output=tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert str(d4rl) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["ant.hdf5"]


MINARI_FAULTS = {
    "nan": (change("episode_1/observations", (2, 3), np.nan), r"episode_1/observations at step 2: found nan"),
    "early end": (change("episode_3/terminations", 1, True), r"episode_3/terminations at step 1: found True, expected"),
    "other robot": (replace("episode_0/actions", np.zeros((6, 6))), r"episode_0/actions has shape \(6, 6\), expected"),
    "missing": (replace("episode_0/observations"), r"episode_0/observations is missing, the episode has"),
    "no episodes": (lambda file: [file.move(key, f"x{key}") for key in list(file)], r"found xepisode_0, .*D4RL's layo"),
}


@pytest.mark.parametrize("fault", MINARI_FAULTS)
def test_faults_of_minari_datasets_are_named(in_minari, fault):
    edit, message = MINARI_FAULTS[fault]
    with h5py.File(in_minari / "data" / "main_data.hdf5", "a") as file:
        edit(file)
    with pytest.raises(UserError, match=message) as caught:
        import_dataset(in_minari, PARTIAL)
    assert "\n" not in str(caught.value)


def test_what_is_a_teams_already_needs_no_import(reacher):
    with pytest.raises(
        UserError, match=r"observations holds agent_0, agent_1, state, expected one array; a dataset key"
    ):
        import_dataset(reacher.path, REACHER)


@pytest.mark.parametrize(
    ("env", "columns", "message"),
    [
        ({}, None, r"env: found None, expected the name of a task, e\.g\. --env ant"),
        ({"name": "icg"}, None, r"env icg: does not say which actuators each agent drives"),
        ({"name": "ant", "factorin": "2x4"}, None, r"env\.factorin: no setting of ant.*did you mean factoring\?"),
        (PARTIAL, "27", r"columns: found '27', expected FIRST:END, e\.g\. 0:27"),
        (PARTIAL, "0:20", r"columns: 0:20 takes 20 columns, expected 27, ant's state"),
        (PARTIAL, "90:117", r"columns: found '90:117', but .*observations has 105 columns"),
    ],
)
def test_wrong_requests(d4rl, env, columns, message):
    with pytest.raises(UserError, match=message):
        import_dataset(d4rl, env, columns)


def test_sources_that_are_not_there(tmp_path, monkeypatch):
    def offline(name):
        raise OSError(f"no route to the host of {name}")

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setattr(minari, "download_dataset", offline)
    for source, message in {
        "gone.hdf5": r"source: found no file 'gone\.hdf5', expected an HDF5 file in D4RL's layout, a Minari",
        "mujoco/ant/gone-v0": r"found no mujoco/ant/gone-v0 in .*cannot be downloaded \(no route to the host of mujoco",
        str(tmp_path): r"found no data/main_data\.hdf5 in it",
    }.items():
        with pytest.raises(UserError, match=message):
            import_dataset(source, PARTIAL)
    (tmp_path / "text.hdf5").write_text("no HDF5")
    with pytest.raises(UserError, match=r"text\.hdf5: cannot be read as HDF5"):
        import_dataset(tmp_path / "text.hdf5", PARTIAL)


def test_minari_name_and_directory_are_the_same(in_minari):
    assert import_dataset("mujoco/ant/own-v0", PARTIAL) == import_dataset(in_minari, PARTIAL)


def test_made_once_for_every_source_and_team(d4rl, tmp_path, ant):
    first = import_dataset(d4rl, PARTIAL)
    before = (first / "data" / "main_data.hdf5").stat().st_mtime_ns
    assert import_dataset(d4rl, PARTIAL) == first
    assert (first / "data" / "main_data.hdf5").stat().st_mtime_ns == before
    assert import_dataset(d4rl, {**PARTIAL, "factoring": "2x4"}) != first
    assert import_dataset(flat(d4rl, ant, TERMINATED, rewards=np.zeros(16)), PARTIAL) != first


def test_minari_loads_what_was_imported(d4rl, monkeypatch, momalit_home):
    directory = import_dataset(d4rl, PARTIAL)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(momalit_home / "datasets"))
    loaded = minari.load_dataset(json.loads((directory / "data" / "metadata.json").read_text())["dataset_id"])
    assert [len(episode.rewards) for episode in loaded.iterate_episodes()] == LENGTHS


def test_nothing_half_written_remains_and_output_must_be_new(d4rl, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"output: .* exists, expected a new directory"):
        import_dataset(d4rl, PARTIAL, output=tmp_path)

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("datamodules.writer._write_episodes", fail)
    with pytest.raises(KeyboardInterrupt):
        import_dataset(d4rl, PARTIAL, output=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["ant.hdf5"]
