"""The correction by held-out data and the elites' own rollouts, with a model whose errors are known."""

import pytest
import torch

from momalit.world_model.correction import Correction
from momalit.world_model.elite_rollouts import EliteRollouts
from tests.world_model.known_model import STEPS, known_model, line_log


def corrected(model, correction, state, action):
    x = model.space.input(model.space.raw_input(state, action)).expand(model.n_elites, -1, -1)
    return model.network(x).mean + correction.change(x)


def test_what_is_wrong_on_average_is_corrected_in_every_member():
    model, log = known_model([[0.1, -0.3], [-0.2, 0.5]], slope=[0.03, 0.0]), line_log(40)
    correction = Correction.fit(model, log)
    batch = log.transitions(torch.arange(100))
    after = corrected(model, correction, batch.state, batch.action)
    truth = model.space.raw_target(batch)
    assert (model(batch.state, batch.action).mean - truth).abs().amax() > 0.4
    torch.testing.assert_close(after, truth.expand_as(after), atol=2e-3, rtol=0)


def test_chance_is_not_corrected():
    model, log = known_model([[0.0, 0.0], [0.0, 0.0]]), line_log(40, noise=1.0)
    correction = Correction.fit(model, log)
    assert not correction.weights.any()
    assert not correction.termination.any()
    biased = Correction.fit(known_model([[0.0, 0.3], [0.0, 0.3]]), log)
    assert biased.weights[:, 0, 1] == pytest.approx([-0.3, -0.3], abs=0.1)
    assert not biased.weights[:, :, 0].any()  # only the reward was wrong


def test_one_episode_is_not_enough_for_a_correction():
    assert not Correction.fit(known_model([[0.1, -0.3]]), line_log(1)).weights.any()


def test_terminations_become_as_frequent_as_they_are():
    log = line_log(100, terminated=0.8)  # 80 of 2,000 steps
    rare = Correction.fit(known_model([[0.0, 0.0]], logit=-6.0, termination="learned"), log)
    assert float((rare.termination - 6.0).sigmoid()) == pytest.approx(0.04, rel=0.01)
    assert not Correction.fit(known_model([[0.0, 0.0]], logit=-3.2, termination="learned"), log).termination.any()
    assert not Correction.fit(known_model([[0.0, 0.0]], logit=-6.0), log).termination.any()


def test_a_split_without_terminations_does_not_abolish_rare_ones():
    log = line_log(10)  # 200 steps, none terminates
    assert not Correction.fit(known_model([[0.0, 0.0]], logit=-5.0, termination="learned"), log).termination.any()
    frequent = Correction.fit(known_model([[0.0, 0.0]], logit=-1.0, termination="learned"), log)
    assert float((frequent.termination - 1.0).sigmoid()) == pytest.approx(0.5 / 200, rel=0.01)


def test_errors_are_compared_with_the_disagreement():
    # Mean errors (0.2, 0), standard deviations (0.1 sqrt 2, 0): twice as wrong as they disagree, over both targets.
    found = Correction.fit(known_model([[0.1, 0.0], [0.3, 0.0]]), line_log(10))
    assert found.error_ratio == pytest.approx(0.2 / (0.1 * 2**0.5), rel=1e-3)
    assert Correction.fit(known_model([[0.1, 0.0], [-0.1, 0.0]]), line_log(10)).error_ratio == 1.0
    assert Correction.fit(known_model([[0.1, 0.0], [0.1, 0.0]]), line_log(10)).error_ratio == 1.0  # no disagreement
    assert found.largest_uncertainty == pytest.approx(0.02, rel=1e-3)


@pytest.mark.parametrize("sample", [False, True])
def test_every_elite_runs_its_own_episodes(sample):
    model = known_model([[0.1, 0.0], [-0.2, 1.0]])
    env = EliteRollouts(model, None, sample, torch.Generator().manual_seed(0))
    states = env.reset(torch.tensor([[0.0], [5.0], [7.0]]))
    assert states.shape == (6, 1)
    action = torch.zeros(6, 2, 1)
    action[:, 0] = 0.5
    step = env.step(action)
    expected = torch.tensor([0.6, 5.6, 7.6, 0.3, 5.3, 7.3])
    torch.testing.assert_close(step.state[:, 0], expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(step.reward, torch.tensor([0.0, 5.0, 7.0, 1.0, 6.0, 8.0]), atol=1e-3, rtol=0)
    assert step.valid.all()
    assert not step.terminated.any()


def test_an_ended_episode_keeps_its_state_and_earns_nothing():
    model = known_model([[0.0, 1.0], [0.0, 1.0]], logit=20.0, termination="learned")
    env = EliteRollouts(model, None, False, torch.Generator().manual_seed(0))
    env.reset(torch.zeros(2, 1))
    first, second = (env.step(torch.ones(4, 2, 1)) for _ in range(2))
    assert first.terminated.all()
    assert (first.reward == 1).all()
    assert not second.valid.any()
    assert not second.reward.any()
    assert torch.equal(second.state, first.state)


def test_the_same_seed_gives_the_same_correction():
    model, log = known_model([[0.1, -0.3], [-0.2, 0.5]]), line_log(12, noise=0.1)
    first, again = (Correction.fit(model, log, seed=3) for _ in range(2))
    assert torch.equal(first.weights, again.weights)
    assert first.weights.shape == (2, 1 + 3, 2)
    assert len(log) == 12 * STEPS
