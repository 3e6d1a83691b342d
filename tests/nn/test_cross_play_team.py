"""Cross-play teams: every agent acts as in the team that it comes from."""

import pytest
import torch

from momalit.nn.actors import TeamActor
from momalit.nn.cross_play_team import CrossPlayTeam
from momalit.policies.rollout import TeamRunner, initial_start


@pytest.mark.parametrize("task", ["icg", "reacher"])
@pytest.mark.parametrize("shared", [False, True])
def test_agents_act_as_in_their_own_team(task, shared, request):
    spec = request.getfixturevalue(task).spec
    actors = []
    for seed in range(3):
        torch.manual_seed(seed)
        actors.append(TeamActor(spec, width=8, gru_size=4, share_parameters=shared))
        torch.nn.init.normal_(actors[-1].head.weight)
    state = torch.randn(5, spec.state_size)
    sequence = initial_start(state, spec.n_agents, spec.action_size).now
    cross_play = TeamRunner(CrossPlayTeam(actors, (2, 0)), None)
    own_teams = [TeamRunner(actor, None) for actor in actors]
    for _ in range(3):  # the hidden states differ from the second step on
        decision = cross_play.act(sequence)
        own_decisions = [own_team.act(sequence) for own_team in own_teams]
        for agent, team in ((0, 2), (1, 0)):
            torch.testing.assert_close(decision.action[:, agent], own_decisions[team].action[:, agent])
            torch.testing.assert_close(decision.log_prob[:, agent], own_decisions[team].log_prob[:, agent])


def test_a_cross_play_team_of_one_team_acts_like_that_team(reacher):
    actor = TeamActor(reacher.spec, width=8, gru_size=4)
    sequence = initial_start(torch.randn(5, reacher.spec.state_size), 2, 1).now
    assert torch.equal(
        TeamRunner(CrossPlayTeam([actor], (0, 0)), None).act(sequence).action,
        TeamRunner(actor, None).act(sequence).action,
    )
