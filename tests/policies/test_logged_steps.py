"""Steps of the log beside imagined ones."""

from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch

from momalit.core.errors import UserError
from momalit.policies.moma_ppo import MOMAPPOModule

SMALL = {"horizon": 4, "n_rollouts": 32, "burn_in": 2, "width": 16, "gru_size": 8}


def prepared(data, world_model, **settings) -> MOMAPPOModule:
    pl.seed_everything(0, verbose=False)
    module = MOMAPPOModule(data.spec, **{**SMALL, "imitation_fraction": 0.5, **settings})
    module.prepare(world_model, None)
    module._trainer = SimpleNamespace(datamodule=data, current_epoch=0, global_rank=0, world_size=1)
    return module


def practised(module):
    """What an iteration imagines, and the same with logged steps beside it."""
    imagined = module.with_advantages(module.make_rollout(32, torch.Generator().manual_seed(0)))
    return imagined, module.with_logged_steps(imagined, torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"burn_in": 0},
        {"gru_size": 0},
        {"mixer": "none"},
        {"burn_in": 0, "reset_fraction": 0.5},
        {"horizon": 10, "initial_state_fraction": 1.0, "time_limit": "end"},
    ],
    ids=str,
)
def test_logged_rows_are_windows_of_the_log_under_the_present_policies(data, world_model, settings):
    module = prepared(data, world_model, **settings)
    imagined, both = practised(module)
    assert (imagined.n_rows, both.n_rows) == (32, 48)
    for name in ("state", "action", "reward", "advantage", "valid"):
        assert torch.equal(getattr(both, name)[:, :32], getattr(imagined, name))
    assert not both.logged[:, :32].any()
    assert both.logged[0, 32:].all()
    assert not both.valid[:, 32:].any()
    logged = both.rows(torch.arange(32, 48))
    # In this game the next state is the joint action, so what follows is what the log says.
    following = logged.state[1:].unflatten(-1, logged.action.shape[-2:])
    torch.testing.assert_close(following[logged.logged], logged.action[logged.logged])
    assert (logged.advantage[logged.logged] >= 0).all()
    assert logged.advantage.any()
    # From its hidden states the first update finds the same probabilities, so that no ratio is clipped.
    module.pop_means()
    module.training_step(both, 0)
    assert float(module.pop_means()["policy/clip_fraction"]) == 0
    now = both.sequence.span(0, -1)
    policy = module.actor.distribution(module._hidden_states(now, both.hidden_state)["actor"], now.state)
    torch.testing.assert_close(policy.log_prob(both.action)[both.logged], both.log_prob[both.logged])


def test_a_logged_joint_action_is_worth_its_reward_and_what_the_team_makes_of_it(data, world_model):
    """A critic that values every state 3 is surprised by r + γ 3 - 3 > 0, and by r - 3 where the time limit counts."""
    module = prepared(data, world_model, horizon=10, initial_state_fraction=1.0, time_limit="end", discount=0.9)
    imagined = module.with_advantages(module.make_rollout(32, torch.Generator().manual_seed(0)))
    with torch.no_grad():
        for parameter in module.critic.parameters():
            parameter.zero_()
    module.critic.scale.first.copy_(3.0 * module.critic.scale.weight)
    logged = module.with_logged_steps(imagined, torch.Generator().manual_seed(1)).rows(torch.arange(32, 48))
    assert logged.logged.all()
    assert torch.equal(logged.advantage[:-1] > 0, logged.reward[:-1] > 0.3)
    assert 0 < float((logged.reward > 0.3).float().mean()) < 1
    assert not logged.advantage[-1].any()


def test_the_critic_learns_nothing_from_logged_steps(data, world_model):
    module = prepared(data, world_model)
    imagined, both = practised(module)
    gradients = []
    for rollout in (imagined, both):
        module.zero_grad()
        module.training_step(rollout, 0).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in module.critic.parameters() if p.grad is not None]))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_the_policies_make_better_logged_actions_likelier(data, world_model):
    module = prepared(data, world_model)
    _, both = practised(module)
    logged = both.rows(torch.arange(32, 48))
    module.zero_grad()
    now = both.sequence.span(0, -1)
    hidden_state = module._hidden_states(now, both.hidden_state)["actor"]
    loss = module._actor_loss(both, module.actor.distribution(hidden_state, now.state))
    loss.backward()
    with torch.no_grad():
        for parameter in module.actor.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    now = logged.sequence.span(0, -1)
    policy = module.actor.distribution(module._hidden_states(now, logged.hidden_state)["actor"], now.state)
    change = (policy.log_prob(logged.action) - logged.log_prob).sum(-1) * logged.advantage
    assert float(change.detach().sum()) > 0


def test_the_fraction_is_checked(data):
    with pytest.raises(UserError, match=r"model\.imitation_fraction: found 2, expected a number from 0 to 1"):
        MOMAPPOModule(data.spec, **SMALL, imitation_fraction=2)
