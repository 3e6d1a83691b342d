"""PPO alone, where the optimum is known."""

from dataclasses import replace
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch

from momalit.core.errors import UserError
from momalit.nn.mixers import MIXERS, NO_MIXER
from momalit.policies.ppo import PPOModule
from momalit.policies.rollout import collect_rollout
from tests import analytic

NAMES = {"split": (analytic.split_target_spec, analytic.SplitTarget), "recall": (analytic.recall_spec, analytic.Recall),
         "masked": (analytic.masked_spec, analytic.Masked)}  # fmt: skip


class AnalyticPPO(PPOModule):
    """PPO whose rollouts come from a task of ``analytic``."""

    def __init__(self, task: str, **kwargs) -> None:
        make_spec, self.kind = NAMES[task]
        super().__init__(make_spec(), burn_in=0, **kwargs)

    def setup(self, stage: str) -> None:
        """There is no data to compare with."""

    def make_rollout(self, rows, generator):
        env = self.kind(self.spec, rows, int(torch.randint(2**31, (), generator=generator)))
        return collect_rollout(env, self.actor, env.start(), self.spec.horizon, generator)

    def greedy_return(self, rows: int = 256) -> float:
        env = self.kind(self.spec, rows, seed=123)
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
def test_reaches_the_known_optimum_of_a_continuous_team_task(mixer):
    # The optimum is 0 per step; doing nothing costs the variance of x + y, 1/6 per step, 2/3 in an episode.
    module = train("split", 30, lr=6e-3, mixer=mixer)
    assert module.greedy_return() > -0.06


def test_respects_action_masks_and_reaches_the_best_allowed_entry():
    assert train("masked", 15, horizon=1).greedy_return() == pytest.approx(2.0)


def test_remembers_what_it_saw_at_the_first_step():
    module = train("recall", 40, lr=5e-3)
    assert module.greedy_return() > 0.95
    # It is memory that does it: with a memory cleared at every step the same policy can only guess.
    remember = module.actor.hidden_states
    module.actor.hidden_states = lambda sequence, _=None: remember(
        replace(sequence, keep=torch.zeros_like(sequence.keep))
    )
    assert module.greedy_return() < 0.65


def test_a_shared_network_learns_too():
    assert train("split", 30, lr=6e-3, share_parameters=True).greedy_return() > -0.06


def rolled(rows: int = 10, **settings) -> AnalyticPPO:
    """A module with a rollout at hand, as in the middle of an iteration."""
    pl.seed_everything(0, verbose=False)
    module = AnalyticPPO("split", **{"n_rollouts": rows, "width": 8, "gru_size": 4, **settings})
    module._trainer = SimpleNamespace(current_epoch=0, global_rank=0, world_size=1)
    module._rollout = module.with_advantages(module.make_rollout(rows, torch.Generator().manual_seed(0)))
    return module


@pytest.mark.parametrize(("rows", "minibatches"), [(10, 4), (12, 4), (7, 4), (5, 5), (3, 1)])
def test_every_pass_visits_every_row_once(rows, minibatches):
    module = rolled(rows, n_minibatches=minibatches, ppo_epochs=3)
    batches = list(module._draw())
    assert len(batches) == len(module.train_dataloader()) == 3 * minibatches
    for first in range(0, len(batches), minibatches):
        seen = torch.cat([batch.state[0] for batch in batches[first : first + minibatches]])
        assert len(seen) == rows
        assert torch.equal(seen.sort(0).values, module._rollout.state[0].sort(0).values)


