"""A user's own policies in a user's own environment become a dataset, exactly as they acted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datamodules import collect, read_dataset
from datamodules.builders.recorded import RecordedPolicy
from momalit.cli import main
from momalit.core.errors import UserError
from momalit.core.team import AgentSpec, TeamSpec
from momalit.envs.spaces import Choices

STOCK = "tests.envs.stock:Stock"


def buy_and_sell(observations):
    assert {name: len(values) for name, values in observations.items()} == {"buyer": 2, "seller": 3}
    return {"buyer": int(observations["buyer"][1] < 1), "seller": int(observations["seller"][0] > 0)}


class Alternating:
    """Remembers the step of its own episode."""

    def __init__(self):
        self.step = 0

    def __call__(self, observations):
        self.step += 1
        return {"buyer": self.step % 2, "seller": 0}


def test_a_function_is_recorded_as_it_acts(tmp_path: Path) -> None:
    path = collect(STOCK, policy=buy_and_sell, transitions=200, output=tmp_path / "data")
    data = read_dataset(path, may_import=True)
    spec, trajectories = data.spec, data.trajectories
    state = trajectories.state[trajectories.row].numpy()
    buyer, seller = spec.agents
    assert (trajectories.action[:, 0].argmax(-1).numpy() == (state[:, buyer.observes[1]] < 1)).all()
    assert (trajectories.action[:, 1].argmax(-1).numpy() == (state[:, seller.observes[0]] > 0)).all()
    assert data.provenance["generator"] == {"behaviour": "policy", "policy": "buy_and_sell"}


def test_each_episode_has_a_policy_of_its_own(tmp_path: Path) -> None:
    path = collect(STOCK, policy=Alternating, transitions=100, output=tmp_path / "data")
    data = read_dataset(path, may_import=True).trajectories
    assert (data.action[:, 0].argmax(-1) == (data.step + 1) % 2).all()


class Careless:
    """Has habits of its own in every episode."""

    def __init__(self, seed: int | None = None):
        self.random = np.random.default_rng(seed)

    def __call__(self, observations):
        return {"buyer": int(self.random.integers(2)), "seller": 0}


def test_equal_seeds_give_equal_episodes(tmp_path: Path) -> None:
    one, again, other = (
        read_dataset(
            collect(STOCK, policy=Careless, transitions=100, output=tmp_path / name, seed=seed), may_import=True
        )
        for name, seed in (("one", 0), ("again", 0), ("other", 1))
    )
    assert one.sha256 == again.sha256 != other.sha256
    first = one.trajectories.action[one.trajectories.first, 0].argmax(-1)
    assert 0 < first.sum() < len(first)  # not all episodes alike


def test_continuous_actions_are_recorded(tmp_path: Path) -> None:
    def push(observations):
        return {name: np.tanh(values[:1]) for name, values in observations.items()}

    path = collect("reacher", {"observability": "independent"}, 100, policy=push, output=tmp_path / "data")
    data = read_dataset(path)
    state = data.trajectories.state[data.trajectories.row]
    expected = np.tanh(state[:, [agent.observes[0] for agent in data.spec.agents]].numpy())
    np.testing.assert_allclose(data.trajectories.action[..., 0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (lambda _: {"buyer": 0}, "found actions of buyer, expected one of seller, too"),
        (lambda _: {"buyer": 3, "seller": 0}, r"found the action 3 of buyer, expected 0..2"),
        (lambda _: {"buyer": 0.5, "seller": 0}, r"found the action 0.5 of buyer, expected 0..2"),
        ("tests.envs.stock", "--policy: found 'tests.envs.stock', expected package.module:callable"),
        ("tests.envs.stock:Nobody", "--policy: found 'tests.envs.stock:Nobody', which cannot be imported"),
        ("tests.envs.stock:np", "--policy: found 'tests.envs.stock:np', a module, expected a callable"),
    ],
)
def test_mistakes_are_named(policy, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        collect(STOCK, policy=policy, transitions=20, output=tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_the_command_records_a_policy_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine_to_record.py").write_text("def policy(observations):\n    return {'buyer': 1, 'seller': 0}\n")
    arguments = ("collect", STOCK, "--policy", "mine_to_record:policy", "--transitions", "50")
    assert main([*arguments, "--output", "data"]) == 0
    assert (read_dataset(tmp_path / "data", may_import=True).trajectories.action[:, 0, 1] == 1).all()
    assert main([*arguments]) == 0  # to its place under MOMALIT_HOME


@pytest.mark.parametrize("start", [0, 1])
def test_a_policy_returns_choices_as_the_environment_takes_them(start: int) -> None:
    spec = TeamSpec("one", (AgentSpec("a", (0,), 3),), 1, True, 1, (("a", 0),))
    choices = {"a": Choices((3,), (start,), True)}
    chosen = RecordedPolicy(spec, lambda _: {"a": start + 2}, "mine", choices)
    assert chosen.act(np.zeros(1, int), np.zeros((1, 1)), np.random.default_rng(0)).tolist() == [[[0, 0, 1]]]
    wrong = RecordedPolicy(spec, lambda _: {"a": start + 3}, "mine", choices)
    with pytest.raises(UserError, match=rf"expected {start}\.\.{start + 2}"):
        wrong.act(np.zeros(1, int), np.zeros((1, 1)), np.random.default_rng(0))
