"""Training of the world model on a linear system with known dynamics and noise."""

import math
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch

from momalit.core.errors import UserError
from momalit.core.team import AgentSpec, TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.functional.uncertainty import ensemble_covariance_norm
from momalit.training.checkpoints import load_module
from momalit.world_model.module import WorldModelModule
from tests.tiny import make_data_and_module

NOISE, REWARD_NOISE, LENGTH, BORDER = 0.05, 0.1, 40, 0.7


def make_spec(task="linear"):
    agents = (
        AgentSpec("a", (0, 3), 1, (-1.0,), (1.0,)),
        AgentSpec("b", (1, 2), 2, (-1.0, -1.0), (1.0, 1.0)),
    )
    return TeamSpec(task, agents, 4, False, LENGTH, tuple(("state", i) for i in range(4)))


def dynamics(state, action):
    """Two coupled columns driven by both agents, a constant third column and a step counter as the fourth."""
    x, y = state[:, 0], state[:, 1]
    a, b, c = action[:, 0, 0], action[:, 1, 0], action[:, 1, 1]
    change = torch.stack([-0.1 * x + 0.2 * y + 0.3 * a, -0.2 * x - 0.1 * y + 0.3 * b, 0 * x, 0 * x + 1], 1)
    return state + change, x + 0.5 * c


def trajectories(episodes, seed):
    """Episodes with random actions, which terminate when the first column exceeds BORDER."""
    random = torch.Generator().manual_seed(seed)
    states, actions, rewards, ends, lengths = [], [], [], [], []
    for _ in range(episodes):
        state = torch.cat([torch.rand(1, 2, generator=random) - 0.5, torch.tensor([[7.0, 0.0]])], 1)
        states.append(state)
        for _ in range(LENGTH):
            action = (torch.rand(1, 2, 2, generator=random) * 2 - 1) * torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
            state, reward = dynamics(state, action)
            state[:, :2] += NOISE * torch.randn(1, 2, generator=random)
            states.append(state)
            actions.append(action)
            rewards.append(reward + REWARD_NOISE * torch.randn(1, generator=random))
            ends.append(bool(state[0, 0] > BORDER))
            if ends[-1]:
                break
        lengths.append(len(actions) - sum(lengths))
    terminated = torch.tensor(ends)
    return Trajectories.from_lengths(
        torch.cat(states), torch.cat(actions), torch.cat(rewards), terminated, torch.zeros_like(terminated),
        torch.tensor(lengths),
    )  # fmt: skip


class InMemoryDataModule(pl.LightningDataModule):
    """Splits passed as trajectories."""

    def __init__(self, spec, train, validation, test):
        super().__init__()
        self.spec, self.train, self.validation, self.test = spec, train, validation, test
        self.dataset = "linear/test"

    def train_dataloader(self):
        return self.trainer.lightning_module.train_dataloader()

    def val_dataloader(self):
        return self.trainer.lightning_module.val_dataloader()

    def test_dataloader(self):
        return self.trainer.lightning_module.test_dataloader()

    def predict_dataloader(self):
        return self.trainer.lightning_module.predict_dataloader()


def make_trainer(epochs):
    return pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def data():
    return InMemoryDataModule(make_spec(), trajectories(300, 0), trajectories(20, 1), trajectories(50, 2))


@pytest.fixture(scope="module")
def trained(data):
    pl.seed_everything(0, verbose=False)
    module = WorldModelModule(data.spec, n_members=4, n_elites=3, width=32, n_blocks=1, lr=3e-3, patience=10)
    trainer = make_trainer(25)
    trainer.fit(module, datamodule=data)
    return module, trainer


@pytest.fixture(scope="module")
def test_batch(data):
    return data.test.transitions(torch.arange(len(data.test)))


def test_predicted_means_approach_the_noise_free_dynamics(trained, test_batch):
    model = trained[0].world_model()
    outcome = model.space.target.inverse(model(test_batch.state, test_batch.action).mean.mean(0))
    next_state, reward = dynamics(test_batch.state, test_batch.action)
    # Compared with the noise-free dynamics, the error is below a third of the noise.
    error = (test_batch.state + outcome[:, :-1] - next_state)[:, :2].square().mean(0).sqrt()
    assert error.max() < NOISE / 3
    assert (outcome[:, -1] - reward).square().mean().sqrt() < REWARD_NOISE / 3


def test_predicted_variances_are_calibrated(trained, test_batch):
    model = trained[0].world_model()
    prediction = model(test_batch.state, test_batch.action)
    std = (0.5 * prediction.log_variance).exp() * model.space.target.std
    mean_std = std.mean((0, 1))
    torch.testing.assert_close(mean_std[:2], torch.full((2,), NOISE), rtol=0.25, atol=0)
    torch.testing.assert_close(mean_std[-1], torch.tensor(REWARD_NOISE), rtol=0.25, atol=0)


