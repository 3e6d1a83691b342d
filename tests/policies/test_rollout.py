"""Rollouts: what is stored is what happened, and the policies see in training what they saw when they acted."""

from dataclasses import dataclass, field

import pytest
import torch

from momalit.core.records import Step
from momalit.core.team import AgentSpec, TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.envs.vector_env import VectorTeamEnv
from momalit.nn.actors import TeamActor
from momalit.policies.rollout import FEWEST_ROWS, TeamRunner, collect_rollout, initial_sequence, play_episodes

ROWS, STATE, ACTIONS = 6, 3, 2


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def spec():
    agents = (AgentSpec("a", (0, 1), 1, (-1.0,), (1.0,)), AgentSpec("b", (2,), 2, (-1.0, -1.0), (1.0, 1.0)))
    return TeamSpec("counter", agents, STATE, False, 5, tuple(("state", i) for i in range(STATE)))


def lively(actor):
    """Gives the head weights of ordinary size, so that memories matter."""
    actor.head.weight.data.normal_(0, 1.0)
    return actor


@dataclass
class Counter:
    """The state counts in its first column and adds the actions up in the others; row b lasts ``length[b]`` steps.

    Ends alternate between termination and truncation; the call after an end begins a new episode at 100, 200, ...
    """

    state: torch.Tensor
    length: torch.Tensor
    actions: list = field(default_factory=list)

    def __post_init__(self):
        self.time = torch.zeros_like(self.length)
        self.episode = torch.zeros_like(self.length)
        self.over = torch.zeros_like(self.length, dtype=torch.bool)

    def step(self, action):
        self.actions.append(action.clone())
        began = self.over
        self.episode = self.episode + began
        moved = self.state + torch.cat([torch.ones(len(action), 1), action[:, 0, :1], action[:, 1, :1]], 1)
        first = torch.zeros_like(moved)
        first[:, 0] = 100.0 * self.episode
        self.state = torch.where(began[:, None], first, moved)
        self.time = torch.where(began, 0, self.time + 1)
        end = self.time >= self.length
        self.over = end
        reward = torch.where(began, 0.0, self.state[:, 0])
        even = self.episode % 2 == 0
        return Step(self.state.clone(), reward, end & even, end & ~even, ~began, began, torch.zeros_like(began))


def history(spec, before, rows=ROWS):
    """Real trajectories of 12 steps, and the inputs around some of their steps, first ones included."""
    lengths = torch.full((3,), 12)
    action = torch.rand(36, spec.n_agents, spec.action_size) * spec.action_mask()
    end = torch.zeros(36, dtype=torch.bool)
    data = Trajectories.from_lengths(torch.randn(39, STATE), action, torch.randn(36), end, end, lengths)
    return data.sequence(torch.tensor([0, 1, 2, 5, 12, 35])[:rows], before)


def recomputed(actor, rollout):
    """Log-probabilities of the stored actions as the update computes them: one pass over burn-in and rollout."""
    policy, _ = actor(rollout.sequence.map(lambda x: x[:-1]))
    return policy.log_prob(torch.cat([torch.zeros(rollout.burn_in, *rollout.action.shape[1:]), rollout.action]))[
        rollout.burn_in :
    ]


def test_states_actions_and_rewards_line_up(spec):
    actor = lively(TeamActor(spec, 8, 4))
    start = initial_sequence(torch.zeros(ROWS, STATE), 2, ACTIONS)
    env = Counter(start.state[-1], torch.full((ROWS,), 100))
    rollout = collect_rollout(env, actor, start, 7, torch.Generator().manual_seed(0))
    assert (rollout.n_steps, rollout.n_rows, rollout.burn_in) == (7, ROWS, 0)
    taken = actor.clip(rollout.action)
    assert torch.equal(torch.stack(env.actions), taken)
    assert torch.equal(rollout.previous_action[1:], taken)
    assert torch.equal(rollout.state[:, :, 0], torch.arange(8.0).unsqueeze(1).expand(-1, ROWS))
    torch.testing.assert_close(rollout.state[1:, :, 1] - rollout.state[:-1, :, 1], taken[:, :, 0, 0])
    assert torch.equal(rollout.reward, rollout.state[1:, :, 0])
    assert not rollout.keep[0].any()
    assert rollout.keep[1:].all()
    assert rollout.valid.all()
    assert (rollout.action.abs() > 1).any()  # sampled, not clipped
    assert taken.abs().max() <= 1


def test_a_new_episode_costs_one_invalid_step_and_begins_afresh(spec):
    actor = lively(TeamActor(spec, 8, 4))
    start = initial_sequence(torch.zeros(2, STATE), 2, ACTIONS)
    env = Counter(start.state[-1], torch.tensor([2, 3]))
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
@pytest.mark.parametrize("before", [0, 1, 4, 20])
def test_log_probabilities_can_be_recomputed_with_history_and_resets(spec, before, shared):
    actor = lively(TeamActor(spec, 8, 4, shared))
    start = history(spec, before)
    env = Counter(start.state[-1], torch.tensor([2, 3, 4, 5, 100, 1]))
    rollout = collect_rollout(env, actor, start, 9, torch.Generator().manual_seed(0))
    assert rollout.burn_in == before
    torch.testing.assert_close(recomputed(actor, rollout), rollout.log_prob)
    # Rows carry their own history with them.
    index = torch.tensor([4, 1])
    torch.testing.assert_close(recomputed(actor, rollout.rows(index)), rollout.log_prob[:, index])


