"""The imagined environment, with a world model whose members are known functions."""

import math

import pytest
import torch

from momalit.core.errors import UserError
from momalit.core.team import AgentSpec, TeamSpec
from momalit.nn.ensemble import Prediction
from momalit.world_model.dynamics import WorldModel
from momalit.world_model.imagination import ImaginedEnv, Pessimism

MEMBERS, ROLLOUTS = 3, 4
NO_PESSIMISM = Pessimism.none()


@pytest.fixture
def spec():
    agents = (AgentSpec("a", (0,), 1, (-1.0,), (1.0,)), AgentSpec("b", (1,), 1, (-1.0,), (1.0,)))
    return TeamSpec("line", agents, 2, False, 5, (("state", 0), ("state", 1)))


class KnownModel(WorldModel):
    """Member e predicts the state change ``(a, b + spread * (e - 1))`` and the reward ``10 * a``.

    An episode terminates when the first column exceeds 2. The standard deviation of targets is 1 for states and 10 for
    the reward, whose mean is 5.
    """

    def __init__(self, spec, spread=0.0, log_variance=-20.0):
        super().__init__(spec, MEMBERS, 4, 1)
        self.spread, self.log_variance = spread, log_variance
        space = self.space
        space.target.mean.copy_(torch.tensor([0.0, 0.0, 5.0]))
        space.target.std.copy_(torch.tensor([1.0, 1.0, 10.0]))
        space.state_low.fill_(-3.0)
        space.state_high.fill_(3.0)
        space.reward_low.fill_(-8.0)
        space.reward_high.fill_(8.0)

    def forward(self, state, action):
        member = torch.arange(MEMBERS).view(-1, 1) - 1
        a, b = action[:, 0, 0].expand(MEMBERS, -1), action[:, 1, 0].expand(MEMBERS, -1)
        mean = torch.stack([a, b + self.spread * member, a - 0.5], -1)
        termination = 1e4 * (state[:, 0] + action[:, 0, 0] - 2).expand(MEMBERS, -1)
        return Prediction(mean, torch.zeros_like(mean) + self.log_variance, termination)


def make_env(model, pessimism=NO_PESSIMISM, start=0.0, seed=0, sample_predictions=False):
    env = ImaginedEnv(model, pessimism, sample_predictions, torch.Generator().manual_seed(seed))
    env.reset(torch.full((ROLLOUTS, 2), start))
    return env


def joint_action(a, b=0.0):
    action = torch.zeros(ROLLOUTS, 2, 1)
    action[:, 0, 0], action[:, 1, 0] = torch.as_tensor(a), torch.as_tensor(b)
    return action


def test_a_step_follows_the_prediction(spec):
    env = make_env(KnownModel(spec))
    step = env.step(joint_action(0.5, -0.25))
    torch.testing.assert_close(step.state, torch.tensor([0.5, -0.25]).expand(ROLLOUTS, 2))
    torch.testing.assert_close(step.reward, torch.full((ROLLOUTS,), 5.0))
    assert step.valid.all()
    for name in ("terminated", "truncated", "began", "stopped"):
        assert not getattr(step, name).any()
    torch.testing.assert_close(env.step(joint_action(0.5)).state[:, 0], torch.ones(ROLLOUTS))


def test_states_and_rewards_are_clipped_to_the_bounding_box(spec):
    def step_out_of_the_box(**options):
        return make_env(
            KnownModel(spec), Pessimism(lambda_all=0, lambda_reward=0, adaptive_horizon=False, **options), 2.75
        ).step(joint_action(-0.9, 0.75))

    torch.testing.assert_close(step_out_of_the_box(clip_to_data=True).state[0], torch.tensor([1.85, 3.0]))
    assert step_out_of_the_box(clip_to_data=True).reward.tolist() == [-8.0] * ROLLOUTS
    torch.testing.assert_close(step_out_of_the_box(clip_to_data=False).state[0], torch.tensor([1.85, 3.5]))
    torch.testing.assert_close(step_out_of_the_box(clip_to_data=False).reward, torch.full((ROLLOUTS,), -9.0))


