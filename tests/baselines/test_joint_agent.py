import dataclasses

import pytest
import torch

from momalit.baselines.joint_agent import JointActions, JointActor, joint_team_spec
from momalit.core.errors import UserError
from momalit.core.records import Sequence
from momalit.core.team import AgentSpec, TeamSpec
from momalit.nn.actors import TeamActor
from tests.analytic import masked_spec, split_target_spec


def test_continuous_actions_are_concatenated():
    spec = split_target_spec()
    joint, actions = joint_team_spec(spec), JointActions(spec)
    assert joint.agents == (AgentSpec("team", (0, 1), 3, (-1.0,) * 3, (1.0,) * 3),)
    action = torch.tensor([[[1.0, 2.0], [3.0, 0.0]]])
    assert actions.join(action).tolist() == [[[1.0, 2.0, 3.0]]]
    assert torch.equal(actions.split(actions.join(action)), action)


def test_a_discrete_joint_action_is_one_of_all_combinations():
    spec = masked_spec()
    actions = JointActions(spec)
    assert joint_team_spec(spec).action_size == 6
    one = torch.tensor([[[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]], [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], [[0.0] * 3, [0.0] * 3]])
    joint = actions.join(one)
    assert joint.squeeze(1).tolist() == [[0, 0, 0, 0, 0, 1], [0, 0, 1, 0, 0, 0], [0] * 6]
    assert torch.equal(actions.split(joint[:2]), one[:2])


def test_combinations_with_an_invalid_action_are_invalid():
    spec = masked_spec()
    actor = JointActor(spec, TeamActor(joint_team_spec(spec), 8, 0))
    state = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]).expand(1, 500, 4)
    policy, _ = actor(Sequence(state, torch.zeros(1, 500, 2, 3), torch.zeros(1, 500, dtype=torch.bool)))
    sampled = policy.sample(torch.Generator().manual_seed(0))
    assert sampled.shape == (1, 500, 2, 3)
    assert sampled[..., 0, 0].sum() == 0
    assert bool((sampled[..., 0, :].sum(1) > 0)[0, 1:].all())
    torch.testing.assert_close(
        policy.log_prob(sampled), torch.full((1, 500, 1), 4.0).reciprocal().log(), atol=0.1, rtol=0
    )
    assert policy.mode.sum((-1, -2)).eq(2).all()
    assert policy.entropy.shape == (1, 500, 1)


def test_too_many_combinations_raise_an_error():
    spec = masked_spec()
    many = tuple(dataclasses.replace(spec.agents[1], name=f"agent_{i}") for i in range(13))
    with pytest.raises(UserError, match=r"found 8,192 combinations .* expected at most 4,096"):
        joint_team_spec(TeamSpec("many", many, 4, True, 1, spec.sources))


def test_an_agent_without_a_legal_action_leaves_the_others_theirs():
    spec = masked_spec()
    agents = (spec.agents[0], dataclasses.replace(spec.agents[1], legal=(4, 5)))
    spec = TeamSpec("masked", agents, 6, True, 1, tuple(("state", i) for i in range(6)))
    actor = JointActor(spec, TeamActor(joint_team_spec(spec), 8, 0))
    state = torch.tensor([[[0.0, 0.0, 1.0, 1.0, 0.0, 0.0]]])
    policy, _ = actor(Sequence(state, torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, dtype=torch.bool)))
    probability = policy.joint.logits.exp().view(3, 2)
    assert float(probability[0].sum().detach()) < 1e-6
    assert bool((probability[1:] > 0.1).all())


@pytest.mark.parametrize("discrete", [False, True])
def test_who_has_left_does_nothing(discrete):
    bounds = ((), ()) if discrete else ((-1.0,), (1.0,))
    agents = tuple(AgentSpec(name, (0,), 2 if discrete else 1, *bounds, present=i) for i, name in enumerate("ab", 1))
    spec = TeamSpec("leaving", agents, 3, discrete, 1, tuple(("state", i) for i in range(3)))
    actor = JointActor(spec, TeamActor(joint_team_spec(spec), 8, 0))
    state = torch.tensor([[[0.3, 1.0, 0.0]]])
    policy, _ = actor(Sequence(state, torch.zeros(1, 1, 2, spec.action_size), torch.zeros(1, 1, dtype=torch.bool)))
    for action in (policy.mode, policy.sample(torch.Generator().manual_seed(0))):
        assert action[0, 0, 0].any()
        assert not action[0, 0, 1].any()
