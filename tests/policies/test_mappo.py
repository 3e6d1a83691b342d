"""MAPPO: PPO in the real environment."""

import copy
import itertools

import lightning.pytorch as pl
import pytest
import torch

from callbacks import Evaluation
from callbacks.real_episodes import episode_seeds
from datamodules import EnvironmentDataModule, OfflineDataModule
from momalit.baselines import BCModule
from momalit.core.errors import UserError
from momalit.envs.vector_env import VectorTeamEnv
from momalit.policies.mappo import MAPPOModule


def make_trainer(epochs, callbacks=()):
    return pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=list(callbacks),
    )  # fmt: skip


@pytest.fixture(scope="module")
def game():
    return EnvironmentDataModule("icg", {"observability": "own"})


def make(game, seed=0, **settings):
    pl.seed_everything(seed, verbose=False)
    return MAPPOModule(
        game.spec, **{"horizon": 11, "n_rollouts": 32, "width": 32, "gru_size": 16, "lr": 3e-3, **settings}
    )


def test_team_learns_to_coordinate(game):
    trainer = make_trainer(24, [Evaluation(episodes=2)])
    module = make(game)
    trainer.fit(module, datamodule=game)
    assert trainer.callback_metrics["eval/return"] == 10.0
    assert Evaluation(deterministic=False).episode_returns(module, "test", 50).mean() > 9


def test_episodes_continue_across_iterations(game):
    module = make(game, horizon=7, n_rollouts=4)
    rollouts = []
    make_rollout = module.make_rollout
    module.make_rollout = lambda *args: rollouts.append(make_rollout(*args)) or rollouts[-1]
    make_trainer(4).fit(module, datamodule=game)
    for previous, following in itertools.pairwise(rollouts):
        assert torch.equal(previous.state[-1], following.state[0])
        assert torch.equal(previous.previous_action[-1], following.previous_action[0])
        assert torch.equal(previous.keep[-1], following.keep[0])
        actors = module.spec.n_agents  # the critic's hidden states follow
        assert torch.equal(previous.next_hidden_state, following.hidden_state[:actors])
        assert following.hidden_state.shape[0] == 2 * actors
    # 28 calls: 10 steps, a reset, 10 steps, a reset, 6 steps.
    valid = torch.cat([rollout.valid for rollout in rollouts])
    assert torch.nonzero(~valid[:, 0]).flatten().tolist() == [10, 21]
    assert int(module.steps_taken) == 4 * 26


def test_actors_and_critic_use_the_same_state_statistics_from_the_start(game):
    module = make(game, n_rollouts=4)
    make_trainer(2).fit(module, datamodule=game)
    actors, critic = module.actor.inputs.standardizer, module.critic.inputs.standardizer
    # One rollout for the initial statistics and two for training, each with 12 states.
    assert float(actors.count) == 3 * 12 * 4
    assert torch.equal(actors.mean, critic.mean)
    assert torch.equal(actors.std, critic.std)
    assert actors.varies.all()


def test_iteration_with_only_resets_is_valid(game):
    module = make(game, horizon=1, n_rollouts=4)
    make_trainer(12).fit(module, datamodule=game)
    assert int(module.steps_taken) == 11 * 4
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_training_and_evaluation_seeds_are_disjoint(game, monkeypatch):
    seeds = []
    reset_row = VectorTeamEnv._reset_row
    monkeypatch.setattr(
        VectorTeamEnv, "_reset_row", lambda self, row, seed: seeds.append(seed) or reset_row(self, row, seed)
    )
    make_trainer(4).fit(make(game, n_rollouts=32), datamodule=game)
    assert len(seeds) > 150
    assert min(seeds) >= 2**30 > max(*episode_seeds("validation", 1000), *episode_seeds("test", 1000))


def test_seed_determines_the_weights(game):
    def run(seed):
        module = make(game, seed, n_rollouts=4)
        make_trainer(2).fit(module, datamodule=game)
        return torch.cat([p.flatten() for p in module.parameters()])

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))


def offline(game, path, **settings):
    """Writes the checkpoint of a cloned team of the same game."""
    data = OfflineDataModule("icg/favourable", {"observability": "own"}, transitions=200)
    module = BCModule(game.spec, width=32, gru_size=16, **settings)
    trainer = make_trainer(1)
    trainer.fit(module, datamodule=data)
    trainer.save_checkpoint(path)
    return module


def test_training_starts_from_a_team_that_was_trained_offline(game, tmp_path):
    path = tmp_path / "cloned.ckpt"
    cloned = offline(game, path)
    module = make(game, n_rollouts=4, warm_start=str(path), critic_warmup=1, ema_decay=0.5)
    started = []
    start = pl.callbacks.LambdaCallback(on_train_start=lambda *_: started.append(copy.deepcopy(module.state_dict())))
    make_trainer(2, [start]).fit(module, datamodule=game)
    for name, weight in cloned.actor.state_dict().items():
        assert torch.equal(weight, started[0][f"actor.{name}"])
        assert torch.equal(weight, started[0][f"averaged.{name}"])
    statistics = [network.inputs.standardizer for network in (cloned.actor, module.actor, module.critic)]
    assert float(statistics[1].count) == float(statistics[0].count) + 2 * 12 * 4  # those of two rollouts more
    assert torch.equal(statistics[1].mean, statistics[2].mean)


def test_a_resumed_run_does_not_need_its_warm_start(game, tmp_path):
    offline(game, tmp_path / "cloned.ckpt")
    settings = {"n_rollouts": 4, "warm_start": str(tmp_path / "cloned.ckpt")}
    trainer, module = make_trainer(1), make(game, **settings)
    trainer.fit(module, datamodule=game)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    (tmp_path / "cloned.ckpt").unlink()
    resumed = make(game, **settings)
    make_trainer(1).fit(resumed, datamodule=game, ckpt_path=str(tmp_path / "last.ckpt"))
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), resumed.parameters(), strict=True))


def test_warm_start_of_other_sizes_is_rejected(game, tmp_path):
    offline(game, tmp_path / "cloned.ckpt")
    module = make(game, n_rollouts=4, warm_start=str(tmp_path / "cloned.ckpt"), width=64)
    with pytest.raises(UserError, match=r"model\.warm_start: .* has width 32, .* expected width 64, gru_size 16"):
        make_trainer(1).fit(module, datamodule=game)
