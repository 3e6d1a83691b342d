"""Behaviour cloning recovers the policies that generated the dataset."""

import dataclasses

import lightning.pytorch as pl
import pytest
import torch

from momalit.baselines import BCModule
from momalit.core.errors import UserError
from momalit.core.records import Sequence
from momalit.core.team import AgentSpec, TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.training.checkpoints import load_module
from tests.baselines.logs import Recorded, make_trainer

LENGTH = 6


@pytest.fixture(scope="module")
def data():
    """Agent a outputs half its observation. The two components of b are ± its observation at the first step."""
    agents = (AgentSpec("a", (0,), 1, (-1.0,), (1.0,)), AgentSpec("b", (1,), 2, (-2.0, -2.0), (2.0, 2.0)))
    spec = TeamSpec("toy", agents, 2, False, LENGTH, (("state", 0), ("state", 1)))
    random = torch.Generator().manual_seed(0)
    episodes = 300
    state = torch.rand(episodes, LENGTH + 1, 2, generator=random) * 2 - 1
    action = torch.zeros(episodes, LENGTH, 2, 2)
    action[:, :, 0, 0] = 0.5 * state[:, :-1, 0]
    action[:, :, 1, 0] = state[:, :1, 1]
    action[:, :, 1, 1] = -state[:, :1, 1]
    action = action + 0.1 * torch.randn(action.shape, generator=random) * spec.action_mask()
    no = torch.zeros(episodes * LENGTH, dtype=torch.bool)
    train = Trajectories.from_lengths(
        state.flatten(0, 1), action.flatten(0, 1), no.float(), no, no, torch.full((episodes,), LENGTH)
    )
    return Recorded(spec, train)


@pytest.fixture(scope="module")
def cloned(data):
    pl.seed_everything(0, verbose=False)
    module = BCModule(data.spec, width=32, gru_size=16, window=3, burn_in=3, batch_size=16, lr=5e-3, min_std=0.02)
    trainer = make_trainer(30)
    trainer.fit(module, datamodule=data)
    return module, trainer


def test_bc_recovers_the_mean_the_history_dependence_and_the_noise_of_the_data(cloned):
    module, _ = cloned
    state = torch.rand(LENGTH, 200, 2, generator=torch.Generator().manual_seed(1)) * 1.8 - 0.9
    expected = torch.zeros(LENGTH, 200, 2, 2)
    expected[..., 0, 0] = 0.5 * state[..., 0]
    expected[..., 1, 0], expected[..., 1, 1] = state[0, :, 1], -state[0, :, 1]
    previous = torch.cat([torch.zeros(1, 200, 2, 2), expected[:-1]])
    keep = torch.ones(LENGTH, 200, dtype=torch.bool)
    keep[0] = False
    policy, _ = module.actor(Sequence(state, previous, keep))
    error = (policy.mode - expected).square().mean((0, 1)).sqrt()
    assert error.max() < 0.1
    assert error[0, 1] == 0
    torch.testing.assert_close(module.actor.log_std.exp()[1], torch.full((2,), 0.1), atol=0.04, rtol=0)


def test_burn_in_steps_and_invalid_steps_are_not_in_the_loss(data):
    module = BCModule(data.spec, width=8, gru_size=4, window=4, burn_in=2)
    batch = data.train.windows(torch.tensor([0, 3, LENGTH - 1]), 2, 4)
    assert batch.valid.sum(0).tolist() == [4, 3, 1]
    loss = module.training_step(batch, 0).detach()
    action = torch.where(batch.valid[..., None, None], batch.action, 99.0)
    changed = type(batch)(batch.sequence, action, batch.valid)
    torch.testing.assert_close(module.training_step(changed, 0).detach(), loss)
    # By hand: the mean over valid steps and agents of the negative log-likelihood.
    policy, _ = module.actor(batch.sequence)
    log_prob = policy.log_prob(torch.cat([torch.zeros(2, 3, 2, 2), batch.action]))[2:]
    torch.testing.assert_close(loss, -log_prob[batch.valid].mean().detach())


def test_only_the_best_episodes_are_cloned(data):
    episode = torch.arange(300).repeat_interleave(LENGTH)
    rewarded = dataclasses.replace(data.train, reward=(episode % 10 == 0).float())
    module = BCModule(data.spec, width=8, gru_size=4, top_fraction=0.1)
    module._trainer = make_trainer(1)
    module._trainer.datamodule = Recorded(data.spec, rewarded)
    module.setup("fit")
    assert len(module.training_data.lengths) == 30
    assert bool((module.training_data.reward == 1).all())
    torch.testing.assert_close(module.training_data.state[:7], data.train.state[:7])
    torch.testing.assert_close(module.actor.inputs.standardizer.mean, data.train.state.mean(0))


def test_an_epoch_has_about_as_many_steps_as_the_dataset(data):
    module = BCModule(data.spec, width=8, gru_size=4, window=3, batch_size=16)
    trainer = make_trainer(1)
    trainer.fit(module, datamodule=data)
    # Of the 8 windows of an episode of 6 steps, which have 18 in all, 8/3 have as many as the episode.
    assert trainer.global_step == len(data.train.lengths) * 8 // (3 * 16)


def test_a_loaded_checkpoint_gives_the_same_policies(cloned, data, tmp_path):
    module, trainer = cloned
    trainer.save_checkpoint(tmp_path / "bc.ckpt")
    loaded = load_module(tmp_path / "bc.ckpt", BCModule)
    sequence = data.train.sequence(torch.arange(50), 3)
    assert torch.equal(loaded.actor(sequence)[0].mode, module.actor(sequence)[0].mode)


def test_a_loss_that_is_not_finite_stops_the_run(data):
    module = BCModule(data.spec, width=8, gru_size=4)
    module.actor.head.weight.data.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=r"BC: loss is nan in epoch 0, and so are the weights actor\."):
        make_trainer(2).fit(module, datamodule=data)


@pytest.mark.parametrize(("name", "value"), [("window", 0), ("batch_size", 0), ("burn_in", -1)])
def test_invalid_settings_raise_an_error_with_their_name(data, name, value):
    with pytest.raises(UserError, match=rf"model\.{name}: found {value}, expected at least"):
        BCModule(data.spec, **{name: value})
