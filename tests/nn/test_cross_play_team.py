"""Stitched teams: every agent acts as it does in the team it comes from."""

import pytest
import torch

from momalit.nn.actors import TeamActor
from momalit.nn.cross_play_team import CrossPlayTeam
from momalit.policies.rollout import TeamRunner, initial_sequence


@pytest.mark.parametrize("task", ["icg", "reacher"])
@pytest.mark.parametrize("shared", [False, True])
def test_agents_act_as_they_do_at_home(task, shared, request):
    spec = request.getfixturevalue(task).spec
    actors = []
    for seed in range(3):
        torch.manual_seed(seed)
        actors.append(TeamActor(spec, width=8, gru_size=4, share_parameters=shared))
        torch.nn.init.normal_(actors[-1].head.weight)
    state = torch.randn(5, spec.state_size)
    now = initial_sequence(state, spec.n_agents, spec.action_size)
    stitched, homes = TeamRunner(CrossPlayTeam(actors, (2, 0)), None), [TeamRunner(actor, None) for actor in actors]
    for _ in range(3):  # memories grow apart as well
        decision = stitched.act(now)
        own = [home.act(now) for home in homes]
        for agent, home in ((0, 2), (1, 0)):
            torch.testing.assert_close(decision.action[:, agent], own[home].action[:, agent])
            torch.testing.assert_close(decision.log_prob[:, agent], own[home].log_prob[:, agent])


def test_a_team_of_one_home_is_that_team(reacher):
    actor = TeamActor(reacher.spec, width=8, gru_size=4)
    now = initial_sequence(torch.randn(5, reacher.spec.state_size), 2, 1)
    assert torch.equal(
        TeamRunner(CrossPlayTeam([actor], (0, 0)), None).act(now).action, TeamRunner(actor, None).act(now).action
    )