def test_penalties_apply_after_clipping_and_are_capped(spec):
    # Members predict -s, 0, +s in one of three dimensions: covariance 2 s² / 2 = s². They agree on the reward.
    def reward(spread, **options):
        pessimism = Pessimism(
            **{
                "lambda_reward": 0.0,
                "adaptive_horizon": False,
                "threshold": 1.0,
                "unknown_reward": "imagined",
                **options,
            }
        )
        return make_env(KnownModel(spec, spread), pessimism).step(joint_action(0.9)).reward

    # Clipping reduces 9 to 8, then an uncertainty of 0.5 costs 0.5 * 10.
    torch.testing.assert_close(reward(0.5**0.5, lambda_all=1.0), torch.full((ROLLOUTS,), 8.0 - 5.0))
    torch.testing.assert_close(reward(0.5**0.5, lambda_all=0.2), torch.full((ROLLOUTS,), 8.0 - 1.0))
    # An uncertainty of 9 is capped at τ = 1. Penalised rewards may lie outside the bounding box.
    torch.testing.assert_close(reward(3.0, lambda_all=3.0), torch.full((ROLLOUTS,), 8.0 - 30.0))
    torch.testing.assert_close(reward(3.0, lambda_all=0.0, lambda_aleatoric=0.0), torch.full((ROLLOUTS,), 8.0))


def test_the_aleatoric_penalty_is_the_largest_predicted_noise(spec):
    # Variances of 0.2 in three dimensions: norm 0.2 * sqrt(3).
    model = KnownModel(spec, log_variance=math.log(0.2))
    pessimism = Pessimism(lambda_all=0.0, lambda_reward=0.0, lambda_aleatoric=2.0, threshold=10.0)
    torch.testing.assert_close(
        make_env(model, pessimism).step(joint_action(0.0)).reward, torch.full((ROLLOUTS,), -20 * 0.2 * 3**0.5)
    )


def test_constant_dimensions_have_no_noise(spec):
    model = WorldModel(spec, 2, 4, 1)
    model.space.target.varies.copy_(torch.tensor([True, False, True]))
    model.network.layers.last.weight.data.zero_()
    bias = model.network.layers.last.bias.data.zero_()
    bias[:, :, 3:6] = torch.tensor([-3.0, 0.4, -3.0])  # the second dimension is constant, so its output is untrained
    env = make_env(
        model, Pessimism(lambda_all=0.0, lambda_reward=0.0, lambda_aleatoric=1.0, threshold=10.0, clip_to_data=False)
    )
    variance = model.network(torch.zeros(2, 1, 4)).log_variance[0, 0].exp()
    expected = float((variance[0] ** 2 + variance[2] ** 2).sqrt())
    base = (
        make_env(model, Pessimism(lambda_all=0.0, lambda_reward=0.0, clip_to_data=False)).step(joint_action(0.0)).reward
    )
    torch.testing.assert_close(base - env.step(joint_action(0.0)).reward, torch.full((ROLLOUTS,), expected))


def test_a_rollout_stops_when_the_disagreement_exceeds_the_threshold(spec):
    class DisagreeingModel(KnownModel):
        """Members whose spread is b's action."""

        def forward(self, state, action):
            self.spread = action[:, 1, 0]
            return super().forward(state, action)

    pessimism = Pessimism(lambda_all=1.0, threshold=0.25)
    env = make_env(DisagreeingModel(spec), pessimism)
    # Spread s gives u = s²: 0.16, 0.2401, 0.2601, 1.
    step = env.step(joint_action(0.1, torch.tensor([0.4, 0.49, 0.51, 1.0])))
    assert step.stopped.tolist() == [False, False, True, True]
    assert step.valid.all()
    assert not step.terminated.any()
    assert not step.truncated.any()
    torch.testing.assert_close(env.uncertainties()[0], torch.tensor([0.16, 0.2401, 0.2601, 1.0]))
    # The penalty of the step that stops a rollout is capped at τ.
    torch.testing.assert_close(env.penalties()[0], 10 * torch.tensor([0.16, 0.2401, 0.25, 0.25]))
    after = env.step(joint_action(0.1, 0.0))
    assert after.valid.tolist() == [True, True, False, False]
    assert not after.stopped.any()
    fixed_horizon = make_env(DisagreeingModel(spec), Pessimism(threshold=0.25, adaptive_horizon=False))
    assert not fixed_horizon.step(joint_action(0.1, 1.0)).stopped.any()


