"""What an inspection finds in small datasets whose properties are known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from datamodules.inspection import inspect
from momalit.cli import main


def with_joint_actions(data, joint: list[tuple[int, int]], reward: list[float]):
    """The dataset with other joint actions and rewards, repeated in this order."""
    n = len(data.trajectories)
    choice = torch.tensor(joint).repeat(-(-n // len(joint)), 1)[:n]
    action = torch.nn.functional.one_hot(choice, 2).float()
    rewards = torch.tensor(reward).repeat(-(-n // len(joint)))[:n]
    return dataclasses.replace(data, trajectories=dataclasses.replace(data.trajectories, action=action, reward=rewards))


def verdict(data) -> str:
    return " ".join(inspect(data).verdict)


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


def test_the_command_prints_tables_and_writes_a_page(icg, tmp_path: Path, capsys):
    page = tmp_path / "page.html"
    assert main(["inspect", str(icg.path), "--output", str(page)]) == 0
    printed = capsys.readouterr().err
    assert "Joint actions" in printed
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert "No episode terminates" in text
    assert "<svg" in text
