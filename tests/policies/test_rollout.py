"""Rollouts store the true transitions, and updates can recompute the log-probabilities from them."""

from dataclasses import dataclass, field

import pytest
import torch

from momalit.core.records import Sequence, Start, Step
from momalit.core.team import AgentSpec, TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.envs.vector_env import VectorTeamEnv
from momalit.nn.actors import TeamActor
from momalit.policies.rollout import MIN_ROWS, TeamRunner, collect_rollout, initial_start, play_episodes

ROWS, STATE, ACTIONS = 6, 3, 2
FIELDS = ("state", "previous_action", "keep")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def spec():
    agents = (AgentSpec("a", (0, 1), 1, (-1.0,), (1.0,)), AgentSpec("b", (2,), 2, (-1.0, -1.0), (1.0, 1.0)))
    return TeamSpec("counter", agents, STATE, False, 5, tuple(("state", i) for i in range(STATE)))


def with_random_head(actor):
    """Randomises the head, so that actions depend on the hidden states."""
    actor.head.weight.data.normal_(0, 1.0)
    return actor


@dataclass
class Counter:
    """The state's first column counts steps and the others sum the actions. Episodes of row b have ``length[b]`` steps.

    Ends alternate between termination and truncation. The call after an end starts a new episode at 100, 200, ...
    """

    state: torch.Tensor
    length: torch.Tensor
    actions: list = field(default_factory=list)

    def __post_init__(self):
        self.time = torch.zeros_like(self.length)
        self.episode = torch.zeros_like(self.length)
        self.ended = torch.zeros_like(self.length, dtype=torch.bool)

    def step(self, action):
        self.actions.append(action.clone())
        began = self.ended
        self.episode = self.episode + began
        moved = self.state + torch.cat([torch.ones(len(action), 1), action[:, 0, :1], action[:, 1, :1]], 1)
        first = torch.zeros_like(moved)
        first[:, 0] = 100.0 * self.episode
        self.state = torch.where(began[:, None], first, moved)
        self.time = torch.where(began, 0, self.time + 1)
        end = self.time >= self.length
        self.ended = end
        reward = torch.where(began, 0.0, self.state[:, 0])
        even = self.episode % 2 == 0
        return Step(self.state.clone(), reward, end & even, end & ~even, ~began, began, torch.zeros_like(began))


def start_sequence(spec, burn_in, rows=ROWS):
    """Inputs at some steps of 12-step trajectories, first steps included, with ``burn_in`` steps of history."""
    lengths = torch.full((3,), 12)
    action = torch.rand(36, spec.n_agents, spec.action_size) * spec.action_mask()
    end = torch.zeros(36, dtype=torch.bool)
    data = Trajectories.from_lengths(torch.randn(39, STATE), action, torch.randn(36), end, end, lengths)
    return data.sequence(torch.tensor([0, 1, 2, 5, 12, 35])[:rows], burn_in)


def start_from(actor, sequence):
    """The last step of a sequence, with the policies' hidden states after the others."""
    past, now = sequence.span(0, -1), sequence.span(-1, None)
    return Start(now, actor.hidden_states(past)[:, -1].detach() if past.state.shape[0] else None)


def recomputed_log_prob(actor, rollout):
    """Log-probabilities of the stored actions from one pass over the rollout, as in the update."""
    policy, _ = actor(rollout.sequence.span(0, -1), rollout.hidden_state)
    return policy.log_prob(rollout.action)


def test_states_actions_and_rewards_are_aligned(spec):
    actor = with_random_head(TeamActor(spec, 8, 4))
    start = initial_start(torch.zeros(ROWS, STATE), 2, ACTIONS)
    env = Counter(start.now.state[0], torch.full((ROWS,), 100))
    rollout = collect_rollout(env, actor, start, 7, torch.Generator().manual_seed(0))
    assert (rollout.n_steps, rollout.n_rows) == (7, ROWS)
    clipped = actor.clip(rollout.action)
    assert torch.equal(torch.stack(env.actions), clipped)
    assert torch.equal(rollout.previous_action[1:], clipped)
    assert torch.equal(rollout.state[:, :, 0], torch.arange(8.0).unsqueeze(1).expand(-1, ROWS))
    torch.testing.assert_close(rollout.state[1:, :, 1] - rollout.state[:-1, :, 1], clipped[:, :, 0, 0])
    assert torch.equal(rollout.reward, rollout.state[1:, :, 0])
    assert not rollout.keep[0].any()
    assert rollout.keep[1:].all()
    assert rollout.valid.all()
    assert (rollout.action.abs() > 1).any()  # actions are stored before clipping
    assert clipped.abs().max() <= 1


