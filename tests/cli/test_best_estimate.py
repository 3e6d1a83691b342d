"""The best checkpoint is the latest one that the world model's elites do not agree to be worse than the highest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from callbacks import Evaluation
from momalit.cli.best_estimate import BestEstimate
from momalit.policies.estimate import EliteReturns


def elites(*returns: float, ratio: float = 1.0) -> EliteReturns:
    return EliteReturns(torch.tensor(returns, dtype=torch.float64), ratio)


def test_half_width_by_hand() -> None:
    # Standard deviation 1, Student's t with two degrees of freedom 4.3027, errors twice the disagreement.
    assert elites(1, 2, 3, ratio=2.0).half_width == pytest.approx(2 * 4.3027, abs=1e-3)
    assert elites(5).half_width == 0


@pytest.mark.parametrize(
    ("team", "below"),
    [
        ((8.9, 10.1, 11.0), True),  # all elites say 1.0 less, though their intervals overlap
        ((8.0, 11.4, 11.0), False),  # differences of -1.9, 0.3 and -1.0
        ((10.0, 11.2, 12.1), False),
    ],
)
def test_elites_compare_teams_in_pairs(team: tuple[float, ...], below: bool) -> None:
    assert elites(*team).is_below(elites(9.9, 11.1, 12.0)) is below


class Run:
    """Evaluations one after the other, as a trainer would do them."""

    def __init__(self) -> None:
        self.evaluation = Evaluation()
        self.trainer: Any = SimpleNamespace(callbacks=[self.evaluation])
        self.best = BestEstimate(monitor="eval/estimate", mode="max", save_top_k=1)

    def judge(self, *returns: float) -> bool:
        self.evaluation.elites = elites(*returns)
        return self.best.check_monitor_top_k(self.trainer, torch.tensor(sum(returns) / len(returns)))


def test_latest_team_that_is_not_clearly_worse() -> None:
    run = Run()
    assert run.judge(1, 2, 3)
    assert run.judge(3, 4, 5)
    assert run.judge(2, 5, 4)  # lower on average, but one elite prefers it
    assert not run.judge(1, 2, 3)
    assert not run.judge(1, 2, 3)  # compared with the highest one, not with the one before
    assert run.best.highest is not None
    assert run.best.highest.mean == 4


def test_between_evaluations_nothing_is_saved() -> None:
    run = Run()
    assert run.judge(1, 2, 3)
    assert not run.best.check_monitor_top_k(run.trainer, torch.tensor(2.0))


def test_a_resumed_run_remembers_the_highest() -> None:
    run, resumed = Run(), Run()
    run.judge(3, 4, 5)
    resumed.best.load_state_dict(run.best.state_dict())
    assert not resumed.judge(1, 2, 3)
    assert resumed.judge(3, 4, 5)
