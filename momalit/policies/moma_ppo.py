"""MOMAPPOModule: a team trained with PPO on rollouts in a world model of the dataset."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from momalit.core.checks import require_numbers
from momalit.core.errors import UserError
from momalit.core.records import Rollout, Sequence, Start
from momalit.core.team import TeamSpec
from momalit.functional.imitation import imitation_advantage
from momalit.functional.surrogate import masked_mean
from momalit.functional.uncertainty import ensemble_covariance_norm
from momalit.functional.value_learning import bootstrapped_target
from momalit.policies.actor_critic import ACTOR, CRITIC
from momalit.policies.logged_steps import add_logged_steps
from momalit.policies.ppo import PPOModule
from momalit.policies.rollout import collect_rollout
from momalit.policies.rollout_settings import BOOTSTRAP, END, Auto, rollout_settings
from momalit.policies.start_states import StartStates
from momalit.policies.value_errors import value_errors
from momalit.training.batches import keyed_generator
from momalit.training.checkpoints import load_module
from momalit.training.hyperparameters import plain_arguments
from momalit.world_model.calibration import UncertaintyLevels
from momalit.world_model.dynamics import WorldModel
from momalit.world_model.imagination import ImaginedEnv, Pessimism
from momalit.world_model.module import WorldModelModule

logger = logging.getLogger(__name__)

MANY_STOPS, ITERATIONS_BETWEEN_WARNINGS = 0.5, 50
HELD_OUT_STEPS = 256  # a sample per iteration, from which λ_all is measured
RESET_FALLS = 0.6  # part of the training in which the reset fraction falls
_KEY = "world_model"


class MOMAPPOModule(PPOModule):
    """Model-based offline multi-agent PPO (Barde et al., AAMAS 2024).

    Each epoch samples start states with their real history from all time steps of the dataset, collects rollouts of
    the exploring team in the world model, and updates the team with PPO. It takes no real environment step.

    Args:
        spec: the team (the command line links it to the data).
        world_model: checkpoint of a trained ``WorldModelModule``; the command line trains or finds one if None.
        warm_start: checkpoint of any team with one policy per agent (behaviour cloning, MOMA-PPO, MAPPO, most
            baselines) whose policies initialise the training; None starts from random weights.
        horizon: k, steps per rollout; ``auto`` for whole episodes of up to 50 steps, and 25 steps of longer ones.
        n_rollouts: rollouts per iteration, in all processes together; ``auto`` for about 8,000 steps.
        warm_start_std: initial standard deviation of the actions after a warm start, as a fraction of half the action
            range. None keeps that of the checkpoint; after cloning it contains the cloning error as well as the
            exploration in the data.
        pessimism: penalties and limits that keep the team where the model is accurate.
        sample_predictions: add the predicted noise to imagined steps.
        elite_per_rollout: use one elite for a whole rollout instead of sampling one at each step, so that the team
            trains in the dynamics of each elite and not only in their average.
        burn_in: real steps before a start state, from which the hidden states are computed.
        reset_fraction: fraction of rollouts that restart from dataset states in each iteration. The others continue
            until the model terminates or stops them, with their hidden states, so that the team also trains on the
            states that it reaches. With 1 every rollout starts from the dataset. ``auto``: 1 if rollouts are whole
            episodes, else 0.5.
        final_reset_fraction: to this ``reset_fraction`` falls geometrically in the first 60 % of ``max_epochs``; None
            keeps it constant. Short rollouts first stay where the dataset shows what pays; the long ones in the end
            practise whole episodes if the fraction is about ``horizon`` divided by the length of an episode, as with
            ``auto``.
        start_top_fraction: fraction of the training episodes in which rollouts start, those with the highest returns.
            First steps (``initial_state_fraction``) are those of all episodes.
        initial_state_fraction: fraction of start states that are the first step of an episode; the others are any step
            of the dataset. Increase it if rollouts are long, since first steps are rare otherwise. ``auto``: 1 if
            rollouts are whole episodes, else 0.5.
        time_limit: ``bootstrap`` or ``end``, see ``PPOModule``; ``end`` needs rollouts that are whole episodes, and
            ``auto`` takes it for these.
        imitation_fraction: rollouts of the log that each iteration adds, as a fraction of ``n_rollouts``. Where the log
            did better than the critic expects of the team, the policies make its joint actions likelier (see
            ``imitation_advantage``). 0 learns from imagined steps alone, as in the paper.
        compiled: compile the world model's network with ``torch.compile``.
        **kwargs: see ``PPOModule``.
    """

    def __init__(
        self,
        spec: TeamSpec | Mapping[str, Any],
        world_model: str | None = None,
        warm_start: str | None = None,
        horizon: int | Auto = 50,
        n_rollouts: int | Auto = 64,
        warm_start_std: float | None = None,
        pessimism: Pessimism | None = None,
        sample_predictions: bool = False,
        elite_per_rollout: bool = False,
        burn_in: int = 10,
        reset_fraction: float | Auto = 1.0,
        final_reset_fraction: float | Auto | None = None,
        start_top_fraction: float = 1.0,
        initial_state_fraction: float | Auto = 0.0,
        time_limit: str = BOOTSTRAP,
        imitation_fraction: float = 0.0,
        compiled: bool = False,
        **kwargs: Any,
    ) -> None:
        arguments = plain_arguments(locals())
        team = spec if isinstance(spec, TeamSpec) else TeamSpec.from_dict(spec)
        rollouts = rollout_settings(
            team.horizon,
            horizon,
            n_rollouts,
            reset_fraction,
            final_reset_fraction,
            initial_state_fraction,
            time_limit,
        )
        self._derived = {name: value for name, value in rollouts._asdict().items() if arguments[name] == "auto"}
        super().__init__(
            team, horizon=rollouts.horizon, n_rollouts=rollouts.n_rollouts, time_limit=rollouts.time_limit, **kwargs
        )
        self.save_hyperparameters({**arguments, **rollouts._asdict()})
        given = Pessimism(**pessimism) if isinstance(pessimism, Mapping) else pessimism or Pessimism()
        self.pessimism = given.for_rollouts(whole_episodes=rollouts.horizon >= team.horizon)
        if given.adaptive_horizon == "auto":
            self._derived["adaptive_horizon"] = str(self.pessimism.adaptive_horizon).lower()
        require_numbers("model.", {"burn_in": burn_in}, least=0)
        require_numbers("model.", {"start_top_fraction": start_top_fraction}, above=0, most=1)
        require_numbers("model.", {"imitation_fraction": imitation_fraction}, least=0, most=1)
        self.burn_in = burn_in
        self.world_model: WorldModel | None = None
        self.levels = UncertaintyLevels(self.pessimism.fixed_threshold)
        self._next_warning = 0
        self._start_states: StartStates | None = None
        self._continuing: tuple[Tensor, Tensor] | None = None  # which rollouts may continue, and their elites

    # --- world model and warm start --------------------------------------------------------------------------------
    def setup(self, stage: str) -> None:
        """Loads the world model and the initial policies."""
        super().setup(stage)
        if stage == "fit" and self._derived:
            values = ", ".join(f"{name} {v if isinstance(v, str) else f'{v:g}'}" for name, v in self._derived.items())
            logger.info("model: %s, for episodes of %d steps", values, self.spec.horizon)
        if stage == "fit" and self.world_model is None:
            self.prepare(self.hparams["world_model"], self.hparams["warm_start"])
            self.levels.fit(self.model, self._held_out, self.pessimism.fixed_threshold)

    @property
    def _held_out(self) -> Any:
        """The validation split; the training split if that is empty."""
        return self.data.validation if len(self.data.validation) else self.data.train

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.hparams["compiled"]:
            self.model.network.compile()

    def on_train_start(self) -> None:
        super().on_train_start()
        if not self.critic.scale.weight:
            self._start_values_at_those_of_the_log()

    def _start_values_at_those_of_the_log(self) -> None:
        """Sets the statistics that turn the critic's outputs into values.

        Values that start at 0 rise slowly, because they bootstrap from themselves. Until they are right, two histories
        that are worth the same differ by how far their values have risen, and a logged step that leads from one to the
        other seems to gain that.
        """
        data, discount = self.data.train, self.hparams["discount"]
        ends = self.hparams["time_limit"] == END
        values = data.discounted_returns(discount) if ends else data.endless_returns(discount)
        values = values.to(self.device, torch.float64)
        self.critic.scale.update(values.mean(), values.square().mean())

    def prepare(self, world_model: str | Path | None, warm_start: str | Path | None) -> None:
        """Loads a trained world model with its input statistics, and the initial policies if any.

        Raises:
            UserError: there is no world model, one of the checkpoints belongs to another team, or the networks' sizes
                differ.
        """
        if world_model is None:
            raise UserError("model.world_model: found none, expected the checkpoint of a trained WorldModelModule")
        trained = load_module(world_model, WorldModelModule)
        self.spec.dynamics().require_same(trained.spec.dynamics(), "the dataset", f"world model {world_model}")
        self.world_model = trained.world_model().to(self.device)
        statistics = self.world_model.space.input
        for inputs in (self.actor.inputs, self.critic.inputs):
            standardizer = inputs.standardizer
            for name in ("mean", "std", "varies"):
                getattr(standardizer, name).copy_(getattr(statistics, name)[: self.spec.state_size])
            standardizer.count.copy_(statistics.count)
        if warm_start is not None:
            self.warm_start_from(warm_start, "the dataset", self.hparams["warm_start_std"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.world_model is not None:
            checkpoint[_KEY] = self.world_model.architecture

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self.world_model is None and _KEY in checkpoint:
            self.world_model = WorldModel(self.spec, **checkpoint[_KEY]).to(self.device)

    def process_state(self) -> dict[str, Any]:
        """Returns the rollouts that may continue in the next iteration."""
        return {} if self._continuing is None else {**super().process_state(), "continuing": self._continuing}

    def restore_process_state(self, state: dict[str, Any]) -> None:
        super().restore_process_state(state)
        if "continuing" in state:
            alive, elite = (tensor.to(self.device) for tensor in state["continuing"])
            self._continuing = alive, elite

    def after_iteration(self, rollout: Rollout) -> None:
        """Warns if most rollouts stop early, because the team then learns from almost nothing."""
        if self.current_epoch < self._next_warning or self.global_rank:
            return
        imagined = rollout.valid[0]  # and not logged
        stopped = float(rollout.stopped.any(0)[imagined].float().mean())
        steps = float(rollout.valid.sum(0)[imagined].float().mean())
        if stopped > MANY_STOPS and steps < rollout.n_steps / 2:
            self._next_warning = self.current_epoch + ITERATIONS_BETWEEN_WARNINGS
            logger.warning(
                "iteration %d: %.0f %% of the imagined rollouts stop, after %.1f of %d steps on average, because the"
                " world model is less certain than model.pessimism.threshold (%.3g) asks. The team hardly practises:"
                " train the world model longer, clone the data first (warm_start), raise the threshold, or, with"
                " discrete actions, learn from what the log did better (imitation_fraction).",
                self.current_epoch + 1, 100 * stopped, steps, rollout.n_steps, float(self.levels.limit),
            )  # fmt: skip

    # --- imagination -----------------------------------------------------------------------------------------------
    @property
    def model(self) -> WorldModel:
        if self.world_model is None:
            raise UserError("model.world_model: found none, expected a loaded one; call prepare() or fit() first")
        return self.world_model

    def on_train_epoch_start(self) -> None:
        if self.pessimism.lambda_all == "auto":
            self._measure_slope()  # in full precision: errors are small differences of large values
        super().on_train_epoch_start()

    def make_rollout(self, rows: int, generator: torch.Generator) -> Rollout:
        """Imagines ``horizon`` steps from dataset states or from the last states of unfinished rollouts."""
        start = self._sample_start(rows, generator)
        env = self._imagined_env(self.pessimism, generator)
        env.reset(start.now.state[0])
        if self.reset_fraction < 1:
            start, elite = self._continue_rollouts(start, env.elite, generator)
            env.reset(start.now.state[0], elite)
        rollout = self._collect(env, start, self.horizon, generator)
        if self.hparams["time_limit"] == END:
            rollout.truncated[-1] = rollout.valid[-1]
        if self.reset_fraction < 1:
            self._continuing = rollout.valid[-1] & ~(rollout.terminated[-1] | rollout.stopped[-1]), env.elite
        return rollout

    def _sample_start(self, rows: int, generator: torch.Generator) -> Start:
        """Samples dataset states, with the hidden states after the real steps before them."""
        sequence = self.data.train.sequence(self._sample_index(rows, generator), self.burn_in)
        return self.start_from(sequence.to(self.device).floating(self.dtype))

    def _sample_index(self, rows: int, generator: torch.Generator) -> Tensor:
        """Samples transitions of the dataset at which rollouts start, ``(rows,)``."""
        data = self.data.train
        if self._start_states is None:
            fractions = self.hparams["start_top_fraction"], self.hparams["initial_state_fraction"]
            self._start_states = StartStates(data, *fractions, self.device)
        return self._start_states.sample(rows, generator).to(data.reward.device)

    @torch.no_grad()
    def with_logged_steps(self, rollout: Rollout, generator: torch.Generator) -> Rollout:
        """Adds rows of real steps. An advantage is that of one logged joint action, after which the team goes on.

        Together they count at most as much as the imagined steps, which may be few where most rollouts stop.
        """
        rows, data = round(self.hparams["imitation_fraction"] * rollout.n_rows), self.data.train
        if not rows:
            return rollout
        index = self._sample_index(rows, generator)
        segments = data.segments(index, self.burn_in, rollout.n_steps).to(self.device).floating(self.dtype)
        ended = segments.terminated
        if self.hparams["time_limit"] == END:
            steps = torch.arange(1, rollout.n_steps + 1, device=self.device).unsqueeze(1)
            ended = ended | (steps == data.remaining(index).to(self.device))
        start = self.start_from(segments.sequence.span(0, self.burn_in + 1))
        now = segments.sequence.span(self.burn_in, None)
        hidden_states = self._hidden_states(now, start.hidden_state)
        policy = self.actor.distribution(hidden_states[ACTOR][:, :-1], now.state[:-1])
        log_prob = policy.log_prob(segments.action)
        log_ratio = (log_prob - policy.log_prob(policy.mode)).sum(-1)
        value = self.critic.scale.inverse(self.critic.value(now.state, hidden_states.get(CRITIC)))
        value = value.clamp(*self.value_range())
        gain = bootstrapped_target(segments.reward, ended, value[1:], self.hparams["discount"]) - value[:-1]
        scaled = gain / (self.advantage_scale + 1e-8).to(gain.dtype)
        advantage = imitation_advantage(scaled, log_prob.sum(-1), log_ratio, segments.valid)
        advantage = advantage * (rollout.valid.sum() / segments.valid.sum()).clamp(max=1)
        self.record(
            {
                "imitation/better": masked_mean((gain > 0).to(gain.dtype), segments.valid),
                "imitation/advantage": masked_mean(advantage, segments.valid),
            }
        )
        return add_logged_steps(rollout, segments, start, log_prob, advantage)

    def _measure_slope(self) -> None:
        """Updates λ_all with the errors on random held-out steps, the same ones in every process."""
        data = self._held_out
        random = keyed_generator("cpu", torch.initial_seed(), self.current_epoch, 4)
        index = torch.randint(len(data), (HELD_OUT_STEPS,), generator=random).to(data.reward.device)
        past = data.sequence(index, self.burn_in).to(self.device).floating(self.dtype)
        batch = data.transitions(index).to(self.device).floating(self.dtype)
        error, mean = value_errors(self.model, self.critic, past, batch, self.hparams["discount"])
        self.levels.update_slope(ensemble_covariance_norm(mean), error)
        self.record({"imagined/lambda_all": self.levels.slope()})

    def _continue_rollouts(self, start: Start, elite: Tensor, generator: torch.Generator) -> tuple[Start, Tensor]:
        """Replaces starts by unfinished rollouts that are not reset; these keep their hidden states and elite."""
        unfinished, rows = self.unfinished, len(elite)
        if self._continuing is None or unfinished is None or len(self._continuing[0]) != rows:
            return start, elite
        alive, old_elite = self._continuing
        continues = alive & (torch.rand(rows, generator=generator, device=self.device) >= self.reset_fraction)
        self.record({"imagined/continued": continues.float().mean()})
        return unfinished.where(continues, start), torch.where(continues, old_elite, elite)

    @property
    def reset_fraction(self) -> float:
        """The fraction of rollouts that are reset in this iteration."""
        first, final = self.hparams["reset_fraction"], self.hparams["final_reset_fraction"]
        if final is None:
            return float(first)
        return float(first * (final / first) ** min(self.progress(self.current_epoch) / RESET_FALLS, 1.0))

    def _imagined_env(self, pessimism: Pessimism, generator: torch.Generator) -> ImaginedEnv:
        return ImaginedEnv(
            self.model,
            pessimism,
            self.hparams["sample_predictions"],
            generator,
            self.hparams["elite_per_rollout"],
            self.levels,
        )

    def imagine(self, start: Sequence, n_steps: int, generator: torch.Generator) -> Rollout:
        """Collects rollouts of the exploring team in the model, with pessimism.

        Args:
            start: H + 1 time steps: the burn-in and the current time step of every rollout.
            n_steps: T.
            generator: source of elites, terminations and exploration noise.
        """
        env = self._imagined_env(self.pessimism, generator)
        env.reset(start.state[-1])
        return self._collect(env, self.start_from(start), n_steps, generator)

    def _collect(self, env: ImaginedEnv, start: Start, n_steps: int, generator: torch.Generator) -> Rollout:
        rollout = collect_rollout(env, self.actor, start, n_steps, generator)
        metrics = {
            "imagined/stopped": rollout.stopped.any(0).float().mean(),
            "imagined/valid": rollout.valid.float().mean(),
            "imagined/terminated": rollout.terminated.any(0).float().mean(),
            "imagined/penalty": masked_mean(env.penalties(), rollout.valid),
            "imagined/uncertainty": masked_mean(env.uncertainties(), rollout.valid),
        }
        self.record(metrics)
        return rollout

    def value_range(self) -> tuple[Tensor, Tensor]:
        """Returns ``[r_min, r_max] / (1 - γ)``, extended to include 0 and the worst return of the data."""
        scale = 1 / max(1 - self.hparams["discount"], 1e-6)
        space = self.model.space
        low = torch.minimum(space.reward_low * scale, space.worst_return)
        return low.clamp(max=0.0), (space.reward_high * scale).clamp(min=0.0)

    def stop_value(self) -> Tensor | None:
        """Returns the worst discounted return of the data, or None if stopped rollouts bootstrap."""
        return self.model.space.worst_return if self.pessimism.stop_value == "pessimistic" else None