def test_reset_takes_one_invalid_step(spec):
    actor = with_random_head(TeamActor(spec, 8, 4))
    start = initial_start(torch.zeros(2, STATE), 2, ACTIONS)
    env = Counter(start.now.state[0], torch.tensor([2, 3]))
    rollout = collect_rollout(env, actor, start, 8, torch.Generator().manual_seed(0))
    # Row 0: steps 0, 1, reset, 3, 4, reset, 6, 7.
    assert rollout.valid[:, 0].tolist() == [True, True, False, True, True, False, True, True]
    assert rollout.terminated[:, 0].tolist() == [False, True, False, False, False, False, False, True]
    assert rollout.truncated[:, 0].tolist() == [False, False, False, False, True, False, False, False]
    assert rollout.state[:, 0, 0].tolist() == [0, 1, 2, 100, 101, 102, 200, 201, 202]
    assert rollout.keep[:, 0].tolist() == [False, True, True, False, True, True, False, True, True]
    assert rollout.previous_action[[3, 6], 0].abs().max() == 0
    assert rollout.previous_action[[1, 2, 4, 5, 7, 8], 0].abs().amin(0)[0, 0] > 0
    assert rollout.reward[~rollout.valid].abs().max() == 0


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("burn_in", [0, 1, 4, 20])
def test_log_probabilities_can_be_recomputed_with_burn_in_and_resets(spec, burn_in, shared):
    actor = with_random_head(TeamActor(spec, 8, 4, shared))
    sequence = start_sequence(spec, burn_in)
    env = Counter(sequence.state[-1], torch.tensor([2, 3, 4, 5, 100, 1]))
    rollout = collect_rollout(env, actor, start_from(actor, sequence), 9, torch.Generator().manual_seed(0))
    torch.testing.assert_close(recomputed_log_prob(actor, rollout), rollout.log_prob)
    # A subset of the rollouts keeps its hidden states.
    index = torch.tensor([4, 1])
    torch.testing.assert_close(recomputed_log_prob(actor, rollout.rows(index)), rollout.log_prob[:, index])


def test_actions_depend_on_history_within_the_episode_only(spec):
    actor = with_random_head(TeamActor(spec, 8, 4))
    start = start_sequence(spec, 4)
    padded = start.state.clone()
    padded[:-1][~start.keep[1:]] += 99  # steps before a reset of the hidden state

    def first_actions(state):
        changed = start_from(actor, type(start)(state, start.previous_action, start.keep))
        env = Counter(state[-1], torch.full((ROWS,), 100))
        return collect_rollout(env, actor, changed, 3, torch.Generator().manual_seed(0)).action[0]

    torch.testing.assert_close(first_actions(padded), first_actions(start.state))
    changed_history = start.state.clone()
    changed_history[-2] += 3
    # Rows 0 and 4 are at the first step of an episode and have no history.
    same = (
        torch.isclose(first_actions(changed_history), first_actions(start.state), rtol=1e-4, atol=1e-5)
        .flatten(1)
        .all(1)
    )
    assert same.tolist() == [True, False, False, False, True, False]


def test_without_a_generator_actions_are_the_modes(spec):
    actor = with_random_head(TeamActor(spec, 8, 4))
    start = start_from(actor, start_sequence(spec, 2))
    rollouts = [
        collect_rollout(Counter(start.now.state[0], torch.full((ROWS,), 100)), actor, start, 3, None) for _ in range(2)
    ]
    assert torch.equal(rollouts[0].action, rollouts[1].action)
    policy, _ = actor(rollouts[0].sequence.span(0, -1), start.hidden_state)
    torch.testing.assert_close(policy.mode, rollouts[0].action)


def test_hidden_states_carry_over_between_steps(spec):
    actor = with_random_head(TeamActor(spec, 8, 4))
    sequence = start_sequence(spec, 6)
    team = TeamRunner(actor, None)
    for t in range(7):
        decision = team.act(sequence.span(t, t + 1))
    torch.testing.assert_close(decision.action, actor(sequence)[0].mode[-1])


