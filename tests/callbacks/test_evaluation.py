"""Evaluation: the seeds of the episodes, and their returns."""

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


def test_validation_and_test_seeds_are_disjoint_and_do_not_depend_on_the_number_of_episodes():
    validation, test = episode_seeds("validation", 500), episode_seeds("test", 500)
    assert len(set(validation)) == len(set(test)) == 500
    assert not set(validation) & set(test)
    assert episode_seeds("test", 20) == test[:20]


def test_the_return_of_an_episode_depends_only_on_its_seed(team):
    returns = Evaluation().episode_returns(team, "validation", 5)
    assert returns.shape == (5,)
    assert len(returns.unique()) == 5
    seeds = episode_seeds("validation", 5)
    for part in (slice(0, None, 2), slice(1, None, 2)):
        env = VectorTeamEnv(team.spec, len(seeds[part]))
        torch.testing.assert_close(play_episodes(env, team.actor, seeds[part]), returns[part])


def test_returns_are_reproducible(team):
    evaluation = Evaluation()
    first = evaluation.episode_returns(team, "test", 3)
    assert torch.equal(first, evaluation.episode_returns(team, "test", 3))
    assert not torch.equal(first, evaluation.episode_returns(team, "validation", 3))
    sampled = Evaluation(deterministic=False).episode_returns(team, "test", 3)
    assert not torch.equal(first, sampled)
    assert torch.equal(sampled, Evaluation(deterministic=False).episode_returns(team, "test", 3))


def test_many_episodes_run_one_part_after_the_other(team, monkeypatch):
    expected = Evaluation().episode_returns(team, "test", 5)
    monkeypatch.setattr("callbacks.evaluation.MOST_ROWS", 2)
    evaluation = Evaluation()
    torch.testing.assert_close(evaluation.episode_returns(team, "test", 5), expected)
    assert evaluation._env.n_rows == 1


def test_returns_do_not_depend_on_the_number_of_workers(team):
    evaluation = Evaluation(workers=2)
    assert torch.equal(evaluation.episode_returns(team, "test", 5), Evaluation().episode_returns(team, "test", 5))
    first = evaluation._env
    assert torch.equal(
        evaluation.episode_returns(team, "validation", 3), Evaluation().episode_returns(team, "validation", 3)
    )
    assert not any(process.is_alive() for process in first._workers._processes)
    evaluation._env.close()


@pytest.mark.parametrize("setting", ["episodes", "test_episodes", "imagined_episodes"])
def test_zero_episodes_raise_an_error(setting):
    with pytest.raises(UserError, match=rf"evaluation\.{setting}: found 0, expected at least 1"):
        Evaluation(**{setting: 0})


def test_zero_workers_raise_an_error():
    with pytest.raises(UserError, match=r"evaluation\.workers: found 0, expected an integer of at least 1"):
        Evaluation(workers=0)
