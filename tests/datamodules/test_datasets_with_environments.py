"""Datasets that name an environment, or whose user does."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from datamodules import collect, read_dataset
from momalit.core.errors import UserError
from momalit.envs import VectorTeamEnv, make_env


def test_dataset_of_a_users_environment_without_momalit_metadata_lacks_masks(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "envs"))
    directory = collect("stock:Stock/random", {"horizon": 8}, 400, 0, tmp_path / "stock")
    data = read_dataset(directory, may_import=True)
    assert (data.spec.task, data.spec.horizon, len(data.trajectories)) == ("stock:Stock", 8, 400)
    assert read_dataset(directory, {"name": "stock:Stock"}).spec == data.spec
    legal = data.spec.legal_index()
    state = data.trajectories.state[data.trajectories.row]
    for i in range(2):
        allowed = np.stack([state[:, c].numpy() > 0 if c >= 0 else np.ones(400, bool) for c in legal[i].tolist()], 1)
        assert (data.trajectories.action[:, i].numpy() <= allowed).all()

    metadata = json.loads((directory / "data" / "metadata.json").read_text())
    del metadata["momalit"]
    (directory / "data" / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(
        UserError, match=r"env stock:Stock does not fit .*has 2 observation and 3 mask columns, expected 2 and 0"
    ):
        # momalit's own files store masks in the state only.
        read_dataset(directory, {"name": "stock:Stock", "horizon": 8})


def test_a_dataset_runs_no_code_that_the_user_does_not_name(icg, tmp_path, monkeypatch, caplog):
    copy = tmp_path / "copy"
    shutil.copytree(icg.path.parent.parent, copy)
    file = copy / "data" / "metadata.json"
    metadata = json.loads(file.read_text())
    metadata["momalit"]["team"]["env"] = {"name": "evil:make"}
    del metadata["momalit"]["provenance"]["sha256"]
    file.write_text(json.dumps(metadata))
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with caplog.at_level("INFO"):
        assert read_dataset(copy).spec.env is None
    assert caplog.messages == [f"{file.with_name('main_data.hdf5')} names the environment evil:make, which is code;"
                               " data.env.name evil:make uses it"]  # fmt: skip
    with pytest.raises(UserError, match=r"names no environment, expected env\.name too"):
        read_dataset(copy, {"size": 3})
    with pytest.raises(SystemExit, match="imported"):
        read_dataset(copy, {"name": "evil:make", "size": 3})


def test_users_file_with_action_masks_fits_its_environment(tmp_path, monkeypatch):
    """The file holds each agent's observation and mask, but no state and no momalit metadata."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "envs"))
    env = make_env("stock:Stock", horizon=5)
    rng = np.random.default_rng(0)
    path = tmp_path / "own.hdf5"
    with h5py.File(path, "w") as file:
        for number in range(4):
            observations, actions = [env.reset(seed=number)[0]], []
            while env.agents:
                masks = {agent: each["action_mask"] for agent, each in observations[-1].items()}
                actions.append({agent: int(rng.choice(np.flatnonzero(mask))) for agent, mask in masks.items()})
                observations.append(env.step(actions[-1])[0])
            episode = file.create_group(f"episode_{number}")
            for agent in env.possible_agents:
                episode[f"actions/{agent}"] = np.array([each[agent] for each in actions])
                for key in ("observation", "action_mask"):
                    episode[f"observations/{agent}/{key}"] = np.stack([each[agent][key] for each in observations])
            episode["rewards"], episode["terminations"] = np.zeros(5), np.zeros(5, bool)
            episode["truncations"] = np.arange(5) == 4
    data = read_dataset(path, {"name": "stock:Stock", "horizon": 5})
    assert data.spec.env == {"name": "stock:Stock", "horizon": 5}
    assert [len(agent.legal) for agent in data.spec.agents] == [3, 2]
    start = VectorTeamEnv(data.spec, 4).reset(range(4))
    assert (data.trajectories.state[data.trajectories.row[data.trajectories.first]] == start).all()