@pytest.mark.parametrize("task", ["icg", "reacher"])
def test_log_probabilities_can_be_recomputed_on_real_environments(task, request):
    spec = request.getfixturevalue(task).spec
    actor = with_random_head(TeamActor(spec, 8, 4))
    env = VectorTeamEnv(spec, 3, autoreset=True)
    start = initial_start(env.reset([1, 2, 3]), spec.n_agents, spec.action_size)
    steps = int(spec.horizon * 1.5)
    generator = torch.Generator().manual_seed(0)
    first = collect_rollout(env, actor, start, steps, generator)
    assert first.truncated.sum(0).tolist() == [1, 1, 1]
    assert (~first.valid).sum(0).tolist() == [1, 1, 1]
    torch.testing.assert_close(recomputed_log_prob(actor, first), first.log_prob, atol=1e-4, rtol=1e-4)
    # The next rollout continues where this one ends, with the hidden states of one pass over both.
    second = collect_rollout(env, actor, first.end, steps, generator)
    assert torch.equal(second.state[0], first.state[-1])
    both = [torch.cat([getattr(first.sequence, k)[:-1], getattr(second.sequence, k)[:-1]]) for k in FIELDS]
    log_prob = actor(Sequence(*both))[0].log_prob(torch.cat([first.action, second.action]))
    torch.testing.assert_close(log_prob[steps:], second.log_prob, atol=1e-4, rtol=1e-4)


def test_returns_equal_a_manual_episode(icg):
    spec = icg.spec
    actor = with_random_head(TeamActor(spec, 8, 4))
    env = VectorTeamEnv(spec, 4)
    returns = play_episodes(env, actor, [1, 2, 3, 4])
    assert returns.shape == (4,)
    # Game and team are deterministic, so all episodes are equal. Compare with a manual loop.
    env.reset([1, 2, 3, 4])
    state, previous, keep, hidden_state, total = torch.zeros(4, spec.state_size), torch.zeros(4, 2, 2), False, None, 0.0
    for _ in range(spec.horizon):
        now = initial_start(state, 2, 2).now
        now = type(now)(now.state, previous[None], torch.full((1, 4), keep))
        policy, hidden_state = actor(now, hidden_state)
        hidden_state, previous, keep = hidden_state[:, -1], policy.mode[0], True
        step = env.step(previous)
        state, total = step.state, total + step.reward
    assert torch.equal(returns, total)


class EpisodesOfLength:
    """Episodes with the given lengths; the reward is the sum of the state."""

    def __init__(self, length):
        self.length, self.actions = length, []

    def reset(self, seeds):
        self.state = torch.stack([torch.full((STATE,), float(seed)) for seed in seeds]) / 10
        self.time = 0
        return self.state

    def step(self, action):
        valid = self.time < self.length
        self.time += 1
        self.actions.append(action.clone())
        moved = self.state + torch.stack([action[:, 0, 0], action[:, 1, 0], action[:, 1, 1]], 1)
        self.state = torch.where(valid[:, None], moved, self.state)
        end, never = valid & (self.time >= self.length), torch.zeros_like(valid)
        return Step(self.state.clone(), self.state.sum(1) * valid, end, never, valid, never, never)


def test_batch_shrinks_as_episodes_end(spec):
    actor = with_random_head(TeamActor(spec, 8, 4))
    row = torch.arange(40)
    length = torch.where(row % 2 == 0, 3, torch.where(row % 8 == 1, 9, 6))  # 20, 5 and 15 rows
    batch_sizes = []
    actor.register_forward_hook(lambda _, arguments, __: batch_sizes.append(arguments[0].state.shape[1]))
    env = EpisodesOfLength(length)
    returns = play_episodes(env, actor, list(range(40)))
    assert batch_sizes == [40] * 3 + [20] * 3 + [MIN_ROWS] * 3
    assert len(env.actions) == 9
    for row in (0, 1, 3, 17, 39):
        single = play_episodes(EpisodesOfLength(length[row : row + 1]), actor, [row])
        torch.testing.assert_close(single[0], returns[row])


def test_noise_is_independent_of_the_lengths_of_other_episodes(spec):
    actor = with_random_head(TeamActor(spec, 8, 4))
    short, long = torch.ones(40, dtype=torch.long), torch.full((40,), 12)
    short[7] = 12
    returns = [
        play_episodes(EpisodesOfLength(length), actor, list(range(40)), torch.Generator().manual_seed(0))[7]
        for length in (short, long)
    ]
    assert returns[0] == returns[1]
