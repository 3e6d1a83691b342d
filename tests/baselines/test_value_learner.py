"""Properties that all methods with value functions share."""

import lightning.pytorch as pl
import pytest
import torch

from momalit.baselines import ICQLModule, IOMARModule, IQLModule, ITD3BCModule, MAIQLModule
from momalit.core.errors import UserError
from momalit.training.checkpoints import load_module, read_checkpoint
from tests.baselines.logs import make_trainer, team

SMALL = {"width": 16, "batch_size": 32, "steps_per_epoch": 4}
CONTINUOUS = [IQLModule, MAIQLModule, ITD3BCModule, ICQLModule, IOMARModule]
DISCRETE = [IQLModule, MAIQLModule, ICQLModule]


def weights(module):
    return torch.cat([value.flatten().double() for value in module.state_dict().values()])


@pytest.mark.parametrize("gru_size", [0, 8])
@pytest.mark.parametrize("kind", CONTINUOUS)
def test_a_resumed_run_is_bit_for_bit_equal_to_an_uninterrupted_one(kind, gru_size, reacher, tmp_path):
    def train(epochs, checkpoint=None):
        pl.seed_everything(3, verbose=False)
        module = kind(reacher.spec, gru_size=gru_size, **SMALL)
        trainer = make_trainer(epochs)
        trainer.fit(module, datamodule=reacher, ckpt_path=checkpoint)
        return module, trainer

    uninterrupted, _ = train(3)
    part, trainer = train(1)
    trainer.save_checkpoint(tmp_path / "part.ckpt")
    read_checkpoint(tmp_path / "part.ckpt")  # tensors and plain values only
    resumed, _ = train(3, str(tmp_path / "part.ckpt"))
    assert torch.equal(weights(resumed), weights(uninterrupted))
    assert not torch.equal(weights(part), weights(uninterrupted))
    loaded = load_module(tmp_path / "part.ckpt", kind)
    assert torch.equal(weights(loaded), weights(part))


@pytest.mark.parametrize("kind", DISCRETE)
@pytest.mark.parametrize("gru_size", [0, 8])
def test_discrete_teams_train_and_predict(kind, gru_size, icg):
    module = kind(icg.spec, gru_size=gru_size, **SMALL)
    trainer = make_trainer(2)
    trainer.fit(module, datamodule=icg)
    assert trainer.global_step == 8
    (first, *_) = trainer.predict(module, datamodule=icg)
    assert first["action"].shape[1:] == (2, 2)
    assert bool((first["action"].sum(-1) == 1).all())


@pytest.mark.parametrize("kind", [ITD3BCModule, IOMARModule])
def test_methods_for_continuous_actions_reject_discrete_teams(kind, icg):
    with pytest.raises(UserError, match=rf"found {kind.__name__} for the discrete actions of icg, expected"):
        kind(icg.spec)


@pytest.mark.parametrize("kind", CONTINUOUS)
def test_every_trained_weight_is_in_the_loss(kind, reacher):
    """DistributedDataParallel requires it. TD3+BC is tested in a step that updates its policies."""
    module = kind(reacher.spec, gru_size=8, **SMALL, **({"policy_delay": 1} if kind is ITD3BCModule else {}))
    module.noise = torch.Generator().manual_seed(0)
    batch = reacher.train.segments(torch.arange(0, 200, 10), 2, 5)
    module.training_step(batch, 0).backward()
    for name, weight in module.named_parameters():
        target = "target" in name
        assert weight.requires_grad != (target or (module.deterministic and "raw_std" in name)), name
        assert (weight.grad is not None) == weight.requires_grad, name


def test_the_default_has_a_gru_only_if_an_agent_observes_part_of_the_state(reacher):
    assert MAIQLModule(reacher.spec, width=8).gru_size == 128
    assert MAIQLModule(reacher.spec, width=8, gru_size=0).gru_size == 0
    assert IQLModule(reacher.spec, width=8).gru_size == 0
    assert MAIQLModule(team(True), width=8).gru_size == 0


def test_target_networks_are_updated_by_polyak_averaging(reacher):
    module = MAIQLModule(reacher.spec, width=8, gru_size=0, target_update_rate=0.25)
    before = module.q_target.out.bias.clone()
    with torch.no_grad():
        module.q.out.bias += 1
    module.update_targets()
    torch.testing.assert_close(module.q_target.out.bias, before + 0.25)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("window", 0),
        ("steps_per_epoch", 0),
        ("discount", 1.0),
        ("target_update_rate", 0.0),
        ("gru_size", -1),
        ("expectile", 1.0),
    ],
)
def test_invalid_settings_raise_an_error_with_their_name(name, value):
    with pytest.raises(UserError, match=rf"model\.{name}: found {value}, expected"):
        MAIQLModule(team(True), **{name: value})


def test_a_loss_that_is_not_finite_stops_the_run(icg):
    module = MAIQLModule(icg.spec, **SMALL)
    module.actor.head.weight.data.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="MAIQL: policy is nan in epoch 0"):
        make_trainer(2).fit(module, datamodule=icg)
