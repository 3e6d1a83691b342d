"""PPO alone, where the optimum is known."""

import lightning.pytorch as pl
import pytest
import torch

from momalit.errors import UserError
from momalit.nn.mixers import MIXERS, NO_MIXER
from momalit.ppo import PPOModule
from momalit.rollout import collect_rollout
from tests import analytic

NAMES = {"split": (analytic.split_target_spec, analytic.SplitTarget), "recall": (analytic.recall_spec, analytic.Recall),
         "masked": (analytic.masked_spec, analytic.Masked)}  # fmt: skip


class AnalyticPPO(PPOModule):
    """PPO whose rollouts come from a task of ``analytic``."""

    def __init__(self, task: str, **kwargs) -> None:
        make_spec, self.kind = NAMES[task]
        super().__init__(make_spec(), memory_length=0, **kwargs)

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
    module = AnalyticPPO(task, **{"rows": 64, "width": 32, "memory": 16, "lr": 3e-3, **settings})
    trainer = pl.Trainer(
        max_epochs=iterations, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module)
    return module


@pytest.mark.parametrize("mixer", [*MIXERS, NO_MIXER])
def test_reaches_the_known_optimum_of_a_continuous_team_task(mixer):
    # The optimum is 0 per step; doing nothing costs the variance of x + y, 1/6 per step, 2/3 in an episode.
    module = train("split", 60, mixer=mixer)
    assert module.greedy_return() > -0.06


def test_respects_action_masks_and_reaches_the_best_allowed_entry():
    assert train("masked", 15, horizon=1).greedy_return() == pytest.approx(2.0)


def test_remembers_what_it_saw_at_the_first_step():
    assert train("recall", 40, lr=5e-3).greedy_return() > 0.95


def test_same_seed_same_weights_other_seed_others():
    weights = [torch.cat([p.flatten() for p in train("split", 2, seed).parameters()]) for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_actor_and_critic_are_clipped_apart():
    module = AnalyticPPO("split", width=8, memory=4, actor_clip_norm=0.1, critic_clip_norm=2.0)
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
    module = Broken("split", rows=8, width=8, memory=4)
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
        ({"minibatches": 65}, "model.minibatches: found 65"),
        ({"discount": 1.5}, "model.discount: found 1.5"),
        ({"mixer": "max"}, "model.mixer: found 'max', expected one of qmix"),
    ],
)
def test_impossible_settings_are_refused_by_name(setting, message):
    with pytest.raises(UserError, match=message):
        AnalyticPPO("split", **setting)


def test_entropy_is_steered_to_its_target():
    loose, tight = train("split", 30, entropy_target=0.5, entropy_coefficient=0.01), train("split", 30)
    assert loose.actor.log_std.mean() > tight.actor.log_std.mean()
