"""Evaluation: which episodes are played, and that all of them count."""

import pytest
import torch

from callbacks import Evaluation
from callbacks.evaluation import episode_seeds
from momalit.baselines import BCModule
from momalit.core.errors import UserError
from momalit.envs.vector_env import VectorTeamEnv
from momalit.policies.rollout import play_episodes


@pytest.fixture(scope="module")
def team(reacher):
    torch.manual_seed(0)
    return BCModule(reacher.spec, width=8, gru_size=4)


def test_validation_and_test_seeds_never_meet_and_more_episodes_begin_with_the_same():
    validation, test = episode_seeds("validation", 500), episode_seeds("test", 500)
    assert len(set(validation)) == len(set(test)) == 500
    assert not set(validation) & set(test)
    assert episode_seeds("test", 20) == test[:20]


def test_an_episode_depends_on_its_seed_alone(team):
    whole = Evaluation().play(team, "validation", 5)
    assert whole.shape == (5,)
    assert len(whole.unique()) == 5
    seeds = episode_seeds("validation", 5)
    for share in (slice(0, None, 2), slice(1, None, 2)):
        env = VectorTeamEnv(team.spec, len(seeds[share]))
        torch.testing.assert_close(play_episodes(env, team.actor, seeds[share]), whole[share])


def test_the_same_team_gets_the_same_returns_again(team):
    evaluation = Evaluation()
    first = evaluation.play(team, "test", 3)
    assert torch.equal(first, evaluation.play(team, "test", 3))
    assert not torch.equal(first, evaluation.play(team, "validation", 3))
    sampled = Evaluation(deterministic=False).play(team, "test", 3)
    assert not torch.equal(first, sampled)
    assert torch.equal(sampled, Evaluation(deterministic=False).play(team, "test", 3))


def test_workers_change_nothing(team):
    evaluation = Evaluation(workers=2)
    assert torch.equal(evaluation.play(team, "test", 5), Evaluation().play(team, "test", 5))
    first = evaluation._env
    assert torch.equal(evaluation.play(team, "validation", 3), Evaluation().play(team, "validation", 3))
    assert not any(process.is_alive() for process in first._workers._processes)
    evaluation._env.close()


@pytest.mark.parametrize("setting", ["episodes", "test_episodes"])
def test_no_episodes_are_refused(setting):
    with pytest.raises(UserError, match=rf"Evaluation\.{setting}: found 0, expected at least 1"):
        Evaluation(**{setting: 0})


def test_no_workers_are_refused():
    with pytest.raises(UserError, match=r"Evaluation\.workers: found 0, expected an integer of at least 1"):
        Evaluation(workers=0)