def test_constant_targets_are_predicted_exactly_with_zero_variance(trained, test_batch):
    model = trained[0].world_model()
    assert model.space.target.varies.tolist() == [True, True, False, False, True]
    prediction = model(test_batch.state * 5, test_batch.action)
    outcome = model.space.target.inverse(prediction.mean)
    assert torch.equal(outcome[..., 2], torch.zeros_like(outcome[..., 2]))
    assert torch.equal(outcome[..., 3], torch.ones_like(outcome[..., 3]))
    assert prediction.log_variance[..., 2:4].exp().max() == 0


def test_terminations_are_learned(trained, test_batch):
    model = trained[0].world_model()
    predicted = model(test_batch.state, test_batch.action).termination > 0
    next_state, _ = dynamics(test_batch.state, test_batch.action)
    # States close to the border are excluded: the noise decides whether they terminate.
    inside, outside = next_state[:, 0] < BORDER - 0.15, next_state[:, 0] > BORDER + 0.1
    assert outside.sum() > 10
    assert predicted[:, inside].float().mean() < 0.01
    assert predicted[:, outside].float().mean() > 0.9


def test_disagreement_is_larger_outside_the_data(trained, test_batch):
    model = trained[0].world_model()
    inside = ensemble_covariance_norm(model(test_batch.state, test_batch.action).mean)
    distant = test_batch.state.clone()
    distant[:, :2] += 8
    outside = ensemble_covariance_norm(model(distant, test_batch.action).mean)
    assert outside.median() > 10 * inside.median()


def test_elites_are_the_members_with_the_smallest_validation_error(trained, data):
    module, _ = trained
    batch = data.validation.transitions(torch.arange(len(data.validation)))
    x = module.space.input(module.space.raw_input(batch.state, batch.action))
    y = module.space.target(module.space.raw_target(batch))
    mean = module.best_network(x.expand(4, *x.shape)).mean
    error = ((mean - y) * module.space.target.varies).square().mean(1) @ module.weights
    # ``best_error`` is the error of the saved weights.
    torch.testing.assert_close(error, module.best_error)
    assert module.elites.tolist() == error.argsort()[:3].tolist()
    model = module.world_model()
    assert model.n_elites == 3
    torch.testing.assert_close(model(batch.state, batch.action).mean, mean[module.elites] * model.space.target.varies)


def test_the_world_model_is_frozen(trained):
    model = trained[0].world_model()
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.train().training


def test_a_loaded_checkpoint_predicts_the_same(trained, test_batch, tmp_path):
    module, trainer = trained
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = load_module(tmp_path / "model.ckpt", WorldModelModule)
    for a, b in zip(module.world_model()(test_batch.state, test_batch.action),
                    loaded.world_model()(test_batch.state, test_batch.action), strict=True):  # fmt: skip
        assert torch.equal(a, b)


def test_metrics_and_predictions_cover_the_test_split(trained, data, test_batch):
    module, trainer = trained
    (metrics,) = trainer.test(module, datamodule=data, verbose=False)
    # Two of the five dimensions are constant. The error of the other three is at least the noise.
    floor = ((NOISE / module.space.target.std[:2]) ** 2).sum() + (REWARD_NOISE / module.space.target.std[-1]) ** 2
    assert metrics["test/error"] == pytest.approx(float(floor) / 5, rel=0.25)
    assert metrics["test/open_loop_10"] > metrics["test/open_loop_01"]
    assert -1 <= metrics["test/rank_correlation"] <= 1
    batches = trainer.predict(module, datamodule=data)
    predicted = torch.cat([batch["next_state"] for batch in batches])
    assert predicted.shape == test_batch.next_state.shape
    assert (predicted - test_batch.next_state)[:, :2].std() < 1.3 * NOISE
    assert torch.cat([batch["reward"] for batch in batches]).shape == test_batch.reward.shape


def test_every_member_iterates_over_the_data_in_its_own_order(data):
    module = WorldModelModule(data.spec, n_members=3, n_elites=1, width=4, n_blocks=1, batch_size=7)
    module._trainer = SimpleNamespace(datamodule=data, world_size=1, global_rank=0, current_epoch=0)
    torch.manual_seed(0)
    first = torch.cat([b.next_state for b in module._training_batches()], 1)
    assert first.shape == (3, len(data.train) // 7 * 7, 4)
    assert len(module.train_dataloader()) == len(data.train) // 7
    for member in first:
        assert len(member.unique(dim=0)) == len(member)  # the noise makes states unique, so no transition repeats
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[1], first[2])
    again = torch.cat([b.next_state for b in module._training_batches()], 1)
    assert torch.equal(first, again)
    module._trainer.current_epoch = 1
    assert not torch.equal(first, torch.cat([b.next_state for b in module._training_batches()], 1))