def test_advantages_are_normalised_and_targets_are_returns():
    module = rolled(64, gae_lambda=1.0, discount=0.9)
    rollout = module._rollout
    assert float(rollout.advantage.mean()) == pytest.approx(0, abs=1e-5)
    assert float(rollout.advantage.std(correction=0)) == pytest.approx(1, abs=1e-4)
    # With λ = 1 the target of the last step is r + γ V(successor), of the one before r + γ r' + γ² V.
    with torch.no_grad():
        last = module.critic(rollout.sequence)[-1]  # nothing had been seen yet: the scale was 1
    torch.testing.assert_close(rollout.target[-1], rollout.reward[-1] + 0.9 * last)
    torch.testing.assert_close(rollout.target[-2], rollout.reward[-2] + 0.9 * rollout.target[-1])
    # The targets went into the statistics that the value loss is measured with.
    torch.testing.assert_close(module.critic.scale.mean, rollout.target.mean())
    torch.testing.assert_close(module.critic.scale.std, rollout.target.std(correction=0))


@pytest.mark.parametrize("burn_in", [0, 3])
def test_before_an_update_the_networks_are_those_that_acted(burn_in):
    """Memories are rebuilt from the burn-in: probabilities and values come out as they were."""
    module = rolled(entropy_coefficient=0.1)
    module.actor.head.weight.data.normal_(0, 1.0)
    env = module.kind(module.spec, 10, seed=5)
    start = env.start()
    if burn_in:
        first = collect_rollout(env, module.actor, start, burn_in, torch.Generator().manual_seed(1))
        env.time, start = 0, first.sequence
        start.keep[1, ::2] = False  # some rows begin later
    rollout = collect_rollout(env, module.actor, start, 4, torch.Generator().manual_seed(2))
    rollout.keep[burn_in + 2, 5] = False  # an episode that begins in the middle
    policy, _ = module.actor(rollout.sequence)
    log_prob = policy.log_prob(
        torch.cat([torch.zeros(burn_in, 10, 2, 2), rollout.action, torch.zeros(1, 10, 2, 2)])
    ).detach()[burn_in:-1]
    batch = module.with_advantages(replace(rollout, log_prob=log_prob))
    assert batch.burn_in == 0, "the memory has taken the burn-in's place"
    module.pop_means()
    loss = float(module.training_step(batch, 0).detach())
    means = {name: float(mean) for name, mean in module.pop_means().items()}
    assert means["policy/kl"] == pytest.approx(0, abs=1e-8)
    assert means["policy/clip_fraction"] == 0
    assert means["loss/policy"] == pytest.approx(0, abs=1e-5)  # ratios of one, advantages of zero mean
    value = module.critic(rollout.sequence)[burn_in:-1].detach()
    error = value - module.critic.scale(batch.target)
    huber = torch.where(error.abs() < 1, 0.5 * error**2, error.abs() - 0.5).mean()
    assert means["loss/value"] == pytest.approx(float(huber), rel=1e-4)
    assert loss == pytest.approx(means["loss/policy"] + float(huber) - 0.1 * means["policy/entropy"], abs=1e-5)


def test_values_stay_within_their_range_and_a_stop_has_its_value():
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
    after = module.with_advantages(replace(rollout, stopped=stopped))
    assert torch.equal(after.target[1], torch.full((8,), -2.0))  # r - 50, clamped
    assert after.advantage[1].max() < after.advantage[2].min()


def test_what_is_not_valid_teaches_nothing():
    module = rolled()
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


def test_same_seed_same_weights_other_seed_others():
    weights = [torch.cat([p.flatten() for p in train("split", 2, seed).parameters()]) for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_actor_and_critic_are_clipped_apart():
    module = AnalyticPPO("split", width=8, gru_size=4, actor_max_grad_norm=0.1, critic_max_grad_norm=2.0)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 5.0)
    module.configure_gradient_clipping(None)
    norms = [torch.stack([p.grad.norm() for p in part.parameters()]).norm() for part in (module.actor, module.critic)]
    torch.testing.assert_close(torch.stack(norms), torch.tensor([0.1, 2.0]), rtol=1e-3, atol=0)


