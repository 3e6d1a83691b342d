"""Levels of uncertainty on held-out data, and what a stop is worth: nothing makes uncertainty attractive."""

import pytest
import torch

from momalit.core.team import AgentSpec, TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.functional.uncertainty import measures
from momalit.nn.ensemble import Prediction
from momalit.world_model.calibration import MIN_LIMIT, UncertaintyLevels
from momalit.world_model.dynamics import WorldModel
from momalit.world_model.imagination import ImaginedEnv, Pessimism

LENGTH, EDGE, DISCOUNT = 25, 4, 0.99
REWARDS = {
    "negative": lambda x: -1 - x.abs() / 4,
    "positive": lambda x: 1 + x.abs() / 4,
    "mixed": lambda x: x / 4,
}


@pytest.fixture
def spec():
    agents = (AgentSpec("a", (0,), 1, (-1.0,), (1.0,)), AgentSpec("b", (0,), 1, (-1.0,), (1.0,)))
    return TeamSpec("line", agents, 1, False, LENGTH, (("state", 0),))


def random_walks(reward, episodes=40, seed=0):
    """Walks on the integers from -EDGE to EDGE, ended by a time limit."""
    random = torch.Generator().manual_seed(seed)
    move = torch.randint(-1, 2, (episodes, LENGTH), generator=random).float()
    position = torch.zeros(episodes, LENGTH + 1)
    for t in range(LENGTH):
        position[:, t + 1] = (position[:, t] + move[:, t]).clamp(-EDGE, EDGE)
    action = torch.stack([move, torch.zeros_like(move)], -1).reshape(-1, 2, 1)
    never = torch.zeros(episodes * LENGTH, dtype=torch.bool)
    truncated = torch.zeros(episodes, LENGTH, dtype=torch.bool)
    truncated[:, -1] = True
    return Trajectories.from_lengths(
        position.reshape(-1, 1), action, reward(position[:, 1:]).flatten(), never, truncated.flatten(),
        torch.full((episodes,), LENGTH),
    )  # fmt: skip


class Walk(WorldModel):
    """Three members that know the walk, but disagree by ``doubt`` where it leaves ``trusted``."""

    def __init__(self, spec, reward, data, trusted=EDGE - 1, doubt=3.0):
        super().__init__(spec, 3, 4, 1, "never")
        self.reward, self.trusted, self.doubt = reward, trusted, doubt
        self.space.fit(data, DISCOUNT)

    def forward(self, state, action):
        position = (state[:, 0] + action[:, 0, 0]).clamp(-EDGE, EDGE)
        target = self.space.target(torch.stack([position - state[:, 0], self.reward(position)], -1))
        spread = torch.where(position.abs() > self.trusted, self.doubt, 0.01)
        mean = target + torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1) * torch.stack([spread, 0 * spread], -1)
        return Prediction(mean, torch.full_like(mean, -20.0), torch.zeros(3, len(state)))


def outcomes(model, pessimism, levels=None):
    """Penalised rewards, next positions and stops of every trusted position and move, ``(n, 3)``."""
    positions = torch.arange(-model.trusted, model.trusted + 1.0)
    state = positions.repeat_interleave(3).unsqueeze(1)
    action = torch.zeros(len(state), 2, 1)
    action[:, 0, 0] = torch.tensor([-1.0, 0.0, 1.0]).repeat(len(positions))
    env = ImaginedEnv(model, pessimism, generator=torch.Generator().manual_seed(0), levels=levels)
    env.reset(state)
    step = env.step(action)
    target = (state[:, 0] + action[:, 0, 0]).long() + model.trusted
    return step.reward.view(-1, 3), target.view(-1, 3), step.stopped.view(-1, 3)


@pytest.mark.parametrize("kind", REWARDS)
@pytest.mark.parametrize("penalised", [False, True])
def test_the_optimal_team_never_prefers_a_stop(spec, kind, penalised):
    reward = REWARDS[kind]
    data = random_walks(reward)
    model = Walk(spec, reward, data)
    pessimism = Pessimism(lambda_all=5.0 * penalised, lambda_reward=0.0, threshold=0.5)
    levels = UncertaintyLevels()
    levels.fit(model, data, pessimism.threshold)
    rewards, target, stopped = outcomes(model, pessimism, levels)
    assert stopped.sum() == 2  # the steps out of the trusted part
    value = torch.zeros(len(rewards))
    for _ in range(3000):  # value iteration
        after = torch.where(stopped, model.space.worst_return, value[target.clamp(0, len(value) - 1)])
        action_value = rewards + DISCOUNT * after
        value = action_value.amax(1)
    best_stop = action_value.masked_fill(~stopped, -torch.inf).amax(1)
    assert (best_stop < value).all()


