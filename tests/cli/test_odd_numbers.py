"""Datasets with odd numbers: a run trains on them, or says in one line what is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from datamodules.writer import write_dataset
from momalit.core.trajectories import Trajectories

FIT = ("fit", "--config", "tiny.yaml", "--data.dataset", "odd", "--run_dir", "run")


def scaled_rewards(factor: float) -> Callable[[Trajectories], Trajectories]:
    return lambda data: dataclasses.replace(data, reward=data.reward * factor)


def with_state(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Trajectories], Trajectories]:
    return lambda data: dataclasses.replace(data, state=change(data.state.clone()))


def constant_column(state: torch.Tensor) -> torch.Tensor:
    state[:, 0] = 3.0
    return state


def steps(data: Trajectories, lengths: list[int]) -> Trajectories:
    """The first steps of the data, cut into episodes of these lengths."""
    total = sum(lengths)
    ends = torch.zeros(total, dtype=torch.bool)
    ends[torch.tensor(lengths).cumsum(0) - 1] = True
    state = data.state[: total + len(lengths)]
    no = torch.zeros(total, dtype=torch.bool)
    return Trajectories.from_lengths(state, data.action[:total], data.reward[:total], no, ends, torch.tensor(lengths))


ODD: dict[str, Callable[[Trajectories], Trajectories]] = {
    "rewards of 1e12": scaled_rewards(1e12),
    "rewards of 1e-4": scaled_rewards(1e-4),
    "equal rewards": scaled_rewards(0.0),
    "negative rewards": scaled_rewards(-1.0),
    "a constant column": with_state(constant_column),
    "states of 1e6": with_state(lambda state: state * 1e6),
    "states of 1e-5": with_state(lambda state: state * 1e-5),
    "equal states": with_state(torch.zeros_like),
    "three episodes": lambda data: steps(data, [10, 10, 10]),
    "episodes of one step": lambda data: steps(data, [1] * 60),
    "episodes of all lengths": lambda data: steps(data, [1, 2, 3, 50, 4, 1, 7, 30, 2, 9]),
}


@pytest.mark.fault("odd numbers in a dataset", "scales, constants, few and short episodes", "trains, finite results")
@pytest.mark.parametrize("name", ODD)
def test_a_run_trains_on_odd_numbers(name: str, icg, momalit, tmp_path: Path) -> None:
    write_dataset(tmp_path / "odd", "icg/odd/x-v0", icg.spec, ODD[name](icg.trajectories), {})
    outcome = momalit(*FIT)
    assert outcome.code == 0, outcome.stderr
    assert "nan" not in (tmp_path / "run/metrics.csv").read_text()


TOO_ODD = {
    "rewards of 1e-9": (scaled_rewards(1e-9), "rewards"),
    "rewards of 1e30": (scaled_rewards(1e30), "rewards"),
    "one episode": (lambda data: steps(data, [10]), "trajectories"),
}


@pytest.mark.fault("numbers nobody can learn from", "rewards of 1e-9 and 1e30, one episode", "one line, exit code 2")
@pytest.mark.parametrize("name", TOO_ODD)
def test_numbers_that_nobody_can_learn_from_are_refused(name: str, icg, momalit, tmp_path: Path) -> None:
    change, word = TOO_ODD[name]
    write_dataset(tmp_path / "odd", "icg/odd/x-v0", icg.spec, change(icg.trajectories), {})
    outcome = momalit(*FIT)
    assert outcome.code == 2, outcome.stderr
    assert word in outcome.stderr.splitlines()[-1]