def test_members_are_frozen_separately_and_their_best_weights_saved(data):
    """Runs the end of validation with prescribed errors."""
    module = WorldModelModule(data.spec, n_members=2, n_elites=1, width=4, n_blocks=1, patience=2, min_improvement=0.1)
    module.log = lambda *_, **__: None
    trainer = SimpleNamespace(
        datamodule=data, sanity_checking=False, state=SimpleNamespace(fn="fit"), should_stop=False
    )
    module._trainer = trainer
    weight = module.network.layers.first.weight
    errors_by_epoch = [(5.0, 5.0), (4.0, 4.9), (4.5, 4.8), (4.4, 1.0), (0.1, 1.0), (0.1, 0.95)]
    saved = []
    for epoch, errors in enumerate(errors_by_epoch):
        weight.data.fill_(epoch)
        module._validation_errors = [torch.tensor(errors).unsqueeze(1).repeat(1, 5) * len(data.validation)]
        module.on_validation_epoch_end()
        saved.append(module.best_network.layers.first.weight[:, 0, 0].tolist())
    # Member 0 improves in epoch 1, but not in epochs 2 and 3: it is frozen before its error of 0.1. Member 1 does not
    # improve by 10 % in epochs 1 and 2: it is frozen as well, and training stops.
    assert saved == [[0, 0], [1, 0], [1, 0], [1, 0], [1, 0], [1, 0]]
    assert module.best_error.tolist() == [4.0, 5.0]
    assert module.elites.tolist() == [0]
    assert trainer.should_stop


def test_frozen_members_have_no_gradient(data):
    module = WorldModelModule(data.spec, n_members=3, n_elites=1, width=4, n_blocks=1, patience=2)
    module.space.fit(data.train, 0.99)
    module.epochs_without_improvement.copy_(torch.tensor([0, 2, 1]))
    module.training_step(data.train.transitions(torch.arange(30).view(3, 10)), 0).backward()
    has_gradient = module.network.layers.first.weight.grad.abs().amax((1, 2)) > 0
    assert has_gradient.tolist() == [True, False, True]


def test_losses_equal_values_computed_by_hand(data):
    module = WorldModelModule(data.spec, n_members=1, n_elites=1, width=4, n_blocks=0, beta=0.0, reward_share=0.5)
    for parameter in module.network.layers.parameters():
        parameter.data.zero_()
    module.network.highest.data.fill_(50.0)
    module.network.lowest.data.fill_(-50.0)  # wide limits leave the log-variance of the layer unchanged
    module.network.layers.last.bias.data[..., 5:10] = 2.0
    module.space.target.varies.copy_(torch.tensor([True, True, False, False, True]))
    y = torch.tensor([[[1.0, -1.0, 99.0, 99.0, 2.0]]])

    def loss():
        return float(module.losses(torch.zeros(1, 1, 7), y, torch.tensor([[True]])).detach())

    # Half of the weight is the reward's, whose squared error is 4, and two dimensions of the state share the rest:
    # 1/2 (squared error 2.5 * e^-2 + log-variance 2) + 0.01 * range 100 + ln 2 for a termination logit of 0.
    likelihood, rest = 0.5 * (2.5 * math.exp(-2) + 2), 1.0 + math.log(2)
    assert loss() == pytest.approx(likelihood + rest, rel=1e-5)
    module.hparams["beta"] = 0.5  # the weight of each likelihood is sqrt(variance) = e
    assert loss() == pytest.approx(likelihood * math.e + rest, rel=1e-5)


def test_weights_of_targets(data):
    space = WorldModelModule(data.spec, n_members=1, n_elites=1, width=4, n_blocks=0).space
    for varies, expected in (
        ((True, True, False, False, True), (0.15, 0.15, 0, 0, 0.7)),
        ((True, False, False, False, False), (1, 0, 0, 0, 0)),  # a constant reward has nothing to learn
        ((False, False, False, False, True), (0, 0, 0, 0, 1)),
        ((False,) * 5, (0,) * 5),
    ):
        space.target.varies.copy_(torch.tensor(varies))
        torch.testing.assert_close(space.target_weights(0.7), torch.tensor(expected, dtype=torch.float32))
    space.target.varies.copy_(torch.tensor((True, True, True, False, True)))
    assert space.target_weights(None).tolist() == [0.25, 0.25, 0.25, 0, 0.25]


