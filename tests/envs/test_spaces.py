"""Actions of several choices at once, which count as one choice of all combinations; and images, which are refused."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from gymnasium import spaces
from minari.serialization import serialize_space

from datamodules import OfflineDataModule, collect
from momalit.core.errors import UserError
from momalit.envs.spaces import choices_of, observation_widths
from momalit.envs.vector_env import VectorTeamEnv
from tests.envs.levers import wanted


@pytest.mark.parametrize(
    "space", [spaces.Discrete(5, start=2), spaces.MultiDiscrete([2, 3, 4], start=[0, 5, -1]), spaces.MultiBinary(4)]
)
def test_numbers_and_actions_are_inverse(space) -> None:
    choices = choices_of("a", space)
    actions = [choices.action(number) for number in range(choices.count)]
    assert all(space.contains(np.asarray(action, space.dtype)) for action in actions)
    assert len({str(action) for action in actions}) == choices.count
    assert choices.number(np.array(actions).reshape(choices.count, -1)).tolist() == list(range(choices.count))


def test_what_is_no_choice_has_no_number() -> None:
    choices = choices_of("a", spaces.MultiDiscrete([2, 3], start=[1, 1]))
    assert choices.number(np.array([[0, 1], [3, 1], [1, 1.5], [1, 3], [np.nan, 1]])).tolist() == [-1, -1, -1, 2, -1]


@pytest.fixture
def recorded(tmp_path: Path) -> OfflineDataModule:
    output = tmp_path / "levers"
    collect("tests.envs.levers:Levers", policy=wanted, transitions=40, output=output)
    return OfflineDataModule(str(output), env={"name": "tests.envs.levers:Levers"})


def test_a_recorded_team_plays_as_it_was_recorded(recorded: OfflineDataModule) -> None:
    assert recorded.spec.discrete
    assert [agent.action_size for agent in recorded.spec.agents] == [12, 4]
    assert (recorded.trajectories.reward == 5).all()
    env = VectorTeamEnv(recorded.spec, 1)
    state = env.reset([3])
    step = env.step(torch.nn.functional.one_hot(torch.tensor([[11, 2]]), 12).float())
    assert env.envs[0].received["a"].tolist() == [2, 3, 2]
    assert env.envs[0].received["b"].tolist() == [1, 0]
    assert float(step.reward) == float((torch.tensor([2, 3, 2, 1, 0]) == state[0, :5]).sum())


def write(folder: Path, actions: np.ndarray, shape: tuple[int, ...] = (2,)) -> Path:
    """A Minari file in which agent ``a`` has three choices at once, and observations of a shape."""
    rng = np.random.default_rng(0)
    (folder / "data").mkdir(parents=True)
    with h5py.File(folder / "data/main_data.hdf5", "w") as file:
        for i in range(3):
            group = file.create_group(f"episode_{i}")
            group["observations/a"] = rng.normal(size=(5, *shape))
            group["actions/a"] = actions
            group["rewards"], group["terminations"] = rng.normal(size=4), np.zeros(4, bool)
            group["truncations"] = np.arange(4) == 3
    space = spaces.Dict({"a": spaces.MultiDiscrete([2, 3, 2])})
    (folder / "data/metadata.json").write_text(json.dumps({"action_space": serialize_space(space)}))
    return folder


def test_a_dataset_with_several_choices_is_read(tmp_path: Path) -> None:
    data = OfflineDataModule(str(write(tmp_path / "x", np.array([[0, 0, 0], [1, 2, 1], [0, 1, 0], [1, 0, 1]]))))
    assert data.trajectories.action.argmax(2)[:4, 0].tolist() == [0, 11, 2, 7]
    bad = OfflineDataModule(str(write(tmp_path / "y", np.array([[0, 0, 0], [1, 3, 1], [0, 1, 0], [1, 0, 1]]))))
    with pytest.raises(UserError, match=r"actions/a at step 1: found 1, expected integers from 0 to 1 and 0 to 2"):
        bad.trajectories  # noqa: B018


def test_images_are_refused(tmp_path: Path) -> None:
    zeros = np.zeros((4, 3), np.int64)
    grid = OfflineDataModule(str(write(tmp_path / "grid", zeros, (5, 5, 4))))
    assert grid.spec.state_size == 100
    images = OfflineDataModule(str(write(tmp_path / "images", zeros, (32, 32, 3))))
    with pytest.raises(UserError, match=r"observations/a has shape \(32, 32, 3\), expected a vector: images need"):
        images.spec  # noqa: B018
    with pytest.raises(UserError, match="agent a: its observation space has shape"):
        observation_widths("a", spaces.Box(0, 255, (64, 64, 3), np.uint8))
