"""The imagined environment with a world model whose members are known functions."""

import math

import pytest
import torch

from momalit.core.errors import UserError
from momalit.core.team import AgentSpec, TeamSpec
from momalit.nn.ensemble import Prediction
from momalit.world_model.dynamics import WorldModel
from momalit.world_model.imagination import ImaginedEnv, Pessimism

MEMBERS, ROWS = 3, 4
FREE = Pessimism.none()


@pytest.fixture
def spec():
    agents = (AgentSpec("a", (0,), 1, (-1.0,), (1.0,)), AgentSpec("b", (1,), 1, (-1.0,), (1.0,)))
    return TeamSpec("line", agents, 2, False, 5, (("state", 0), ("state", 1)))


class Known(WorldModel):
    """Member e moves by ``(a, b + spread * (e - 1))`` and pays ``10 * a``; all ends where the first column is above 2.

    Standardised units are worth 1 of the state, and 10 of reward, whose mean is 5.
    """

    def __init__(self, spec, spread=0.0, log_variance=-20.0):
        super().__init__(spec, MEMBERS, (4,))
        self.spread, self.noise = spread, log_variance
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
        ends = 1e4 * (state[:, 0] + action[:, 0, 0] - 2).expand(MEMBERS, -1)
        return Prediction(mean, torch.zeros_like(mean) + self.noise, ends)


def make(model, pessimism=FREE, start=0.0, seed=0, sample_predictions=False):
    env = ImaginedEnv(model, pessimism, sample_predictions, torch.Generator().manual_seed(seed))
    env.reset(torch.full((ROWS, 2), start))
    return env


def joint(a, b=0.0):
    action = torch.zeros(ROWS, 2, 1)
    action[:, 0, 0], action[:, 1, 0] = torch.as_tensor(a), torch.as_tensor(b)
    return action


def test_a_step_is_what_the_members_say(spec):
    env = make(Known(spec))
    step = env.step(joint(0.5, -0.25))
    torch.testing.assert_close(step.state, torch.tensor([0.5, -0.25]).expand(ROWS, 2))
    torch.testing.assert_close(step.reward, torch.full((ROWS,), 5.0))
    assert step.valid.all()
    for name in ("terminated", "truncated", "began", "stopped"):
        assert not getattr(step, name).any()
    torch.testing.assert_close(env.step(joint(0.5)).state[:, 0], torch.ones(ROWS))


def test_states_and_rewards_stay_in_the_box(spec):
    def far(**options):
        return make(
            Known(spec), Pessimism(lambda_all=0, lambda_reward=0, adaptive_horizon=False, **options), 2.75
        ).step(joint(-0.9, 0.75))

    torch.testing.assert_close(far(clip_to_data=True).state[0], torch.tensor([1.85, 3.0]))
    assert far(clip_to_data=True).reward.tolist() == [-8.0] * ROWS
    torch.testing.assert_close(far(clip_to_data=False).state[0], torch.tensor([1.85, 3.5]))
    torch.testing.assert_close(far(clip_to_data=False).reward, torch.full((ROWS,), -9.0))


def test_penalties_come_after_the_clip_and_are_capped(spec):
    # Members at -s, 0, +s in one of three dimensions: covariance 2 s² / 2 = s², nothing in the reward.
    def reward(spread, **options):
        caution = Pessimism(**{"lambda_reward": 0.0, "adaptive_horizon": False, "threshold": 1.0, **options})
        return make(Known(spec, spread), caution).step(joint(0.9)).reward

    # The clip takes 9 to 8, then 0.5 of uncertainty costs 0.5 * 10.
    torch.testing.assert_close(reward(0.5**0.5, lambda_all=1.0), torch.full((ROWS,), 8.0 - 5.0))
    torch.testing.assert_close(reward(0.5**0.5, lambda_all=0.2), torch.full((ROWS,), 8.0 - 1.0))
    # Of 9 only τ = 1 counts; a penalised reward may leave the box.
    torch.testing.assert_close(reward(3.0, lambda_all=3.0), torch.full((ROWS,), 8.0 - 30.0))
    torch.testing.assert_close(reward(3.0, lambda_all=0.0, lambda_aleatoric=0.0), torch.full((ROWS,), 8.0))


