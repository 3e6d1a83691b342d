"""Generalised advantage estimation against hand-computed numbers and a simple recursion."""

import pytest
import torch

from momalit.functional.gae import generalized_advantage


def column(*values):
    return torch.tensor(values, dtype=torch.float32).unsqueeze(1)


def flags(*values):
    return torch.tensor(values, dtype=torch.bool).unsqueeze(1)


NONE = flags(0, 0, 0)
ALL = flags(1, 1, 1)


def advantages(reward, value, terminated=NONE, truncated=NONE, stopped=NONE, valid=ALL, **options):
    advantage, target = generalized_advantage(
        reward, value, terminated, truncated, stopped, valid, discount=0.5, gae_lambda=0.5, **options
    )
    return advantage.squeeze(1).tolist(), target.squeeze(1).tolist()


REWARD = column(1.0, 2.0, 3.0)
VALUE = column(10.0, 20.0, 30.0, 40.0)


def test_an_unfinished_rollout_bootstraps_at_its_end():
    # δ_t = r_t + 0.5 V_{t+1} - V_t: 1 + 10 - 10 = 1; 2 + 15 - 20 = -3; 3 + 20 - 30 = -7.
    # A_2 = -7; A_1 = -3 + 0.25 * -7 = -4.75; A_0 = 1 + 0.25 * -4.75 = -0.1875.
    advantage, target = advantages(REWARD, VALUE)
    assert advantage == [-0.1875, -4.75, -7.0]
    assert target == [9.8125, 15.25, 23.0]


def test_a_termination_does_not_bootstrap():
    # δ_1 = 2 - 20 = -18 without bootstrapping; A_1 = -18, because the trace does not cross the end.
    # A_0 = 1 + 0.25 * -18 = -3.5; A_2 = -7 as before.
    advantage, _ = advantages(REWARD, VALUE, terminated=flags(0, 1, 0))
    assert advantage == [-3.5, -18.0, -7.0]


def test_a_truncation_bootstraps_but_ends_the_trace():
    # δ_1 = 2 + 15 - 20 = -3 = A_1; A_0 = 1 + 0.25 * -3 = 0.25.
    advantage, _ = advantages(REWARD, VALUE, truncated=flags(0, 1, 0))
    assert advantage == [0.25, -3.0, -7.0]


def test_a_stop_bootstraps_from_the_given_value():
    # δ_1 = 2 + 0.5 * -100 - 20 = -68 = A_1; A_0 = 1 + 0.25 * -68 = -16.
    advantage, target = advantages(REWARD, VALUE, stopped=flags(0, 1, 0), stop_value=-100.0)
    assert advantage == [-16.0, -68.0, -7.0]
    assert target[1] == -48.0  # r + γ * stop value = 2 - 50


def test_a_stop_is_never_worth_more_than_the_critic_says():
    """A critic that has learnt little values everything near 0, so that a higher value would make every stop pay."""
    stopped = advantages(REWARD, VALUE, stopped=flags(0, 1, 0), stop_value=1e6)
    assert stopped == advantages(REWARD, VALUE, truncated=flags(0, 1, 0))


def test_a_stop_value_may_be_a_tensor():
    given = advantages(REWARD, VALUE, stopped=flags(0, 1, 0), stop_value=torch.tensor(-100.0, dtype=torch.float64))
    assert given == advantages(REWARD, VALUE, stopped=flags(0, 1, 0), stop_value=-100.0)


def test_a_stop_without_a_value_is_treated_as_a_truncation():
    stopped = advantages(REWARD, VALUE, stopped=flags(0, 1, 0), stop_value=None)
    assert stopped == advantages(REWARD, VALUE, truncated=flags(0, 1, 0))


def test_the_stop_value_is_ignored_without_a_stop():
    assert advantages(REWARD, VALUE, stop_value=-1e6) == advantages(REWARD, VALUE)


def test_termination_takes_precedence_over_a_stop():
    both = advantages(REWARD, VALUE, terminated=flags(0, 1, 0), stopped=flags(0, 1, 0), stop_value=-100.0)
    assert both == advantages(REWARD, VALUE, terminated=flags(0, 1, 0))


def test_invalid_steps_get_zeros_and_do_not_affect_others():
    # The episode ends at t = 0. Later rewards and values must not matter.
    first = advantages(REWARD, VALUE, terminated=flags(1, 0, 0), valid=flags(1, 0, 0))[0]
    other = advantages(column(1.0, 7.0, -9.0), column(10.0, 20.0, 99.0, -5.0), flags(1, 0, 0), valid=flags(1, 0, 0))[0]
    assert first == [-9.0, 0.0, 0.0]  # 1 - 10
    assert other == first


def test_an_episode_after_an_invalid_reset_step_is_independent():
    # t = 0 ends an episode, t = 1 is the reset, t = 2 the first step of the next: A_2 = -7 as in the first test.
    advantage, _ = advantages(REWARD, VALUE, truncated=flags(1, 0, 0), valid=flags(1, 0, 1))
    assert advantage == [1.0, 0.0, -7.0]


@pytest.mark.parametrize("stop_value", [None, -3.0])
def test_equals_a_simple_recursion(stop_value):
    torch.manual_seed(0)
    steps, rows, discount, gae_lambda = 12, 50, 0.97, 0.9
    reward, value = torch.randn(steps, rows), torch.randn(steps + 1, rows)
    kind = torch.randint(10, (steps, rows))
    terminated, truncated, stopped, valid = kind == 0, kind == 1, kind == 2, kind != 3
    advantage, target = generalized_advantage(
        reward, value, terminated, truncated, stopped, valid, discount, gae_lambda, stop_value
    )
    for b in range(rows):
        following = 0.0
        for t in reversed(range(steps)):
            if not valid[t, b]:
                following = 0.0
                assert advantage[t, b] == 0
                continue
            after = float(value[t + 1, b])
            if terminated[t, b]:
                after = 0.0
            elif stopped[t, b] and stop_value is not None:
                after = min(stop_value, value[t + 1, b])
            if kind[t, b] <= 2:
                following = 0.0
            following = float(reward[t, b]) + discount * after - float(value[t, b]) + discount * gae_lambda * following
            assert float(advantage[t, b]) == pytest.approx(following, abs=1e-4)
            assert float(target[t, b]) == pytest.approx(following + float(value[t, b]), abs=1e-4)


def test_lambda_one_gives_discounted_returns():
    reward, value = torch.ones(4, 1), torch.randn(5, 1)
    no = torch.zeros(4, 1, dtype=torch.bool)
    end = no.clone()
    end[-1] = True
    _, target = generalized_advantage(reward, value, end, no, no, ~no, discount=0.9, gae_lambda=1.0)
    # 1, 1 + 0.9, 1 + 0.9 * 1.9, ... from the end.
    torch.testing.assert_close(target.squeeze(1), torch.tensor([3.439, 2.71, 1.9, 1.0]))
