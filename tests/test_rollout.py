"""Rollouts: alignment of their parts, and the consistency of memory between acting and learning."""

import pytest
import torch

from momalit.envs import make_env
from momalit.envs.spec import team_spec
from momalit.envs.vector import VectorTeamEnv
from momalit.nn.actors import TeamActor
from momalit.ppo import _split
from momalit.records import Trajectories
from momalit.rollout import collect_rollout, first_times
from tests import analytic


def recorded(spec, lengths=(5, 3, 7)) -> Trajectories:
    """Real-looking history of random numbers."""
    n, states = sum(lengths), sum(lengths) + len(lengths)
    end = torch.zeros(n, dtype=torch.bool)
    action = torch.rand(n, spec.n_agents, spec.action_size) * spec.action_mask()
    return Trajectories.from_lengths(
        torch.randn(states, spec.state_size), action, torch.randn(n), end, end, torch.tensor(lengths)
    )


def relearned_log_prob(actor, rollout):
    """Log-probabilities as the update computes them: burn-in, then the whole sequence."""
    past, now = _split(rollout)
    memory = actor.remember(past)[:, -1] if past.state.shape[0] else None
    return actor(now, memory)[0].log_prob(rollout.action)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("history", [0, 1, 4])
def test_update_sees_the_probabilities_that_acted_after_real_history(history, shared):
    torch.manual_seed(0)
    spec = analytic.split_target_spec()
    actor, data = TeamActor(spec, 16, 8, shared), recorded(spec)
    # Every transition is a start: at the first step of an episode, near it, and with a full history.
    start = data.sequence(torch.arange(len(data)), history)
    env = analytic.SplitTarget(spec, len(data), 0)
    rollout = collect_rollout(env, actor, start, 4, torch.Generator().manual_seed(1))
    assert rollout.burn_in == history
    torch.testing.assert_close(relearned_log_prob(actor, rollout), rollout.log_prob, rtol=1e-4, atol=1e-5)


def test_history_before_an_episode_does_not_leak_into_its_first_step():
    torch.manual_seed(0)
    spec = analytic.split_target_spec()
    actor, data = TeamActor(spec, 16, 8), recorded(spec)
    long, none = (actor.remember(data.sequence(data.first, h))[:, -1] for h in (4, 0))
    torch.testing.assert_close(long, none)


def test_memory_starts_afresh_where_a_real_episode_begins_within_a_rollout():
    torch.manual_seed(0)
    spec = team_spec(make_env("icg", horizon=3), "icg", {"horizon": 3})
    env, actor = VectorTeamEnv(spec, 4, autoreset=True), TeamActor(spec, 16, 8)
    start = first_times(env.reset([1, 2, 3, 4]), spec.n_agents, spec.action_size)
    rollout = collect_rollout(env, actor, start, 10, torch.Generator().manual_seed(0))
    assert rollout.valid[:, 0].tolist() == [True, True, True, False] * 2 + [True, True]
    assert rollout.truncated[:, 0].tolist() == [False, False, True, False] * 2 + [False, False]
    # The state after the invalid step is the first of the next episode: memory and previous action are cleared.
    assert rollout.keep[:, 0].tolist() == [False, True, True, True, False, True, True, True, False, True, True]
    assert not rollout.previous_action[4].any()
    torch.testing.assert_close(relearned_log_prob(actor, rollout), rollout.log_prob, rtol=1e-4, atol=1e-5)


def test_parts_of_a_rollout_are_aligned():
    spec = analytic.split_target_spec()
    env, actor = analytic.SplitTarget(spec, 3, 0), TeamActor(spec, 16, 8)
    rollout = collect_rollout(env, actor, env.start(), 6, torch.Generator().manual_seed(1))
    taken = actor.clip(rollout.action)
    torch.testing.assert_close(rollout.previous_action[1:], taken)
    miss = taken[:, :, 0, 0] + taken[:, :, 1, 0] - rollout.state[:-1].sum(-1)
    expected = -miss.square() - 0.1 * taken[:, :, 0, 1].square()
    torch.testing.assert_close(rollout.reward[:4], expected[:4])
    assert rollout.valid.sum(0).tolist() == [4, 4, 4]
    assert not taken[:, :, 1, 1].any()  # the padded component of the smaller agent


def test_same_generator_same_rollout():
    spec = analytic.split_target_spec()
    actor = TeamActor(spec, 16, 8)
    runs = []
    for seed in (5, 5, 6):
        env = analytic.SplitTarget(spec, 3, 0)
        runs.append(collect_rollout(env, actor, env.start(), 4, torch.Generator().manual_seed(seed)))
    assert torch.equal(runs[0].action, runs[1].action)
    assert not torch.equal(runs[0].action, runs[2].action)