def test_the_worst_return_goes_on_after_a_time_limit(spec):
    """In a task with negative rewards, the last steps of an episode must not seem to be the best ones."""
    data = random_walks(REWARDS["negative"])
    worst = float(Walk(spec, REWARDS["negative"], data).space.worst_return)
    assert worst < -100  # staying at 0 for ever is worth -1 / (1 - 0.99)
    assert worst > float(data.reward.min()) / (1 - DISCOUNT)
    ended = data.discounted_returns(DISCOUNT).min()
    assert ended > -60


def test_terminated_episodes_do_not_go_on(spec):
    data = random_walks(REWARDS["negative"])
    data.terminated[data.last] = True
    assert float(Walk(spec, REWARDS["negative"], data).space.worst_return) == float(
        data.discounted_returns(DISCOUNT).min()
    )


def test_levels_are_the_mean_and_a_quantile_of_held_out_steps(spec):
    data = random_walks(REWARDS["mixed"], episodes=200)
    model = Walk(spec, REWARDS["mixed"], data, trusted=2, doubt=0.5)
    levels = UncertaintyLevels()
    assert float(levels.limit) == float("inf")
    levels.fit(model, data, chunk=999)
    batch = data.transitions(torch.arange(len(data)))
    u = measures(*model(batch.state, batch.action)[:2])
    assert float(levels.limit) == float(u[0].sort().values[round(0.99 * len(data)) - 1])
    torch.testing.assert_close(levels.typical, u.clamp(max=levels.limit).mean(1))
    levels.fit(model, data, 0.1)
    assert float(levels.limit) == pytest.approx(0.1)
    torch.testing.assert_close(levels.typical, u.clamp(max=0.1).mean(1))


def test_an_exact_model_does_not_stop_everywhere(spec):
    data = random_walks(REWARDS["mixed"])
    levels = UncertaintyLevels()
    model = Walk(spec, REWARDS["mixed"], data, doubt=0.01)
    levels.fit(model, data)
    assert float(levels.limit) == pytest.approx(MIN_LIMIT)
    # Penalties do not grow beyond what was measured, however far τ is above it.
    batch = data.transitions(torch.arange(len(data)))
    u = measures(*model(batch.state, batch.action)[:2])
    highest = float(u[0].sort().values[round(0.99 * len(data)) - 1])
    assert levels.cap.tolist() == pytest.approx([highest, MIN_LIMIT, MIN_LIMIT])
    assert highest < MIN_LIMIT / 10


def test_a_checkpoint_without_a_cap_has_the_threshold_as_its_cap():
    state = UncertaintyLevels(0.25).state_dict()
    del state["cap"]
    levels = UncertaintyLevels()
    levels.load_state_dict(state)
    assert levels.cap.tolist() == [0.25] * 3


def test_steps_up_to_the_typical_uncertainty_cost_nothing(spec):
    data = random_walks(REWARDS["mixed"])
    model = Walk(spec, REWARDS["mixed"], data)
    levels = UncertaintyLevels()
    levels.fit(model, data, 0.5)
    batch = data.transitions(torch.arange(len(data)))
    env = ImaginedEnv(model, Pessimism(lambda_all=7.0, threshold=0.5), levels=levels)
    env.reset(batch.state)
    env.step(batch.action)
    assert float(env.penalties().max()) > 1
    u_all, penalties = env.uncertainties()[0], env.penalties()[0]
    certain = u_all < levels.typical[0]
    assert 0 < certain.sum() < len(data)
    assert penalties[certain].abs().max() == 0
    assert (penalties[~certain] > 0).all()


def test_the_slope_is_how_errors_grow_with_disagreement():
    levels = UncertaintyLevels(0.5)
    assert float(levels.slope()) == 0
    random = torch.Generator().manual_seed(0)
    for _ in range(100):
        u = torch.rand(256, generator=random)
        error = 2 + 3 * u.clamp(max=0.5) + torch.randn(256, generator=random) / 10  # beyond τ it grows no more
        levels.update_slope(u, error)
    assert float(levels.slope()) == pytest.approx(3, rel=0.05)
    for _ in range(200):  # values change with the team
        u = torch.rand(256, generator=random)
        levels.update_slope(u, 7 * u.clamp(max=0.5))
    assert float(levels.slope()) == pytest.approx(7, rel=0.01)


def test_errors_that_shrink_with_disagreement_cost_nothing():
    levels = UncertaintyLevels(0.5)
    u = torch.linspace(0, 0.5, 9)
    levels.update_slope(u, 1 - u)
    assert float(levels.slope()) == 0
    constant = UncertaintyLevels(0.5)
    constant.update_slope(torch.full((9,), 0.1), u)
    assert float(constant.slope()) == 0