def test_a_loss_that_is_not_finite_stops_the_run_and_is_named():
    class Broken(AnalyticPPO):
        def training_step(self, batch, index):
            return super().training_step(batch, index) * float("nan")

    pl.seed_everything(0, verbose=False)
    module = Broken("split", n_rollouts=8, width=8, gru_size=4)
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    with pytest.raises(FloatingPointError, match=r"loss/policy is nan in iteration 0"):
        trainer.fit(module)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"horizon": 0}, "model.horizon: found 0"),
        ({"n_minibatches": 65}, "model.n_minibatches: found 65"),
        ({"discount": 1.5}, "model.discount: found 1.5"),
        ({"mixer": "max"}, "model.mixer: found 'max', expected one of qmix"),
    ],
)
def test_impossible_settings_are_refused_by_name(setting, message):
    with pytest.raises(UserError, match=message):
        AnalyticPPO("split", **setting)


def test_entropy_is_steered_to_its_target():
    loose, tight = train("split", 12, target_entropy=0.5, entropy_coefficient=0.01), train("split", 12)
    assert loose.actor.log_std.mean() > tight.actor.log_std.mean()


def steered(kl: float, entropy: float, **settings) -> AnalyticPPO:
    """A module after one steering by these measurements."""
    module = AnalyticPPO("split", n_rollouts=8, width=8, gru_size=4, **settings)
    module._over_processes = lambda value: value
    module.adapt_coefficients({"policy/kl": torch.tensor(kl), "policy/entropy": torch.tensor(entropy)})
    return module


@pytest.mark.parametrize(("kl", "factor"), [(0.1, 0.5 / 1.2), (0.011, 0.5), (0.009, 0.5), (0.001, 0.5 * 1.2)])
def test_step_sizes_follow_the_kl(kl, factor):
    module = AnalyticPPO("split", n_rollouts=8, width=8, gru_size=4, target_kl=0.01)
    module._over_processes = lambda value: value
    module.lr_factor.fill_(0.5)
    module.adapt_coefficients({"policy/kl": torch.tensor(kl), "policy/entropy": torch.tensor(0.0)})
    assert float(module.lr_factor) == pytest.approx(factor)
    module._trainer = SimpleNamespace(max_epochs=10)
    # Half of the way down to a tenth, times the factor.
    assert module._lr_share(5) == pytest.approx(factor * 0.55)


def test_step_sizes_never_exceed_those_asked_for():
    assert float(steered(0.0, 0.0, target_kl=0.01).lr_factor) == 1.0


@pytest.mark.parametrize(("entropy", "grows"), [(0.0, True), (3.0, False)])
def test_the_entropy_bonus_grows_while_entropy_falls_short(entropy, grows):
    # Agents have two components and one: 1.5 on average, so that 3.0 nats of an agent are 2.0 per component.
    module = steered(0.0, entropy, target_entropy=1.0, entropy_coefficient=0.01)
    assert float(module.entropy_weight) == pytest.approx(0.01 * 2.718281828 ** (0.1 if grows else -0.1), rel=1e-4)


def test_without_targets_nothing_is_steered():
    module = steered(9.0, -9.0, entropy_coefficient=0.01)
    assert float(module.entropy_weight) == pytest.approx(0.01)
    assert float(module.lr_factor) == 1.0


def test_the_average_is_deployed_and_follows_the_weights_that_learn():
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
        now = module.actor.raw_std[0, 0].item()
        share = max(0.1, 1 / (epoch + 1))
        expected = now if expected is None else expected + share * (now - expected)
        module.on_train_batch_end(None, None, 0)  # not the iteration's last step
        module.on_train_batch_end(None, None, 1)
    assert module.averaged.raw_std[0, 0].item() == pytest.approx(expected, rel=1e-5)
    assert module.actor.raw_std[0, 0].item() > module.averaged.raw_std[0, 0].item() + 5


def test_an_average_of_everything_is_refused():
    with pytest.raises(UserError, match=r"model\.ema_decay: found 1\.0, expected a number of at least 0 and below 1"):
        PPOModule(analytic.split_target_spec(), ema_decay=1.0)