def test_predicted_noise_is_a_penalty_of_its_own(spec):
    # Variances of 0.2 in three dimensions: norm 0.2 * sqrt(3).
    model = Known(spec, log_variance=math.log(0.2))
    caution = Pessimism(lambda_all=0.0, lambda_reward=0.0, lambda_aleatoric=2.0, threshold=10.0)
    torch.testing.assert_close(make(model, caution).step(joint(0.0)).reward, torch.full((ROWS,), -20 * 0.2 * 3**0.5))


def test_dimensions_that_never_vary_have_no_noise(spec):
    model = WorldModel(spec, 2, (4,))
    model.space.target.varies.copy_(torch.tensor([True, False, True]))
    model.network.layers[-1].weight.data.zero_()
    bias = model.network.layers[-1].bias.data.zero_()
    bias[:, :, 3:6] = torch.tensor([-3.0, 0.4, -3.0])  # what it says of the second is noise that nothing has trained
    env = make(
        model, Pessimism(lambda_all=0.0, lambda_reward=0.0, lambda_aleatoric=1.0, threshold=10.0, clip_to_data=False)
    )
    spoken = model.network(torch.zeros(2, 1, 4)).log_variance[0, 0].exp()
    expected = float((spoken[0] ** 2 + spoken[2] ** 2).sqrt())
    base = make(model, Pessimism(lambda_all=0.0, lambda_reward=0.0, clip_to_data=False)).step(joint(0.0)).reward
    torch.testing.assert_close(base - env.step(joint(0.0)).reward, torch.full((ROWS,), expected))


def test_a_rollout_stops_when_the_raw_disagreement_exceeds_the_threshold(spec):
    class Doubtful(Known):
        """Disagrees by the size of b's action."""

        def forward(self, state, action):
            self.spread = action[:, 1, 0]
            return super().forward(state, action)

    caution = Pessimism(lambda_all=1.0, threshold=0.25)
    env = make(Doubtful(spec), caution)
    # Spread s gives u = s²: 0.16, 0.2401, 0.2601, 1.
    step = env.step(joint(0.1, torch.tensor([0.4, 0.49, 0.51, 1.0])))
    assert step.stopped.tolist() == [False, False, True, True]
    assert step.valid.all()
    assert not step.terminated.any()
    assert not step.truncated.any()
    torch.testing.assert_close(env.uncertainties()[0], torch.tensor([0.16, 0.2401, 0.2601, 1.0]))
    # The penalty of the step that stops is capped at τ.
    torch.testing.assert_close(env.penalties()[0], 10 * torch.tensor([0.16, 0.2401, 0.25, 0.25]))
    after = env.step(joint(0.1, 0.0))
    assert after.valid.tolist() == [True, True, False, False]
    assert not after.stopped.any()
    ignoring = make(Doubtful(spec), Pessimism(threshold=0.25, adaptive_horizon=False))
    assert not ignoring.step(joint(0.1, 1.0)).stopped.any()


def test_rows_that_ended_stay_where_they_are(spec):
    env = make(Known(spec), start=1.5)
    moves = torch.tensor([0.6, 0.4, -1.0, 0.0])
    first = env.step(joint(moves))
    assert first.terminated.tolist() == [True, False, False, False]
    torch.testing.assert_close(first.state[:, 0], 1.5 + moves)  # the end itself is a real step
    second = env.step(joint(0.3))
    assert second.valid.tolist() == [False, True, True, True]
    assert second.terminated.tolist() == [False, True, False, False]
    torch.testing.assert_close(second.state[:, 0], torch.tensor([2.1, 2.2, 0.8, 1.8]))
    assert second.reward[0] == 0
    third = env.step(joint(-1.0))
    assert third.valid.tolist() == [False, False, True, True]
    assert torch.equal(third.state[:2], second.state[:2])


def test_a_termination_is_no_stop(spec):
    step = make(Known(spec, spread=5.0), Pessimism(), start=1.9).step(joint(0.5))
    assert step.terminated.all()
    assert not step.stopped.any()


def test_a_termination_is_drawn_at_its_probability(spec):
    class Doubtful(Known):
        def forward(self, state, action):
            found = super().forward(state, action)
            return found._replace(termination=torch.full_like(found.termination, -2.0))

    env = ImaginedEnv(Doubtful(spec), FREE, generator=torch.Generator().manual_seed(0))
    env.reset(torch.zeros(20_000, 2))
    assert float(env.step(torch.zeros(20_000, 2, 1)).terminated.float().mean()) == pytest.approx(0.1192, abs=0.008)


