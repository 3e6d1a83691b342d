"""What an inspection finds in small datasets whose properties are known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from datamodules import inspection
from datamodules.inspection import inspect
from datamodules.readers.team_dataset import Dataset
from momalit.cli import main
from momalit.core.team import AgentSpec, TeamSpec
from momalit.core.trajectories import Trajectories


def with_joint_actions(data, joint: list[tuple[int, int]], reward: list[float]):
    """The dataset with other joint actions and rewards, repeated in this order."""
    n = len(data.trajectories)
    choice = torch.tensor(joint).repeat(-(-n // len(joint)), 1)[:n]
    action = torch.nn.functional.one_hot(choice, 2).float()
    rewards = torch.tensor(reward).repeat(-(-n // len(joint)))[:n]
    return dataclasses.replace(data, trajectories=dataclasses.replace(data.trajectories, action=action, reward=rewards))


def verdict(data) -> str:
    return " ".join(inspect(data).verdict)


def dataset(agents: list[AgentSpec], state: torch.Tensor, action: torch.Tensor) -> Dataset:
    """One truncated episode of all steps, with states ``(N + 1, S)``, actions ``(N, A, U)`` and random rewards."""
    n, never = len(action), torch.zeros(len(action), dtype=torch.bool)
    discrete = all(agent.discrete for agent in agents)
    sources = tuple(("state", i) for i in range(state.shape[1]))
    spec = TeamSpec("task", tuple(agents), state.shape[1], discrete, horizon=n, sources=sources)
    ends = torch.arange(n) == n - 1
    steps = Trajectories.from_lengths(state, action, torch.rand(n), never, ends, torch.tensor([n]))
    return Dataset(Path("data.hdf5"), spec, steps, [0], {}, "")


def section(data: Dataset, title: str) -> tuple[tuple[str, ...], ...]:
    return next(section.rows for section in inspect(data).sections if section.title == title)


def test_the_overview_by_hand(icg):
    found = inspect(icg.contents)
    overview = dict(found.sections[0].rows)
    assert overview["episodes, transitions"] == "100, 1,000"
    assert overview["steps of an episode"] == "10 to 10, median 10"
    assert overview["episodes terminated, truncated"] == "0, 100"
    assert overview["agents"] == "agent_0, agent_1"
    assert sorted(found.returns) == sorted(icg.returns.tolist())
    assert "No episode terminates" in " ".join(found.verdict)


def test_a_log_that_misleads_independent_learners_is_named(icg):
    # Agent 0 scores whenever it plays 1, agent 1 whenever it plays 0; (1, 0) never occurs.
    joint = [(0, 1)] * 6 + [(0, 0)] * 2 + [(1, 1)] * 2
    data = with_joint_actions(icg.contents, joint, [0.0] * 6 + [1.0] * 4)
    assert "would choose (1, 0), which never occurs; (0, 0) has 1" in verdict(data)


def test_conventions_that_exclude_each_other_are_named(icg):
    data = with_joint_actions(icg.contents, [(0, 0), (1, 1), (0, 1), (1, 0)], [1.0, 1.0, 0.0, 0.0])
    assert "Several conventions are equally good ((0, 0), (1, 1)) and exclude each other" in verdict(data)
    assert "see no difference between them" in verdict(data)


def test_one_good_convention_gives_no_warning(icg):
    data = with_joint_actions(icg.contents, [(0, 0), (0, 0), (0, 1), (1, 0), (1, 1)], [1.0, 1.0, 0.0, 0.0, 0.0])
    assert "misled" not in verdict(data)
    assert "conventions" not in verdict(data)


def test_a_few_lucky_steps_mislead_nobody(icg):
    # 4 of 1,000 steps score. Alone, agents prefer (0, 1), whose sum is 15, to (0, 0), whose sum is 20.
    joint = [(0, 0), (0, 1), (1, 0), (1, 1)]
    rewards = torch.zeros(1000)
    rewards[[0, 4, 1, 3]] = torch.tensor([10.0, 10.0, 15.0, 10.0])
    data = with_joint_actions(icg.contents, joint, [0.0] * 4)
    data = dataclasses.replace(data, trajectories=dataclasses.replace(data.trajectories, reward=rewards))
    assert "misled" not in verdict(data)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: dataclasses.replace(t, reward=torch.zeros_like(t.reward)), "All rewards are equal"),
        (lambda t: dataclasses.replace(t, reward=(torch.arange(len(t)) % 100 == 0) * 1.0), "Rewards are sparse: 1.0%"),
        (lambda t: dataclasses.replace(t, action=t.state[t.row][:, :2, None].clone()), "follow from the observation"),
        (lambda t: dataclasses.replace(t, state=torch.cat([t.state[:, :-1], torch.ones(len(t.state), 1)], 1)),
         "1 of 10 state columns are constant"),
    ],
)  # fmt: skip
def test_what_hampers_learning_is_named(change, sentence, reacher):
    data = dataclasses.replace(reacher.contents, trajectories=change(reacher.contents.trajectories))
    assert sentence in verdict(data)


def test_never_chosen_actions_are_named(icg):
    data = with_joint_actions(icg.contents, [(0, 0), (0, 1)], [1.0, 0.0])
    assert "agent_0 never chooses 1" in verdict(data)


def test_all_steps_of_a_long_log_count(icg, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inspection, "MOST_ROWS", 500)
    data = with_joint_actions(icg.contents, [(0, 0), (1, 1)], [1.0, 0.0])
    assert "never chooses" not in verdict(data)
    assert section(data, "Actions")[0][3] == "50%, 50%"


def test_actions_of_a_long_periodic_log_are_judged_by_random_steps(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inspection, "MOST_ROWS", 500)
    state = torch.rand(1001, 1, generator=torch.Generator().manual_seed(0))
    action = state[:-1, :, None] / 2
    action[1::2] = torch.rand(500, 1, 1, generator=torch.Generator().manual_seed(1))
    action[1], action[3] = 0.0, 1.0
    data = dataset([AgentSpec("a", (0,), 1, (0.0,), (1.0,))], state, action)
    assert "follow from the observation" not in verdict(data)
    assert section(data, "Actions")[0][3].startswith("100% of the range")


@pytest.mark.parametrize(("low", "high"), [(0.0, 5e-7), (1000.0, 1000.5), (-1e6, 1e6)])
def test_actions_are_at_a_bound_relative_to_the_range(low: float, high: float):
    action = torch.linspace(low, high, 101).reshape(-1, 1, 1)
    data = dataset([AgentSpec("a", (0,), 1, (low,), (high,))], torch.rand(102, 1), action)
    assert section(data, "Actions")[0][2] == "2%"


@pytest.mark.parametrize(("steps", "says"), [(72, "100% of the range"), (2000, "100% of the range, 0% linear")])
def test_random_actions_do_not_follow_from_many_columns(steps: int, says: str):
    random = torch.Generator().manual_seed(0)
    action = torch.rand(steps, 1, 1, generator=random)
    bounds = (float(action.min()),), (float(action.max()),)
    state = torch.rand(steps + 1, 80, generator=random)
    data = dataset([AgentSpec("a", tuple(range(80)), 1, *bounds)], state, action)
    assert "follow from the observation" not in verdict(data)
    found = section(data, "Actions")[0][3]
    assert found.startswith(says)
    assert ("linear" in found) == ("linear" in says)


def leaving(n: int) -> torch.Tensor:
    """States of n steps ``(n + 1, 2)``: a random column, and whether the second agent is there: in the first half."""
    return torch.stack([torch.rand(n + 1), (torch.arange(n + 1) < n // 2).float()], 1)


def test_choices_count_only_while_the_agent_is_there():
    choice = torch.tensor([[0, 1], [1, 2], [0, 2], [1, 1], [0, 0], [0, 0], [0, 0], [0, 0]]).repeat_interleave(50, 0)
    action = torch.nn.functional.one_hot(choice, 3).float()
    action[200:, 1] = 0.0
    data = dataset([AgentSpec("a", (0,), 3), AgentSpec("b", (0,), 3, present=1)], leaving(400), action)
    assert [row[3] for row in section(data, "Actions")] == ["75%, 25%, 0%", "0%, 50%, 50%"]
    assert "b never chooses 0:" in verdict(data)
    shares = [row[:2] for row in section(data, "Joint actions while all agents are there")]
    assert shares == [("(0, 1)", "25.0%"), ("(0, 2)", "25.0%"), ("(1, 1)", "25.0%"), ("(1, 2)", "25.0%")]


def test_continuous_actions_count_only_while_the_agent_is_there():
    action = 0.5 + torch.rand(400, 2, 1) / 4
    action[:2], action[200:, 1] = torch.tensor([0.5, 0.75]).reshape(2, 1, 1), 0.0
    agents = [AgentSpec("a", (0,), 1, (0.0,), (1.0,)), AgentSpec("b", (0,), 1, (0.0,), (1.0,), present=1)]
    _, at_bound, used = section(dataset(agents, leaving(400), action), "Actions")[1][1:]
    assert at_bound == "0%"
    assert used.startswith("25% of the range")


def test_the_command_prints_tables_and_writes_a_page(icg, tmp_path: Path, capsys):
    page = tmp_path / "page.html"
    assert main(["inspect", str(icg.path), "--output", str(page)]) == 0
    printed = capsys.readouterr().err
    assert "Joint actions" in printed
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert "No episode terminates" in text
    assert "<svg" in text
