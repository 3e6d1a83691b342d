"""The distance from the data, against distances worked out by hand."""

import pytest
import torch

from momalit.core.trajectories import Trajectories
from momalit.envs.vector_env import VectorTeamEnv
from momalit.nn.actors import TeamActor
from momalit.policies.coverage import VisitRecorder, distance_to_data
from momalit.policies.rollout import play_episodes


def trajectories(states: list[float], actions: list[float]) -> Trajectories:
    """One-step episodes of one agent with one state dimension (and one that never changes) and one action."""
    n = len(states)
    state = torch.tensor([[[value, 7.0], [0.0, 7.0]] for value in states]).flatten(0, 1)
    action = torch.tensor(actions).view(n, 1, 1)
    ends = torch.ones(n, dtype=torch.bool)
    return Trajectories.from_lengths(state, action, torch.zeros(n), ends, ~ends, torch.ones(n, dtype=torch.long))


def test_distances_by_hand():
    # Deviations of the training split: 2 in the state, 1 in the action.
    train = trajectories([-2.0, 2.0, -2.0, 2.0], [-1.0, -1.0, 1.0, 1.0])
    held_out = trajectories([0.0, 2.0], [1.0, 2.0])  # both are 1 from the nearest
    visited = torch.tensor([[2.0, 7.0, 3.0], [6.0, 7.0, 1.0], [2.0, 7.0, 1.0]])  # 2, 2 and 0
    assert distance_to_data(visited, train, held_out) == pytest.approx(4 / 3)


def test_nothing_to_compare_with_gives_nothing():
    train = trajectories([-2.0, 2.0], [-1.0, 1.0])
    assert distance_to_data(torch.zeros(0, 3), train, train) is None
    assert distance_to_data(torch.ones(2, 3), train, train) is None  # what is held out repeats the log


def test_visits_are_the_states_and_actions_of_every_step(reacher):
    actor = TeamActor(reacher.spec, width=8, gru_size=4)
    env = VectorTeamEnv(reacher.spec, 3)
    returns = play_episodes(env, actor, [1, 2, 3])
    watched = VisitRecorder().of(env)
    assert torch.equal(play_episodes(watched, actor, [1, 2, 3]), returns)
    assert watched.visited.shape == (3 * 50, reacher.spec.state_size + 2)
    assert torch.equal(watched.visited[:3, : reacher.spec.state_size], env.reset([1, 2, 3]))
    assert len(watched.visited.unique(dim=0)) == 150