def test_known_never_to_end_it_never_does(spec):
    model = Known(spec)
    model.termination = "never"
    assert not make(model, start=1.9).step(joint(0.5)).terminated.any()


def test_every_row_draws_one_elite_a_step_for_all_that_it_predicts(spec):
    class Voices(Known):
        """Member e moves both columns by e - 1, pays 10 (e - 1) + 5 and ends if it is the last."""

        def forward(self, state, action):
            member = (torch.arange(MEMBERS) - 1.0).view(-1, 1).expand(-1, len(state))
            return Prediction(member.unsqueeze(-1).repeat(1, 1, 3), torch.full((MEMBERS, len(state), 3), -20.0),
                              100 * (member - 0.5))  # fmt: skip

    rows = 3000
    model = Voices(spec)
    env = ImaginedEnv(model, Pessimism(lambda_all=0, lambda_reward=0, clip_to_data=False, adaptive_horizon=False),
                      generator=torch.Generator().manual_seed(0))  # fmt: skip
    env.reset(torch.zeros(rows, 2))
    step = env.step(torch.zeros(rows, 2, 1))
    choice = step.state[:, 0]
    assert torch.equal(step.state[:, 1], choice)
    torch.testing.assert_close(step.reward, 10 * choice + 5)
    assert torch.equal(step.terminated, choice > 0)
    counts = torch.stack([(choice == k).float().mean() for k in (-1, 0, 1)])
    torch.testing.assert_close(counts, torch.full((3,), 1 / 3), atol=0.03, rtol=0)
    # The next step draws again.
    moved = (env.step(torch.zeros(rows, 2, 1)).state[:, 0] - choice)[choice <= 0]
    assert len(moved.unique()) == 3


@pytest.mark.parametrize("sample", [False, True])
def test_same_seed_same_life(spec, sample):
    def life(seed):
        env = make(Known(spec, spread=0.3, log_variance=-2.0), seed=seed, sample_predictions=sample)
        return torch.stack([env.step(joint(0.1)).state for _ in range(5)])

    assert torch.equal(life(1), life(1))
    assert not torch.equal(life(1), life(2))


def test_sampling_adds_the_predicted_noise(spec):
    rows = 20_000
    model = Known(spec)
    model.noise = torch.tensor([2 * math.log(0.3), -torch.inf, 2 * math.log(0.3)])
    env = ImaginedEnv(
        model, Pessimism(0, 0, clip_to_data=False, adaptive_horizon=False), True, torch.Generator().manual_seed(0)
    )
    env.reset(torch.zeros(rows, 2))
    step = env.step(torch.zeros(rows, 2, 1))
    assert float(step.state[:, 0].std()) == pytest.approx(0.3, rel=0.03)
    assert float(step.state[:, 1].std()) == 0
    assert float(step.reward.std()) == pytest.approx(3.0, rel=0.03)
    assert float(step.reward.mean()) == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            {"stop_value": "hope"},
            "pessimism.stop_value: found 'hope', expected one of pessimistic, bootstrap",
        ),
        ({"lambda_all": -1.0}, "pessimism.lambda_all: found -1.0"),
        ({"threshold": 0.0}, "pessimism.threshold: found 0.0"),
    ],
)
def test_impossible_pessimism_is_refused_by_name(setting, message):
    with pytest.raises(UserError, match=message):
        Pessimism(**setting)


def test_a_row_may_stay_with_one_elite(spec):
    model = Known(spec, spread=0.1)
    env = ImaginedEnv(model, FREE, generator=torch.Generator().manual_seed(0), elite_per_rollout=True)
    env.reset(torch.zeros(ROWS, 2))
    elite = env.elite.clone()
    for step in range(1, 4):
        state = env.step(joint(0.0)).state
        torch.testing.assert_close(state[:, 1], 0.1 * step * (elite - 1.0))
    env.reset(torch.zeros(ROWS, 2), elite=torch.tensor([2, 2, 0, 0]))
    assert env.step(joint(0.0)).state[:, 1].tolist() == pytest.approx([0.1, 0.1, -0.1, -0.1])