@pytest.mark.parametrize("stops", [True, False])
def test_a_step_beyond_the_threshold_earns_the_lowest_reward(spec, stops):
    pessimism = {"lambda_all": 1.0, "threshold": 0.25, "adaptive_horizon": stops}
    model = KnownModel(spec, spread=0.6)  # u = 0.36; reward 10 * a, at least -8, minus a penalty of 10 * 0.25
    assert make_env(model, Pessimism(**pessimism)).step(joint_action(0.5)).reward.tolist() == [-10.5] * ROLLOUTS
    invented = make_env(model, Pessimism(**pessimism, unknown_reward="imagined")).step(joint_action(0.5))
    assert invented.reward.tolist() == [2.5] * ROLLOUTS
    known = make_env(KnownModel(spec, spread=0.5), Pessimism(**pessimism)).step(joint_action(0.5))  # u = τ
    assert known.reward.tolist() == [2.5] * ROLLOUTS


def test_rollouts_that_ended_keep_their_state(spec):
    env = make_env(KnownModel(spec), start=1.5)
    moves = torch.tensor([0.6, 0.4, -1.0, 0.0])
    first = env.step(joint_action(moves))
    assert first.terminated.tolist() == [True, False, False, False]
    torch.testing.assert_close(first.state[:, 0], 1.5 + moves)  # the terminating step itself is valid
    second = env.step(joint_action(0.3))
    assert second.valid.tolist() == [False, True, True, True]
    assert second.terminated.tolist() == [False, True, False, False]
    torch.testing.assert_close(second.state[:, 0], torch.tensor([2.1, 2.2, 0.8, 1.8]))
    assert second.reward[0] == 0
    third = env.step(joint_action(-1.0))
    assert third.valid.tolist() == [False, False, True, True]
    assert torch.equal(third.state[:2], second.state[:2])


def test_an_uncertain_termination_is_a_stop(spec):
    step = make_env(KnownModel(spec, spread=5.0), Pessimism(threshold=1.0), start=1.9).step(joint_action(0.5))
    assert step.stopped.all()
    assert not step.terminated.any()
    certain = make_env(KnownModel(spec, spread=0.1), Pessimism(threshold=1.0), start=1.9).step(joint_action(0.5))
    assert certain.terminated.all()
    assert not certain.stopped.any()


def test_terminations_are_sampled_with_the_predicted_probability(spec):
    class ConstantTermination(KnownModel):
        def forward(self, state, action):
            prediction = super().forward(state, action)
            return prediction._replace(termination=torch.full_like(prediction.termination, -2.0))

    env = ImaginedEnv(ConstantTermination(spec), NO_PESSIMISM, generator=torch.Generator().manual_seed(0))
    env.reset(torch.zeros(20_000, 2))
    assert float(env.step(torch.zeros(20_000, 2, 1)).terminated.float().mean()) == pytest.approx(0.1192, abs=0.008)


def test_without_terminations_no_rollout_terminates(spec):
    model = KnownModel(spec)
    model.termination = "never"
    assert not make_env(model, start=1.9).step(joint_action(0.5)).terminated.any()


