"""Compares the distance to the dataset with hand-computed distances."""

import pytest
import torch

from momalit.core.trajectories import Trajectories
from momalit.envs.vector_env import VectorTeamEnv
from momalit.nn.actors import TeamActor
from momalit.policies.coverage import DataSupport, VisitRecorder, distance_to_data
from momalit.policies.rollout import play_episodes


def trajectories(states: list[float], actions: list[float]) -> Trajectories:
    """One-step episodes of one agent with one varying and one constant state dimension and one action component."""
    n = len(states)
    state = torch.tensor([[[value, 7.0], [0.0, 7.0]] for value in states]).flatten(0, 1)
    action = torch.tensor(actions).view(n, 1, 1)
    ends = torch.ones(n, dtype=torch.bool)
    return Trajectories.from_lengths(state, action, torch.zeros(n), ends, ~ends, torch.ones(n, dtype=torch.long))


def test_distance_equals_hand_computed_ratio():
    # Standard deviations of the training split: 2 in the state, 1 in the action.
    train = trajectories([-2.0, 2.0, -2.0, 2.0], [-1.0, -1.0, 1.0, 1.0])
    held_out = trajectories([0.0, 2.0], [1.0, 2.0])  # both are at distance 1 from the nearest neighbour
    visited = torch.tensor([[2.0, 7.0, 3.0], [6.0, 7.0, 1.0], [2.0, 7.0, 1.0]])  # distances 2, 2 and 0
    assert distance_to_data(visited, train, held_out) == pytest.approx(4 / 3)


def test_distance_is_none_without_visits_or_held_out_spread():
    train = trajectories([-2.0, 2.0], [-1.0, 1.0])
    assert distance_to_data(torch.zeros(0, 3), train, train) is None
    assert distance_to_data(torch.ones(2, 3), train, train) is None  # the held-out split duplicates the training split


def test_a_step_of_the_training_split_has_distance_zero():
    random = torch.Generator().manual_seed(0)
    values, actions = (torch.randn(500, generator=random).add(30).tolist() for _ in range(2))
    train = trajectories(values, actions)
    support = DataSupport(train, trajectories(values[:50], actions[:50]))
    assert not support.held_out.any()
    assert distance_to_data(torch.ones(2, 3), train, trajectories(values[:50], actions[:50])) is None


def test_an_accurate_imagination_of_repeated_steps_is_not_far():
    values, actions = [-2.0, 2.0] * 10, [-1.0, 1.0] * 10
    support = DataSupport(trajectories(values, actions), trajectories(values[:4], actions[:4]))
    visited = torch.tensor([[2.01, 7.0, 1.0], [2.0, 7.0, 0.99], [2.0, 7.0, -1.0], [1.0, 7.0, 1.0]])
    assert support.far(visited).tolist() == [False, False, True, True]


def test_recorder_keeps_states_and_actions_of_every_step(reacher):
    actor = TeamActor(reacher.spec, width=8, gru_size=4)
    env = VectorTeamEnv(reacher.spec, 3)
    returns = play_episodes(env, actor, [1, 2, 3])
    recorder = VisitRecorder().wrap(env)
    assert torch.equal(play_episodes(recorder, actor, [1, 2, 3]), returns)
    assert recorder.visited.shape == (3 * 50, reacher.spec.state_size + 2)
    assert torch.equal(recorder.visited[:3, : reacher.spec.state_size], env.reset([1, 2, 3]))
    assert len(recorder.visited.unique(dim=0)) == 150