def test_history_matters_but_not_what_lies_before_an_episode(spec):
    actor = lively(TeamActor(spec, 8, 4))
    start = history(spec, 4)
    filler = start.state.clone()
    filler[:-1][~start.keep[1:]] += 99  # times whose memory the next one clears

    def logs(state):
        changed = type(start)(state, start.previous_action, start.keep)
        env = Counter(state[-1], torch.full((ROWS,), 100))
        return collect_rollout(env, actor, changed, 3, torch.Generator().manual_seed(0)).log_prob

    torch.testing.assert_close(logs(filler), logs(start.state))
    older = start.state.clone()
    older[-2] += 3
    # Row 0 and row 4 stand at an episode's first step and remember nothing.
    same = (logs(older) == logs(start.state)).all(-1).all(0)
    assert same.tolist() == [True, False, False, False, True, False]


def test_without_a_generator_the_team_takes_its_modes(spec):
    actor = lively(TeamActor(spec, 8, 4))
    start = history(spec, 2)
    rollouts = [
        collect_rollout(Counter(start.state[-1], torch.full((ROWS,), 100)), actor, start, 3, None) for _ in range(2)
    ]
    assert torch.equal(rollouts[0].action, rollouts[1].action)
    policy, _ = actor(rollouts[0].sequence.map(lambda x: x[:-1]))
    torch.testing.assert_close(policy.mode[2:], rollouts[0].action)


def test_acting_remembers_from_step_to_step(spec):
    actor = lively(TeamActor(spec, 8, 4))
    whole = history(spec, 6)
    team = TeamRunner(actor, None)
    team.recall(whole.map(lambda x: x[:3]))
    for t in range(3, 7):
        decision = team.act(whole.map(lambda x, t=t: x[t : t + 1]))
    torch.testing.assert_close(decision.action, actor(whole)[0].mode[-1])


@pytest.mark.parametrize("task", ["icg", "reacher"])
def test_log_probabilities_can_be_recomputed_on_real_environments(task, request):
    spec = request.getfixturevalue(task).spec
    actor = lively(TeamActor(spec, 8, 4))
    env = VectorTeamEnv(spec, 3, autoreset=True)
    start = initial_sequence(env.reset([1, 2, 3]), spec.n_agents, spec.action_size)
    steps = int(spec.horizon * 1.5)
    generator = torch.Generator().manual_seed(0)
    first = collect_rollout(env, actor, start, steps, generator)
    assert first.truncated.sum(0).tolist() == [1, 1, 1]
    assert (~first.valid).sum(0).tolist() == [1, 1, 1]
    torch.testing.assert_close(recomputed(actor, first), first.log_prob, atol=1e-4, rtol=1e-4)
    # The next rollout of living rows goes on from the last times of this one.
    tail = first.sequence.map(lambda x: x[-5:])
    second = collect_rollout(env, actor, tail, steps, generator)
    assert second.burn_in == 4
    assert torch.equal(second.state[4], first.state[-1])
    torch.testing.assert_close(recomputed(actor, second), second.log_prob, atol=1e-4, rtol=1e-4)


def test_episodes_are_counted_whole_and_once(icg):
    spec = icg.spec
    actor = lively(TeamActor(spec, 8, 4))
    env = VectorTeamEnv(spec, 4)
    returns = play_episodes(env, actor, [1, 2, 3, 4])
    assert returns.shape == (4,)
    # The game is deterministic and so is the team: all episodes are alike. Replay one by hand.
    env.reset([1, 2, 3, 4])
    state, previous, keep, hidden_state, total = torch.zeros(4, spec.state_size), torch.zeros(4, 2, 2), False, None, 0.0
    for _ in range(spec.horizon):
        now = initial_sequence(state, 2, 2)
        now = type(now)(now.state, previous[None], torch.full((1, 4), keep))
        policy, hidden_state = actor(now, hidden_state)
        hidden_state, previous, keep = hidden_state[:, -1], policy.mode[0], True
        step = env.step(previous)
        state, total = step.state, total + step.reward
    assert torch.equal(returns, total)


class Unequal:
    """Rows of the lengths given."""

    def __init__(self, length):
        self.length, self.told = length, []

    def reset(self, seeds):
        self.state = torch.stack([torch.full((STATE,), float(seed)) for seed in seeds]) / 10
        self.time = 0
        return self.state

    def step(self, action):
        valid = self.time < self.length
        self.time += 1
        self.told.append(action.clone())
        moved = self.state + torch.stack([action[:, 0, 0], action[:, 1, 0], action[:, 1, 1]], 1)
        self.state = torch.where(valid[:, None], moved, self.state)
        end, never = valid & (self.time >= self.length), torch.zeros_like(valid)
        return Step(self.state.clone(), self.state.sum(1) * valid, end, never, valid, never, never)


def test_policies_act_on_rows_that_run(spec):
    actor = lively(TeamActor(spec, 8, 4))
    row = torch.arange(40)
    length = torch.where(row % 2 == 0, 3, torch.where(row % 8 == 1, 9, 6))  # of 20, 5 and 15 rows
    acted = []
    actor.register_forward_hook(lambda _, arguments, __: acted.append(arguments[0].state.shape[1]))
    env = Unequal(length)
    returns = play_episodes(env, actor, list(range(40)))
    assert acted == [40] * 3 + [20] * 3 + [FEWEST_ROWS] * 3
    assert len(env.told) == 9
    for row in (0, 1, 3, 17, 39):
        alone = play_episodes(Unequal(length[row : row + 1]), actor, [row])
        torch.testing.assert_close(alone[0], returns[row])


def test_noise_of_an_episode_does_not_depend_on_how_long_others_last(spec):
    actor = lively(TeamActor(spec, 8, 4))
    short, long = torch.ones(40, dtype=torch.long), torch.full((40,), 12)
    short[7] = 12
    played = [
        play_episodes(Unequal(length), actor, list(range(40)), torch.Generator().manual_seed(0))[7]
        for length in (short, long)
    ]
    assert played[0] == played[1]