def test_one_sampled_elite_predicts_all_outputs_of_a_rollouts_step(spec):
    class DistinctMembers(KnownModel):
        """Member e changes both columns by e - 1, predicts the reward 10 (e - 1) + 5; the last one terminates."""

        def forward(self, state, action):
            member = (torch.arange(MEMBERS) - 1.0).view(-1, 1).expand(-1, len(state))
            return Prediction(member.unsqueeze(-1).repeat(1, 1, 3), torch.full((MEMBERS, len(state), 3), -20.0),
                              100 * (member - 0.5))  # fmt: skip

    rollouts = 3000
    model = DistinctMembers(spec)
    env = ImaginedEnv(model, Pessimism(lambda_all=0, lambda_reward=0, clip_to_data=False, adaptive_horizon=False),
                      generator=torch.Generator().manual_seed(0))  # fmt: skip
    env.reset(torch.zeros(rollouts, 2))
    step = env.step(torch.zeros(rollouts, 2, 1))
    elite_change = step.state[:, 0]
    assert torch.equal(step.state[:, 1], elite_change)
    torch.testing.assert_close(step.reward, 10 * elite_change + 5)
    assert torch.equal(step.terminated, elite_change > 0)
    frequencies = torch.stack([(elite_change == k).float().mean() for k in (-1, 0, 1)])
    torch.testing.assert_close(frequencies, torch.full((3,), 1 / 3), atol=0.03, rtol=0)
    # The next step samples new elites.
    next_change = (env.step(torch.zeros(rollouts, 2, 1)).state[:, 0] - elite_change)[elite_change <= 0]
    assert len(next_change.unique()) == 3


@pytest.mark.parametrize("sample", [False, True])
def test_rollouts_depend_on_the_seed_only(spec, sample):
    def states(seed):
        env = make_env(KnownModel(spec, spread=0.3, log_variance=-2.0), seed=seed, sample_predictions=sample)
        return torch.stack([env.step(joint_action(0.1)).state for _ in range(5)])

    assert torch.equal(states(1), states(1))
    assert not torch.equal(states(1), states(2))


def test_sampling_adds_the_predicted_noise(spec):
    rollouts = 20_000
    model = KnownModel(spec)
    model.log_variance = torch.tensor([2 * math.log(0.3), -torch.inf, 2 * math.log(0.3)])
    env = ImaginedEnv(
        model, Pessimism(0, 0, clip_to_data=False, adaptive_horizon=False), True, torch.Generator().manual_seed(0)
    )
    env.reset(torch.zeros(rollouts, 2))
    step = env.step(torch.zeros(rollouts, 2, 1))
    assert float(step.state[:, 0].std()) == pytest.approx(0.3, rel=0.03)
    assert float(step.state[:, 1].std()) == 0
    assert float(step.reward.std()) == pytest.approx(3.0, rel=0.03)
    assert float(step.reward.mean()) == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            {"stop_value": "hope"},
            "model.pessimism.stop_value: found 'hope', expected pessimistic or bootstrap",
        ),
        ({"unknown_reward": 0}, "model.pessimism.unknown_reward: found 0, expected lowest or imagined"),
        ({"lambda_all": -1.0}, "model.pessimism.lambda_all: found -1.0"),
        ({"threshold": 0.0}, "model.pessimism.threshold: found 0.0"),
    ],
)
def test_invalid_pessimism_raises_an_error_that_names_the_setting(setting, message):
    with pytest.raises(UserError, match=message):
        Pessimism(**setting)


def test_the_threshold_may_come_from_the_data():
    assert Pessimism().fixed_threshold is None
    assert Pessimism(threshold=0.5).fixed_threshold == 0.5


def test_a_rollout_may_use_one_elite_for_all_steps(spec):
    model = KnownModel(spec, spread=0.1)
    env = ImaginedEnv(model, NO_PESSIMISM, generator=torch.Generator().manual_seed(0), elite_per_rollout=True)
    env.reset(torch.zeros(ROLLOUTS, 2))
    elite = env.elite.clone()
    for step in range(1, 4):
        state = env.step(joint_action(0.0)).state
        torch.testing.assert_close(state[:, 1], 0.1 * step * (elite - 1.0))
    env.reset(torch.zeros(ROLLOUTS, 2), elite=torch.tensor([2, 2, 0, 0]))
    assert env.step(joint_action(0.0)).state[:, 1].tolist() == pytest.approx([0.1, 0.1, -0.1, -0.1])
