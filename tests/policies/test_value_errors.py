"""Errors of reward and next value on a log, by hand, and who takes the λ_all that comes from them."""

import pytest
import torch

from momalit.core.records import Sequence, Transitions
from momalit.core.team import AgentSpec, TeamSpec
from momalit.nn.critics import TeamCritic
from momalit.nn.ensemble import Prediction
from momalit.policies.value_errors import value_errors
from momalit.world_model.dynamics import WorldModel
from momalit.world_model.imagination import Pessimism

DISCOUNT, ROWS = 0.9, 6


@pytest.fixture
def spec():
    agents = tuple(AgentSpec(name, (0,), 1, (-1.0,), (1.0,)) for name in "ab")
    return TeamSpec("line", agents, 1, False, 5, (("state", 0),))


class Biased(WorldModel):
    """Two elites: the state moves by the first action, and by 0.5 and 1.5 more; both rewards are 2 too small."""

    def __init__(self, spec):
        super().__init__(spec, 2, 4, 1)
        self.space.target.std.copy_(torch.tensor([1.0, 4.0]))
        self.space.state_low.fill_(-100.0)
        self.space.state_high.fill_(100.0)

    def forward(self, state, action):
        change = action[:, 0, 0] + torch.tensor([[0.5], [1.5]])
        mean = torch.stack([change, torch.full_like(change, -0.5)], -1)
        return Prediction(mean, torch.zeros_like(mean), torch.zeros_like(change))


class Tripled(TeamCritic):
    """``V = 3 s`` in units of reward, whatever happened before."""

    def value(self, state, hidden_state):
        return 3 * state[..., 0]


@pytest.mark.parametrize("gru", [True, False])
def test_an_error_is_that_of_the_reward_and_of_the_next_value(spec, gru):
    state, action = torch.arange(float(ROWS)).unsqueeze(1), torch.zeros(ROWS, 2, 1)
    terminated = torch.arange(ROWS) == 0
    happened = Transitions(state, action, torch.zeros(ROWS), state, terminated)
    now = Sequence(state[None], action[None], torch.ones(1, ROWS, dtype=torch.bool))
    critic = Tripled(spec, 8, 4, "qmix" if gru else "none")
    error, mean = value_errors(Biased(spec), critic, now, happened, DISCOUNT)
    # -2 + 0.9 * 3 * 0.5 = -0.65 and -2 + 0.9 * 3 * 1.5 = 2.05, in units of 4; a terminal state has no value.
    expected = torch.tensor([2.0] + [(0.65 + 2.05) / 2] * (ROWS - 1)) / 4
    torch.testing.assert_close(error, expected)
    assert mean.shape == (2, ROWS, 2)


def test_auto_is_the_default_and_takes_the_slope():
    slope = torch.tensor(7.0)
    assert Pessimism().coefficients(slope)[0] is slope
    assert Pessimism(lambda_all=2.0).coefficients(slope)[0] == 2.0
    assert Pessimism.none().coefficients(slope) == (0.0, 0.0, 0.0)
