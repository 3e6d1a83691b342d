"""Where imagined rollouts start, and which of them continue in the next iteration."""

from types import SimpleNamespace

import pytest
import torch

from momalit.core.errors import UserError
from momalit.policies.moma_ppo import MOMAPPOModule

SMALL = {"horizon": 10, "n_rollouts": 64, "burn_in": 2, "width": 32, "gru_size": 16, "lr": 3e-3}


def test_start_states_come_from_all_steps_with_their_real_history(data, world_model):
    module = MOMAPPOModule(data.spec, **{**SMALL, "burn_in": 3, "horizon": 1})
    module.prepare(world_model, None)
    module._trainer = SimpleNamespace(datamodule=data)
    rollout = module.make_rollout(2000, torch.Generator().manual_seed(0))
    # One start in ten is an episode's first step, without history and previous action.
    first = ~rollout.keep[0]
    assert 0.07 < first.float().mean() < 0.13
    assert rollout.state[0, first].abs().max() == 0
    assert rollout.previous_action[0, first].abs().max() == 0
    # In this game the state equals the previous joint action.
    late = rollout.keep[0]
    torch.testing.assert_close(rollout.state[0, late].unflatten(-1, (2, 2)), rollout.previous_action[0, late])


def test_initial_state_fraction_of_starts_are_first_steps(data, world_model):
    module = MOMAPPOModule(data.spec, **{**SMALL, "horizon": 1, "initial_state_fraction": 0.5})
    module.prepare(world_model, None)
    module._trainer = SimpleNamespace(datamodule=data)
    rollout = module.make_rollout(2000, torch.Generator().manual_seed(0))
    # One in ten of the others is a first step, too.
    assert float((~rollout.keep[0]).float().mean()) == pytest.approx(0.55, abs=0.04)


@pytest.mark.parametrize("time_limit", ["bootstrap", "end"])
def test_whole_episodes_begin_with_the_first_step_and_may_end_at_the_time_limit(data, world_model, time_limit):
    module = MOMAPPOModule(data.spec, **SMALL, initial_state_fraction=1.0, time_limit=time_limit)
    module.prepare(world_model, None)
    module._trainer = SimpleNamespace(datamodule=data)
    rollout = module.make_rollout(100, torch.Generator().manual_seed(0))
    assert not rollout.keep[0].any()
    assert not rollout.truncated[:-1].any()
    assert torch.equal(rollout.truncated[-1], rollout.valid[-1] & (time_limit == "end"))


@pytest.mark.parametrize("burn_in", [0, 2])
def test_rollouts_continue_unless_ended_or_reset(data, world_model, burn_in):
    settings = {**SMALL, "n_rollouts": 1000, "horizon": 4, "reset_fraction": 0.25, "burn_in": burn_in}
    module = MOMAPPOModule(data.spec, **settings)
    module.prepare(world_model, None)
    module._trainer = SimpleNamespace(datamodule=data)
    random = torch.Generator().manual_seed(0)
    first = module.make_rollout(1000, random)
    ended = first.terminated.any(0) | first.stopped.any(0)
    module.unfinished = module.with_advantages(first).end
    second = module.make_rollout(1000, random)
    # Those that continue keep the hidden states of actors and critic, and with them state and previous action.
    continues = (second.hidden_state == module.unfinished.hidden_state).transpose(0, 1).flatten(1).all(-1)
    assert not continues[ended].any()
    assert float(continues[~ended].float().mean()) == pytest.approx(0.75, abs=0.05)
    for name in ("state", "previous_action", "keep"):
        assert torch.equal(getattr(second, name)[0, continues], getattr(first, name)[-1, continues])


def test_starts_are_in_the_best_episodes(data, world_model):
    module = MOMAPPOModule(data.spec, **{**SMALL, "horizon": 1, "start_top_fraction": 0.1})
    module.prepare(world_model, None)
    module._trainer = SimpleNamespace(datamodule=data)
    rollout = module.make_rollout(500, torch.Generator().manual_seed(0))
    train = data.train
    best = train.select(train.best_episodes(0.1))
    assert len(best.lengths) == round(0.1 * len(train.lengths))
    assert best.returns.min() >= train.returns.sort(descending=True).values[len(best.lengths)]
    different = (rollout.state[0][:, None] - best.state[None]).abs().amax(-1).amin(1)
    assert different.max() == 0


def test_the_reset_fraction_falls_to_its_final_value(data):
    module = MOMAPPOModule(data.spec, **{**SMALL, "reset_fraction": 0.5, "final_reset_fraction": 0.02})
    found = []
    for epoch in (0, 30, 60, 90):
        module._trainer = SimpleNamespace(max_epochs=100, current_epoch=epoch)
        found.append(module.reset_fraction)
    assert found == pytest.approx([0.5, 0.1, 0.02, 0.02])
    constant = MOMAPPOModule(data.spec, **{**SMALL, "reset_fraction": 0.5})
    assert constant.reset_fraction == 0.5


@pytest.mark.parametrize(
    ("name", "fraction"),
    [
        ("reset_fraction", 0.0), ("reset_fraction", 1.5), ("initial_state_fraction", -0.1),
        ("final_reset_fraction", 0.0), ("start_top_fraction", 2.0),
    ],
)  # fmt: skip
def test_fraction_outside_its_range_is_rejected(data, name, fraction):
    with pytest.raises(UserError, match=rf"model.{name}: found {fraction}, expected a number"):
        MOMAPPOModule(data.spec, **{**SMALL, name: fraction})
