"""PPO on tasks with a known optimum."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch

from momalit.core.errors import UserError
from momalit.core.records import Sequence
from momalit.nn.mixers import MIXERS, NO_MIXER
from momalit.policies.ppo import PPOModule
from momalit.policies.rollout import collect_rollout
from tests import analytic

TASKS = {"split": (analytic.split_target_spec, analytic.SplitTarget), "recall": (analytic.recall_spec, analytic.Recall),
         "masked": (analytic.masked_spec, analytic.Masked)}  # fmt: skip


class AnalyticPPO(PPOModule):
    """PPO with rollouts from an environment in ``analytic``."""

    def __init__(self, task: str, **kwargs) -> None:
        make_spec, self.env_class = TASKS[task]
        super().__init__(make_spec(), **kwargs)

    def setup(self, stage: str) -> None:
        """Skips the comparison with a data module, since there is none."""

    def make_rollout(self, rows, generator):
        env = self.env_class(self.spec, rows, int(torch.randint(2**31, (), generator=generator)))
        return collect_rollout(env, self.actor, env.start(), self.spec.horizon, generator)

    def greedy_return(self, rows: int = 256) -> float:
        env = self.env_class(self.spec, rows, seed=123)
        rollout = collect_rollout(env, self.actor, env.start(), self.spec.horizon, None)
        return float(rollout.reward.sum(0).mean())


def train(task: str, iterations: int, seed: int = 0, **settings) -> AnalyticPPO:
    pl.seed_everything(seed, verbose=False)
    module = AnalyticPPO(task, **{"n_rollouts": 64, "width": 32, "gru_size": 16, "lr": 3e-3, **settings})
    trainer = pl.Trainer(
        max_epochs=iterations, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module)
    return module


@pytest.mark.parametrize("mixer", [*MIXERS, NO_MIXER])
def test_reaches_the_optimum_of_a_continuous_cooperative_task(mixer):
    # The optimal return is 0. Zero actions cost the variance of x + y, 1/6 per step, which is 2/3 per episode.
    module = train("split", 30, lr=6e-3, mixer=mixer)
    assert module.greedy_return() > -0.06


def test_reaches_the_best_valid_payoff_under_action_masks():
    assert train("masked", 15, horizon=1).greedy_return() == pytest.approx(2.0)


def test_recurrent_policy_solves_a_memory_task():
    module = train("recall", 40, lr=5e-3)
    assert module.greedy_return() > 0.95
    # Without a hidden state the same policy can only guess.
    hidden_states = module.actor.hidden_states
    module.actor.hidden_states = lambda sequence, _=None: hidden_states(
        replace(sequence, keep=torch.zeros_like(sequence.keep))
    )
    assert module.greedy_return() < 0.65


def test_shared_parameters_reach_the_optimum():
    assert train("split", 30, lr=6e-3, share_parameters=True).greedy_return() > -0.06


def module_with_rollout(rows: int = 10, **settings) -> AnalyticPPO:
    """A module that has collected a rollout, as in the middle of an iteration."""
    pl.seed_everything(0, verbose=False)
    module = AnalyticPPO("split", **{"n_rollouts": rows, "width": 8, "gru_size": 4, **settings})
    module._trainer = SimpleNamespace(current_epoch=0, global_rank=0, world_size=1)
    module._rollout = module.with_advantages(module.make_rollout(rows, torch.Generator().manual_seed(0)))
    return module


@pytest.mark.parametrize(("rows", "minibatches"), [(10, 4), (12, 4), (7, 4), (5, 5), (3, 1)])
def test_every_pass_uses_every_rollout_once(rows, minibatches):
    module = module_with_rollout(rows, n_minibatches=minibatches, ppo_epochs=3)
    batches = list(module._minibatches())
    assert len(batches) == len(module.train_dataloader()) == 3 * minibatches
    for first in range(0, len(batches), minibatches):
        states = torch.cat([batch.state[0] for batch in batches[first : first + minibatches]])
        assert len(states) == rows
        assert torch.equal(states.sort(0).values, module._rollout.state[0].sort(0).values)


def test_advantages_are_normalised_and_targets_are_returns():
    module = module_with_rollout(64, gae_lambda=1.0, discount=0.9)
    rollout = module._rollout
    assert float(rollout.advantage.mean()) == pytest.approx(0, abs=1e-5)
    assert float(rollout.advantage.std(correction=0)) == pytest.approx(1, abs=1e-4)
    # With λ = 1 the target of the last step is r + γ V(next state), that of the step before is r + γ r' + γ² V.
    with torch.no_grad():
        last = module.critic(rollout.sequence)[-1]  # before any update of the statistics: the scale was 1
    torch.testing.assert_close(rollout.target[-1], rollout.reward[-1] + 0.9 * last)
    torch.testing.assert_close(rollout.target[-2], rollout.reward[-2] + 0.9 * rollout.target[-1])
    # The targets updated the statistics that standardise the value loss.
    torch.testing.assert_close(module.critic.scale.mean.float(), rollout.target.mean())
    torch.testing.assert_close(module.critic.scale.std.float(), rollout.target.std(correction=0))


def test_returns_end_at_the_time_limit_if_nothing_follows():
    rollout = module_with_rollout(64, gae_lambda=1.0, discount=0.9, time_limit="end")._rollout
    assert rollout.truncated[-1].all()
    torch.testing.assert_close(rollout.target[-1], rollout.reward[-1])
    torch.testing.assert_close(rollout.target[-2], rollout.reward[-2] + 0.9 * rollout.reward[-1])


@pytest.mark.parametrize("burn_in", [0, 3])
def test_first_update_reproduces_log_probabilities_and_values(burn_in):
    """From the hidden states of the start, the update computes the same log-probabilities and values."""
    module = module_with_rollout(entropy_coefficient=0.1)
    module.actor.head.weight.data.normal_(0, 1.0)
    env = module.env_class(module.spec, 10, seed=5)
    start = env.start()
    if burn_in:
        first = collect_rollout(env, module.actor, start, burn_in, torch.Generator().manual_seed(1))
        first.keep[1, ::2] = False  # some episodes start within the burn-in
        env.time, start = 0, module.start_from(first.sequence)
    rollout = collect_rollout(env, module.actor, start, 4, torch.Generator().manual_seed(2))
    rollout.keep[2, 5] = False  # an episode that starts within the rollout
    sequence = rollout.sequence
    if burn_in:  # one pass over everything
        parts = [(getattr(first, k)[:-1], getattr(rollout, k)) for k in ("state", "previous_action", "keep")]
        sequence = Sequence(*(torch.cat(pair) for pair in parts))
    policy, _ = module.actor(sequence)
    log_prob = policy.log_prob(
        torch.cat([torch.zeros(burn_in, 10, 2, 2), rollout.action, torch.zeros(1, 10, 2, 2)])
    ).detach()[burn_in:-1]
    batch = module.with_advantages(replace(rollout, log_prob=log_prob))
    after = torch.cat([network.hidden_states(sequence)[:, -2] for network in (module.actor, module.critic)])
    if burn_in:  # the actors' part is that of the collection, before the change of ``keep``
        torch.testing.assert_close(batch.next_hidden_state[2:], after[2:])
    module.pop_means()
    loss = float(module.training_step(batch, 0).detach())
    means = {name: float(mean) for name, mean in module.pop_means().items()}
    assert means["policy/kl"] == pytest.approx(0, abs=1e-8)
    assert means["policy/clip_fraction"] == 0
    assert means["loss/policy"] == pytest.approx(0, abs=1e-5)  # ratios of 1, advantages with zero mean
    value = module.critic(sequence)[burn_in:-1].detach()
    error = value - module.critic.scale(batch.target)
    huber = torch.where(error.abs() < 1, 0.5 * error**2, error.abs() - 0.5).mean()
    assert means["loss/value"] == pytest.approx(float(huber), rel=1e-4)
    assert loss == pytest.approx(means["loss/policy"] + float(huber) - 0.1 * means["policy/entropy"], abs=1e-5)


def test_values_are_clamped_and_stops_use_the_stop_value():
    class Bounded(AnalyticPPO):
        def value_range(self):
            return torch.tensor(-2.0), torch.tensor(0.5)

        def stop_value(self):
            return torch.tensor(-100.0)

    module = Bounded("split", n_rollouts=8, width=8, gru_size=4, discount=0.5, gae_lambda=1.0)
    module.critic.scale.update(torch.tensor(1e3), torch.tensor(1e6 + 1))  # values of about 1000
    rollout = module.make_rollout(8, torch.Generator().manual_seed(0))
    plain = module.with_advantages(rollout)
    # The last step is followed by the upper bound, not by 1000.
    torch.testing.assert_close(plain.target[-1], (rollout.reward[-1] + 0.5 * 0.5).clamp(-2.0, 0.5))
    stopped = torch.zeros_like(rollout.stopped)
    stopped[1] = True
    with_stop = module.with_advantages(replace(rollout, stopped=stopped))
    assert torch.equal(with_stop.target[1], torch.full((8,), -2.0))  # r - 50, clamped
    assert with_stop.advantage[1].max() < with_stop.advantage[2].min()


def test_invalid_steps_have_no_gradient():
    module = module_with_rollout()
    rollout = module._rollout
    valid = rollout.valid.clone()
    valid[2:, ::2] = False

    def gradient(**changes):
        module.zero_grad()
        module.training_step(replace(rollout, valid=valid, **changes), 0).backward()
        return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])

    noise = torch.where(valid, 0.0, 50.0)
    changed = gradient(advantage=rollout.advantage + noise, target=rollout.target + noise,
                       action=rollout.action + noise[..., None, None])  # fmt: skip
    torch.testing.assert_close(changed, gradient())


def test_seed_determines_the_weights():
    weights = [torch.cat([p.flatten() for p in train("split", 2, seed).parameters()]) for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_actors_and_critic_are_clipped_separately():
    module = AnalyticPPO("split", width=8, gru_size=4, actor_max_grad_norm=0.1, critic_max_grad_norm=2.0)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 5.0)
    module.configure_gradient_clipping(None)
    norms = [torch.stack([p.grad.norm() for p in part.parameters()]).norm() for part in (module.actor, module.critic)]
    torch.testing.assert_close(torch.stack(norms), torch.tensor([0.1, 2.0]), rtol=1e-3, atol=0)


def test_non_finite_loss_stops_training():
    class Broken(AnalyticPPO):
        def training_step(self, batch, index):
            return super().training_step(batch, index) * float("nan")

    pl.seed_everything(0, verbose=False)
    module = Broken("split", n_rollouts=8, width=8, gru_size=4)
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    with pytest.raises(FloatingPointError, match=r"loss/policy is nan in epoch 0"):
        trainer.fit(module)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"horizon": 0}, "model.horizon: found 0"),
        ({"n_minibatches": 65}, "model.n_minibatches: found 65"),
        ({"discount": 1.5}, "model.discount: found 1.5"),
        ({"time_limit": "stop"}, "model.time_limit: found 'stop', expected bootstrap or end"),
        ({"mixer": "max"}, "model.mixer: found 'max', expected one of qmix"),
    ],
)
def test_invalid_settings_are_rejected(setting, message):
    with pytest.raises(UserError, match=message):
        AnalyticPPO("split", **setting)


def test_target_entropy_increases_exploration():
    adaptive, fixed = train("split", 12, target_entropy=0.5, entropy_coefficient=0.01), train("split", 12)
    assert adaptive.actor.log_std.mean() > fixed.actor.log_std.mean()


def adapted(kl: float, entropy: float, **settings) -> AnalyticPPO:
    """A module after one adaptation to these measurements."""
    module = AnalyticPPO("split", n_rollouts=8, width=8, gru_size=4, **settings)
    module.adapt_coefficients({"policy/kl": torch.tensor(kl), "policy/entropy": torch.tensor(entropy)})
    return module


@pytest.mark.parametrize(("kl", "factor"), [(0.1, 0.5 / 1.2), (0.011, 0.5), (0.009, 0.5), (0.001, 0.5 * 1.2)])
def test_learning_rate_adapts_to_the_kl_divergence(kl, factor):
    module = AnalyticPPO("split", n_rollouts=8, width=8, gru_size=4, target_kl=0.01)
    module.lr_factor.fill_(0.5)
    module.adapt_coefficients({"policy/kl": torch.tensor(kl), "policy/entropy": torch.tensor(0.0)})
    assert float(module.lr_factor) == pytest.approx(factor)
    module._trainer = SimpleNamespace(max_epochs=10)
    # Halfway through the linear decay to a tenth, times the factor.
    assert module._actor_multiplier(5) == pytest.approx(factor * 0.55)
    assert module._decay(5) == pytest.approx(0.55)  # of the critic, which does not follow the policies' divergence


def test_learning_rate_never_exceeds_its_setting():
    assert float(adapted(0.0, 0.0, target_kl=0.01).lr_factor) == 1.0


class KeepsWeights(pl.Callback):
    """Records the weights of actors and critic at the start of every iteration."""

    def __init__(self) -> None:
        self.weights: list[tuple[torch.Tensor, torch.Tensor]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        actor, critic = (
            torch.cat([p.detach().flatten() for p in net.parameters()]) for net in module.networks.values()
        )
        self.weights.append((actor, critic))


@pytest.mark.parametrize(("warmup", "epochs"), [(2, 4), (100, 4), (100, 5)])  # 100 is more than half
def test_in_the_warm_up_only_the_critic_learns(warmup, epochs):
    pl.seed_everything(0, verbose=False)
    keeps, settings = KeepsWeights(), {"n_rollouts": 16, "width": 8, "gru_size": 4}
    module = AnalyticPPO("split", critic_warmup=warmup, target_kl=0.01, **settings)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, callbacks=[keeps],
    )  # fmt: skip
    trainer.fit(module)
    changes = [(a != c).any().item() for (a, _), (c, _) in pairwise(keeps.weights)]
    assert changes == [False, False, *[True] * (epochs - 3)]
    assert all((b != d).any() for (_, b), (_, d) in pairwise(keeps.weights))


@pytest.mark.parametrize(("entropy", "grows"), [(0.0, True), (3.0, False)])
def test_entropy_bonus_grows_below_the_target(entropy, grows):
    # The agents have 2 and 1 components, 1.5 on average, so that 3.0 nats per agent are 2.0 per component.
    module = adapted(0.0, entropy, target_entropy=1.0, entropy_coefficient=0.01)
    assert float(module.entropy_weight) == pytest.approx(0.01 * 2.718281828 ** (0.1 if grows else -0.1), rel=1e-4)


def test_coefficients_are_constant_without_targets():
    module = adapted(9.0, -9.0, entropy_coefficient=0.01)
    assert float(module.entropy_weight) == pytest.approx(0.01)
    assert float(module.lr_factor) == 1.0


def test_deployed_average_follows_the_trained_weights():
    spec = analytic.split_target_spec()
    module = PPOModule(spec, width=8, gru_size=8, ema_decay=0.9)
    assert module.deployed is module.averaged
    plain = PPOModule(spec, width=8, gru_size=8)
    assert plain.deployed is plain.actor
    assert not any(p.requires_grad for p in module.averaged.parameters())
    module._trainer = SimpleNamespace(num_training_batches=2, current_epoch=0)
    expected = None
    for epoch in range(30):
        module._trainer.current_epoch = epoch
        with torch.no_grad():
            module.actor.raw_std.add_(1.0)
        latest = module.actor.raw_std[0, 0].item()
        weight = max(0.1, 1 / (epoch + 1))
        expected = latest if expected is None else expected + weight * (latest - expected)
        module.on_train_batch_end(None, None, 0)  # not the last gradient step of the iteration
        module.on_train_batch_end(None, None, 1)
    assert module.averaged.raw_std[0, 0].item() == pytest.approx(expected, rel=1e-5)
    assert module.actor.raw_std[0, 0].item() > module.averaged.raw_std[0, 0].item() + 5


def test_ema_decay_of_one_is_rejected():
    with pytest.raises(UserError, match=r"model\.ema_decay: found 1\.0, expected a number from 0 to below 1"):
        PPOModule(analytic.split_target_spec(), ema_decay=1.0)


def test_a_single_iteration_trains_the_policies():
    module = AnalyticPPO("split", n_rollouts=8, width=8, gru_size=4, critic_warmup=10)
    module._trainer = SimpleNamespace(max_epochs=1)
    assert not module.warming_up(0)