def test_training_depends_on_the_seed_only(data):
    def weights(seed):
        pl.seed_everything(seed, verbose=False)
        module = WorldModelModule(data.spec, n_members=2, n_elites=1, width=8, n_blocks=1)
        make_trainer(2).fit(module, datamodule=data)
        return torch.cat([p.flatten() for p in module.best_network.parameters()])

    first = weights(0)
    assert torch.equal(first, weights(0))
    assert not torch.equal(first, weights(1))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"n_elites": 8}, "world_model.n_elites: found 8, expected 1 to n_members = 7"),
        ({"n_elites": 0}, "world_model.n_elites: found 0"),
        ({"termination": "maybe"}, "world_model.termination: found 'maybe', expected learned or never"),
        ({"beta": 2.0}, "world_model.beta: found 2.0"),
        ({"batch_size": 0}, "world_model.batch_size: found 0"),
        ({"patience": 0}, "world_model.patience: found 0"),
        ({"width": 0}, "world_model.width: found 0, expected at least 1"),
        ({"n_blocks": -1}, "world_model.n_blocks: found -1, expected at least 0"),
    ],
)
def test_invalid_settings_raise_an_error_that_names_them(setting, message):
    with pytest.raises(UserError, match=message):
        WorldModelModule(make_spec(), **setting)


def test_data_of_another_team_raises_an_error(data):
    module = WorldModelModule(make_spec("other"), n_members=1, n_elites=1, width=4, n_blocks=1)
    with pytest.raises(UserError, match="its task is 'linear', expected 'other'"):
        make_trainer(1).fit(module, datamodule=data)


def test_an_empty_validation_split_raises_an_error(data):
    empty = data.train.select(torch.zeros(0, dtype=torch.long))
    module = WorldModelModule(data.spec, n_members=1, n_elites=1, width=4, n_blocks=1)
    with pytest.raises(UserError, match=r"data\.validation_fraction: found 0 validation trajectories"):
        make_trainer(1).fit(module, datamodule=InMemoryDataModule(data.spec, data.train, empty, data.test))


def test_a_world_model_without_validation_raises_an_error(data):
    with pytest.raises(UserError, match="world model: found no validated member"):
        WorldModelModule(data.spec, n_members=1, n_elites=1, width=4, n_blocks=1).world_model()


def test_a_non_finite_loss_raises_an_error(data):
    module = WorldModelModule(data.spec, n_members=2, n_elites=1, width=4, n_blocks=1)
    module.network.layers.first.weight.data[1] = torch.nan
    with pytest.raises(
        FloatingPointError,
        match=r"WorldModel: loss is nan in epoch 0, and so are the weights network\.\w+; .*lr 0.001",
    ):
        make_trainer(2).fit(module, datamodule=data)


def test_gradients_are_clipped_per_member(reacher):
    module = WorldModelModule(reacher.spec, n_members=3, n_elites=2, width=8, n_blocks=1, max_grad_norm=0.5)
    random = torch.Generator().manual_seed(0)
    before = []
    for parameter in module.network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=random) * 1e-3
        parameter.grad[1] *= 1e6  # member 1 has a very large gradient
        before.append(parameter.grad.clone())
    module.configure_gradient_clipping(None)
    norms = torch.stack([p.grad.flatten(1).norm(dim=1) for p in module.network.parameters()]).norm(dim=0)
    assert norms[1] == pytest.approx(0.5, rel=1e-4)
    for parameter, gradient in zip(module.network.parameters(), before, strict=True):
        assert torch.equal(parameter.grad[[0, 2]], gradient[[0, 2]])
        factor = parameter.grad[1] / gradient[1]
        torch.testing.assert_close(factor, factor.mean().expand_as(factor))  # clipping keeps the direction


def test_a_gradient_norm_limit_of_zero_raises_an_error(reacher):
    with pytest.raises(UserError, match=r"world_model\.max_grad_norm: found 0\.0, expected a number above 0"):
        WorldModelModule(reacher.spec, max_grad_norm=0.0)


def test_the_optimiser_of_an_older_version_is_refused_and_its_model_is_not(tiny_world_model, tmp_path):
    content = torch.load(tiny_world_model, weights_only=True)
    groups = content["optimizer_states"][0]["param_groups"]
    groups[0]["params"] = groups[0]["params"] + groups.pop()["params"]
    old = tmp_path / "old.ckpt"
    torch.save(content, old)
    assert load_module(old, WorldModelModule).world_model().n_elites == 2
    data, module = make_data_and_module("world_model")
    with pytest.raises(UserError, match="half-trained checkpoint of an older version"):
        make_trainer(20).fit(module, datamodule=data, ckpt_path=old)
