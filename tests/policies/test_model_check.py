"""Where imagination and reality part, on a model with a known bias."""

import pytest
import torch

from momalit.core.records import Rollout, Transitions
from momalit.core.team import AgentSpec, TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.nn.ensemble import Prediction
from momalit.policies.model_check import errors_on_path, over_time
from momalit.world_model.dynamics import WorldModel


@pytest.fixture
def spec():
    agents = (AgentSpec("a", (0, 1), 1, (-1.0,), (1.0,)),)
    return TeamSpec("line", agents, 2, False, 4, (("state", 0), ("state", 1)))


class Biased(WorldModel):
    """Predicts no change; where the first column is positive, it errs by 0.5 there, and its two members disagree."""

    def __init__(self, spec):
        super().__init__(spec, 2, 4, 1)
        self.space.target.std.copy_(torch.tensor([2.0, 1.0, 1.0]))

    def forward(self, state, action):
        positive = (state[:, :1] > 0).float()
        change = torch.cat([0.25 * positive, torch.zeros(len(state), 2)], 1)
        spread = torch.tensor([-0.1, 0.1]).view(2, 1, 1) * positive
        mean = change + torch.cat([spread, torch.zeros(2, len(state), 2)], -1)
        return Prediction(mean, torch.zeros_like(mean), torch.zeros(2, len(state)))


def test_a_bias_on_the_path_stands_out(spec):
    path = torch.ones(6, 2)
    never = torch.zeros(6, dtype=torch.bool)
    visited = Transitions(path, torch.zeros(6, 1, 1), torch.zeros(6), path, never)
    held_out = Trajectories.from_lengths(
        -torch.ones(5, 2), torch.zeros(4, 1, 1), torch.zeros(4), never[:4], never[:4], torch.tensor([4])
    )
    errors = errors_on_path(Biased(spec), visited, held_out)
    assert errors["path"]["error"] == pytest.approx(0.25**2 / 3)
    assert errors["held_out"]["error"] == 0
    assert next(iter(errors["path"]["bias"].items())) == ("state_00", pytest.approx(0.25))
    assert errors["held_out"]["bias"]["state_00"] == 0
    assert errors["path"]["uncertainty"] == pytest.approx(0.02)
    assert list(errors["path"]["bias"]) == list(errors["held_out"]["bias"])


def test_rewards_and_running_episodes_over_time():
    # Two real episodes, of which one ends after the first step; three imagined ones, of which one ends after the third.
    real = [torch.tensor([1.0, 3.0]), torch.tensor([2.0]), torch.tensor([2.0]), torch.tensor([5.0])]
    shape, steps = (4, 3), torch.zeros(4, 3, dtype=torch.bool)
    valid = torch.ones(shape, dtype=torch.bool)
    valid[3, 0] = False
    imagined = Rollout(
        state=torch.zeros(5, 3, 2), previous_action=torch.zeros(5, 3, 1, 1), keep=torch.zeros(5, 3, dtype=torch.bool),
        action=torch.zeros(4, 3, 1, 1), log_prob=torch.zeros(4, 3, 1), reward=torch.full(shape, 2.0),
        terminated=steps, truncated=steps, stopped=steps, valid=valid,
    )  # fmt: skip
    first, second = over_time(real, imagined, episodes=2, parts=2)
    assert (first["from"], first["to"], second["from"], second["to"]) == (0, 2, 2, 4)
    assert first["real_reward"] == pytest.approx(2.0)
    assert first["real_running"] == pytest.approx(3 / 4)
    assert second["real_reward"] == pytest.approx(3.5)
    assert second["imagined_reward"] == pytest.approx(2.0)
    assert second["imagined_running"] == pytest.approx(5 / 6)
    assert len(over_time(real, imagined, episodes=2, parts=9)) == 4
