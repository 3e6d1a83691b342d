"""What the figures of a run's page show, in a model whose errors are known."""

import json

import pytest
import torch

from momalit.nn.actors import TeamActor
from momalit.policies.estimate import ReturnEstimator
from momalit.policies.figure_data import BINS, POINTS, figure_data
from momalit.studies.plots import run_figures
from tests.world_model.known_model import STEPS, known_model, line_log, line_spec


@pytest.fixture(scope="module")
def data():
    model, held_out, train = known_model([[0.1, 0.0], [0.3, 0.0]]), line_log(30, seed=1), line_log(60, seed=2)
    actor = TeamActor(line_spec(), width=8, gru_size=4).eval()
    for parameter in actor.parameters():
        parameter.data.zero_()
    estimator = ReturnEstimator(model, held_out, train, STEPS, 20)
    return figure_data(line_spec(), model, estimator.estimate(actor).rollout, train, held_out)


def test_calibration_and_open_loop_errors_are_those_of_the_model(data):
    assert len(data["calibration"]) == 10
    for group in data["calibration"]:
        assert group["error"] == pytest.approx((0.2**2 / 2) ** 0.5, rel=1e-3)  # two targets, one is right
        assert group["uncertainty"] == pytest.approx(0.02, rel=1e-3)
    assert data["open_loop"] == pytest.approx({"1": 0.2, "5": 1.0, "10": 2.0}, rel=1e-3)


def test_actions_and_states_are_those_of_data_and_team(data):
    for name in ("a", "b"):
        shares = data["actions"][name]
        assert sum(shares["data"]) == pytest.approx(1)
        assert max(shares["data"]) < 2 / BINS  # uniform
        assert shares["team"][BINS // 2] == pytest.approx(1)  # always 0
    assert len(data["states"]["data"]) == POINTS
    assert torch.tensor(data["states"]["team"]).isfinite().all()


def test_figures_are_drawn_from_the_file(data):
    drawn = {name: svg for name, _, svg in run_figures(json.loads(json.dumps(data)))}
    assert list(drawn) == ["world_model", "states", "actions"]
    assert all(svg.startswith("<?xml") for svg in drawn.values())
    discrete = {**data, "actions": {"a": {"data": [0.5, 0.5, 0.0], "team": [0.0, 1.0, 0.0]}}}
    assert len(list(run_figures(discrete))) == 3
