"""Evaluation: the seeds of the episodes, and their returns."""

import pytest
import torch

from callbacks import Evaluation
from callbacks.real_episodes import episode_seeds
from momalit.baselines import BCModule
from momalit.core.errors import UserError
from momalit.envs.vector_env import VectorTeamEnv
from momalit.policies.rollout import play_episodes
from momalit.training.forks import can_fork


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


def test_the_test_is_repeated_in_changed_worlds(team):
    worlds = {"the same": {}, "weak": {"dynamics": {"gear": 0.3}}, "seen": {"observability": "full"}}
    evaluation = Evaluation(test_episodes=7, changed=worlds)
    evaluation.require_worlds(team)
    returns = evaluation.in_changed_worlds(team)
    expected = evaluation.judge(team, "test", 7).returns
    assert torch.equal(returns["the same"], expected)
    assert not torch.equal(returns["weak"], expected)
    evaluation.use_cores(2)
    for name, again in evaluation.in_changed_worlds(team).items():
        assert torch.equal(again, returns[name])


def test_many_episodes_run_in_parts(team):
    evaluation = Evaluation()
    returns = evaluation.episode_returns(team, "test", 40)
    assert evaluation.real._env.n_rows == 20
    seeds = episode_seeds("test", 40)
    env = VectorTeamEnv(team.spec, 40)
    torch.testing.assert_close(play_episodes(env, team.actor, seeds), returns)


def test_steps_of_all_parts_are_recorded_over_time(team):
    judged = Evaluation().judge(team, "test", 40, record=True)
    assert [len(rewards) for rewards in judged.visits.rewards] == [40] * 50
    totals = torch.stack(judged.visits.rewards).double().sum(0).float()
    torch.testing.assert_close(totals, judged.returns)


@pytest.mark.parametrize("forks", [True, False])
def test_results_do_not_depend_on_the_number_of_workers(team, monkeypatch, forks):
    monkeypatch.setattr("callbacks.real_episodes.can_fork", lambda: forks and can_fork())
    several, alone = Evaluation(workers=3), Evaluation()
    for purpose, episodes in (("test", 40), ("validation", 3), ("test", 40)):
        found, expected = (e.judge(team, purpose, episodes, record=True) for e in (several, alone))
        assert torch.equal(found.returns, expected.returns)
        assert torch.equal(found.visits.visited, expected.visits.visited)
    if several.real._env is not None:
        several.real._env.close()


def test_only_built_in_tasks_use_all_cores_without_being_asked(team, monkeypatch):
    asked = []

    def count(first, tasks, processes):
        asked.append(processes)
        return first(), [task() for task in tasks]

    monkeypatch.setattr("callbacks.real_episodes.side_by_side", count)
    monkeypatch.setattr("callbacks.real_episodes.can_fork", lambda: True)
    for settings, tasks in (({}, True), ({"workers": 3}, True), ({}, False)):
        evaluation = Evaluation(**settings)
        evaluation.use_cores(8)
        with monkeypatch.context() as patch:
            patch.setattr("callbacks.real_episodes.TASKS", {"reacher": None} if tasks else {})
            evaluation.episode_returns(team, "test", 2)
    assert asked == [8, 3, 1]


def test_sampled_actions_do_not_depend_on_the_number_of_workers(team):
    several, alone = Evaluation(deterministic=False, workers=2), Evaluation(deterministic=False)
    assert torch.equal(several.episode_returns(team, "test", 40), alone.episode_returns(team, "test", 40))


@pytest.mark.parametrize("setting", ["episodes", "test_episodes", "imagined_episodes"])
def test_zero_episodes_raise_an_error(setting):
    with pytest.raises(UserError, match=rf"evaluation\.{setting}: found 0, expected at least 1"):
        Evaluation(**{setting: 0})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dynamics": {"mas": 2}}, r"evaluation\.changed\.odd: env\.dynamics: found 'mas', expected mass"),
        ({"dynamic": {"mass": 2}}, r"evaluation\.changed\.odd: env\.dynamic: not a setting of reacher"),
    ],
)
def test_worlds_that_cannot_be_made_raise_an_error(team, settings, message):
    with pytest.raises(UserError, match=message):
        Evaluation(changed={"odd": settings}).require_worlds(team)


def test_without_an_environment_there_is_nothing_to_change(team):
    message = r"evaluation\.changed: found odd, expected none, as there is no environment to change"
    with pytest.raises(UserError, match=message):
        Evaluation(environment=False, changed={"odd": {}}).require_worlds(team)
    assert not Evaluation(environment=False, changed={"odd": {}}).in_changed_worlds(team)


def test_zero_workers_raise_an_error():
    with pytest.raises(UserError, match=r"evaluation\.workers: found 0, expected an integer of at least 1"):
        Evaluation(workers=0)
