"""Estimated returns, in a model whose errors are known, and fitted-Q evaluation where the value is known."""

from dataclasses import replace

import pytest
import torch

from momalit.nn.actors import TeamActor
from momalit.policies.coverage import DataSupport
from momalit.policies.estimate import ReturnEstimator
from momalit.policies.fitted_q import fitted_q, team_actions
from tests.world_model.known_model import STEPS, known_model, line_log, line_spec

HELD_OUT, TRAIN = line_log(30, seed=1), line_log(100, seed=2)


@pytest.fixture
def still():
    """A team whose actions are all 0: it stays where it is, so that its return is 20 times its initial state."""
    actor = TeamActor(line_spec(), width=8, gru_size=4)
    for parameter in actor.parameters():
        parameter.data.zero_()
    return actor.eval()


def true_return(estimator):
    return STEPS * float(estimator.initial_states.mean())


def test_an_exact_model_gives_the_exact_return(still):
    estimator = ReturnEstimator(known_model([[0.0, 0.0]] * 3), HELD_OUT, TRAIN, STEPS, 90)
    found = estimator.estimate(still)
    assert len(estimator.initial_states) == 30
    assert found.mean == pytest.approx(true_return(estimator), abs=1e-4)
    assert found.low < found.mean < found.high  # there are only 30 initial states
    assert found.outside <= 0.05
    assert found.rollout.reward.shape == (STEPS, 90)


def test_a_team_that_samples_its_actions_is_judged_as_it_plays(still):
    data = known_model([[0.0, 0.0]] * 3), HELD_OUT, TRAIN, STEPS, 90
    sampled = ReturnEstimator(*data, deterministic=False)
    found = sampled.estimate(still)
    assert float(found.rollout.action.std()) > 0.1
    assert sampled.estimate(still).mean == found.mean != ReturnEstimator(*data).estimate(still).mean


def test_held_out_data_correct_a_model_that_is_wrong_everywhere(still):
    model = known_model([[0.05, 0.4], [0.05, 0.5], [0.05, 0.6]])
    estimator = ReturnEstimator(model, HELD_OUT, TRAIN, STEPS, 90)
    assert estimator.estimate(still).mean == pytest.approx(true_return(estimator), abs=0.3)
    estimator.correction = None
    assert estimator.estimate(still).mean > true_return(estimator) + 15


def test_the_interval_grows_with_the_disagreement_and_with_the_error(still):
    def half_width(bias):
        estimator = ReturnEstimator(known_model(bias), HELD_OUT, TRAIN, STEPS, 90)
        measured = estimator.correction
        estimator.correction = replace(measured, weights=torch.zeros_like(measured.weights))
        found = estimator.estimate(still)
        return (found.high - found.low) / 2

    agreed = half_width([[0.0, 0.0]] * 3)
    spread = half_width([[0.0, -0.1], [0.0, 0.0], [0.0, 0.1]])
    wrong = half_width([[0.0, 0.4], [0.0, 0.5], [0.0, 0.6]])
    assert spread == pytest.approx((agreed**2 + (4.17 * 2) ** 2) ** 0.5, rel=0.05)  # members' returns differ by 2
    assert wrong > 3 * spread


def test_steps_that_the_data_do_not_cover_are_counted(still):
    estimator = ReturnEstimator(known_model([[3.0, 0.0]] * 2), line_log(30, seed=1), TRAIN, STEPS, 20)
    estimator.correction = None
    assert estimator.estimate(still).outside is None
    moving = ReturnEstimator(known_model([[3.0, 0.0]] * 2), line_log(1, seed=1), TRAIN, STEPS, 20)
    assert moving.estimate(still).outside > 0.7  # one episode corrects nothing, and the data end at about 12


def test_training_episodes_fill_up_too_few_initial_states():
    few = line_log(3, seed=1)
    states = ReturnEstimator(known_model([[0.0, 0.0]] * 2), few, TRAIN, STEPS, 20).initial_states
    assert torch.equal(states, torch.cat([few.state[few.row[few.first]], TRAIN.state[TRAIN.row[TRAIN.first[:7]]]]))


def test_far_steps_are_those_beyond_nearly_all_held_out_ones():
    support = DataSupport(TRAIN, HELD_OUT)
    held_out = torch.cat([HELD_OUT.state[HELD_OUT.row], HELD_OUT.action.flatten(1)], 1)
    assert float(support.far(held_out).float().mean()) == pytest.approx(0.01, abs=0.01)
    assert support.far(torch.tensor([[100.0, 0.0, 0.0]])).all()


def test_actions_follow_the_recorded_history():
    actor = TeamActor(line_spec(), width=8, gru_size=4).eval()
    action = team_actions(actor, HELD_OUT)
    assert action.shape == (len(HELD_OUT) + len(HELD_OUT.lengths), 2, 1)
    sequence = HELD_OUT.sequence(HELD_OUT.first[3:4], 0, STEPS)
    expected = actor.clip(actor(sequence)[0].mode)[:, 0]
    begin = 3 * (STEPS + 1)
    torch.testing.assert_close(action[begin : begin + STEPS + 1], expected)


def test_fitted_q_evaluation_finds_the_value(still):
    # The team stays, so that its discounted return is s / (1 - 0.5).
    states = torch.tensor([[1.0], [2.0]])
    found = fitted_q(still, TRAIN, states, discount=0.5, steps=600)
    assert found == pytest.approx(3.0, abs=0.3)
    assert found == fitted_q(still, TRAIN, states, discount=0.5, steps=600)
