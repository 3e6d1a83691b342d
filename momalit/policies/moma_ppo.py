"""MOMAPPOModule: a team that learns by practising in a world model of its log."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from momalit.core.errors import UserError
from momalit.core.records import Rollout, Sequence
from momalit.core.team import TeamSpec
from momalit.functional.surrogate import masked_mean
from momalit.policies.ppo import PPOModule
from momalit.policies.rollout import collect_rollout, initial_sequence
from momalit.policies.team_policy import load_policies
from momalit.training.checkpoints import load_module
from momalit.training.hyperparameters import plain_arguments
from momalit.world_model.dynamics import WorldModel
from momalit.world_model.imagination import ImaginedEnv, Pessimism
from momalit.world_model.module import WorldModelModule

_KEY = "world_model"


class MOMAPPOModule(PPOModule):
    """Model-based offline multi-agent PPO (Barde et al., AAMAS 2024).

    Each epoch draws start states from the dataset, every time step eligible and with the agents' real history, rolls
    the team through the world model with exploration, and improves it by PPO. No environment step is ever taken.

    Args:
        spec: the team (the command line links it to the data).
        world_model: checkpoint of a trained ``WorldModelModule``; the command line trains or finds one if None.
        warm_start: checkpoint of any team with one policy per agent (behaviour cloning, MOMA-PPO, MAPPO, most
            baselines) from whose policies training starts; None starts from random weights.
        warm_start_std: deviation of the actions to begin with after a warm start, as a share of half the action range;
            None keeps the cloned one, which holds what cloning could not explain beside what the data explored.
        pessimism: penalties and limits that keep the team where the model is right.
        sample_predictions: add the predicted noise to imagined steps.
        elite_per_rollout: let a row stay with one elite as long as it lives, instead of one drawn at each step: the
            team then practises in every elite's own dynamics and not only in what they are on average.
        reset_fraction: share of the rows that begin anew at states of the log in each iteration. The others go on
            where they
            were, until the model ends or stops them, so that the team practises where it gets to and not only where
            the log is; with 1 every rollout begins in the log.
        initial_state_fraction: share of the beginnings that are an episode's first step; the others are any step of
            the log. Where rows go on for long, first steps are too rare otherwise.
        compiled: compile the world model's network with ``torch.compile``.
        **kwargs: see ``PPOModule``.
    """

    def __init__(
        self,
        spec: TeamSpec | Mapping[str, Any],
        world_model: str | None = None,
        warm_start: str | None = None,
        warm_start_std: float | None = None,
        pessimism: Pessimism | None = None,
        sample_predictions: bool = False,
        elite_per_rollout: bool = False,
        reset_fraction: float = 1.0,
        initial_state_fraction: float = 0.0,
        compiled: bool = False,
        **kwargs: Any,
    ) -> None:
        arguments = plain_arguments(locals())
        super().__init__(spec, **kwargs)
        self.save_hyperparameters(arguments)
        self.pessimism = Pessimism(**pessimism) if isinstance(pessimism, Mapping) else pessimism or Pessimism()
        if not 0 < reset_fraction <= 1:
            raise UserError(f"model.reset_fraction: found {reset_fraction}, expected a number above 0 and up to 1")
        if not 0 <= initial_state_fraction <= 1:
            raise UserError(
                f"model.initial_state_fraction: found {initial_state_fraction}, expected a number from 0 to 1"
            )
        self.world_model: WorldModel | None = None
        self._continuing: tuple[Sequence, Tensor, Tensor] | None = None

    # --- what it is given ------------------------------------------------------------------------------------------
    def setup(self, stage: str) -> None:
        """Loads the world model and the policies to start from."""
        super().setup(stage)
        if stage == "fit" and self.world_model is None:
            self.prepare(self.hparams["world_model"], self.hparams["warm_start"])

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.hparams["compiled"]:
            self.model.network.compile()

    def prepare(self, world_model: str | Path | None, warm_start: str | Path | None) -> None:
        """Takes over a trained world model with its statistics, and policies to start from.

        Raises:
            UserError: there is no world model, or one of the two belongs to another team.
        """
        if world_model is None:
            raise UserError("model.world_model: found none, expected the checkpoint of a trained WorldModelModule")
        trained = load_module(world_model, WorldModelModule)
        self.spec.require_same(trained.spec, "the dataset", f"world model {world_model}")
        self.world_model = trained.world_model().to(self.device)
        statistics = self.world_model.space.input
        for inputs in (self.actor.inputs, self.critic.inputs):
            standardizer = inputs.standardizer
            for name in ("mean", "std", "varies"):
                getattr(standardizer, name).copy_(getattr(statistics, name)[: self.spec.state_size])
            standardizer.count.copy_(statistics.count)
        if warm_start is not None:
            initial = load_policies(warm_start)
            self.spec.require_same(initial.spec, "the dataset", f"warm start {warm_start}")
            if initial.sizes != self.actor.sizes:
                sizes = (initial.sizes, self.actor.sizes)
                found, expected = (", ".join(f"{name} {size}" for name, size in each.items()) for each in sizes)
                raise UserError(f"model.warm_start: {warm_start} has {found}, expected {expected}")
            self.actor.copy_policies(initial)
            if self.averaged is not None:
                self.averaged.load_state_dict(self.actor.state_dict())
            if self.hparams["warm_start_std"] is not None:
                self.actor.set_std(self.hparams["warm_start_std"], "warm_start_std")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.world_model is not None:
            checkpoint[_KEY] = self.world_model.architecture

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self.world_model is None and _KEY in checkpoint:
            self.world_model = WorldModel(self.spec, **checkpoint[_KEY]).to(self.device)

    def process_state(self) -> dict[str, Any]:
        """The rows that go on in the next iteration."""
        if self._continuing is None:
            return {}
        sequence, alive, elite = self._continuing
        return {"continuing": [sequence.state, sequence.previous_action, sequence.keep, alive, elite]}

    def restore_process_state(self, state: dict[str, Any]) -> None:
        if "continuing" in state:
            *parts, alive, elite = (tensor.to(self.device) for tensor in state["continuing"])
            self._continuing = Sequence(*parts), alive, elite

    # --- imagination -----------------------------------------------------------------------------------------------
    @property
    def model(self) -> WorldModel:
        if self.world_model is None:
            raise UserError("model.world_model: none was loaded; call prepare() or fit with one")
        return self.world_model

    def make_rollout(self, rows: int, generator: torch.Generator) -> Rollout:
        """Imagines ``horizon`` steps from dataset states or from the ends of unfinished rollouts."""
        data = self.data.train
        index = torch.randint(len(data), (rows,), generator=generator, device=self.device)
        if self.hparams["initial_state_fraction"]:
            first = data.first.to(self.device)
            drawn = first[torch.randint(len(first), (rows,), generator=generator, device=self.device)]
            at_first = (
                torch.rand(rows, generator=generator, device=self.device) < self.hparams["initial_state_fraction"]
            )
            index = torch.where(at_first, drawn, index)
        start = data.sequence(index.to(data.reward.device), self.burn_in).to(self.device).floating(self.dtype)
        if self.hparams["reset_fraction"] == 1:
            return self.imagine(start, self.horizon, generator)
        env = self._imagined_env(self.pessimism, generator)
        env.reset(start.state[-1])
        if self._continuing is not None and len(self._continuing[1]) == rows:
            start, elite = self._continue_rollouts(start, env.elite, generator)
            env.reset(start.state[-1], elite)
        rollout = self._practise(env, start, self.horizon, generator)
        whole = rollout.sequence
        recent = whole.span(whole.state.shape[0] - self.burn_in - 1, None)
        self._continuing = recent, rollout.valid[-1] & ~(rollout.terminated[-1] | rollout.stopped[-1]), env.elite
        return rollout

    def _continue_rollouts(self, start: Sequence, elite: Tensor, generator: torch.Generator) -> tuple[Sequence, Tensor]:
        """``start``, except for unfinished rollouts that are not reset: they keep their history and their elite."""
        assert self._continuing is not None
        recent, alive, earlier = self._continuing
        goes_on = alive & (
            torch.rand(alive.shape, generator=generator, device=alive.device) >= self.hparams["reset_fraction"]
        )
        self.record({"imagined/continued": goes_on.float().mean()})

        def chosen(old: Tensor, new: Tensor) -> Tensor:
            return torch.where(goes_on.view(1, -1, *[1] * (new.dim() - 2)), old, new)

        sequence = Sequence(
            chosen(recent.state, start.state),
            chosen(recent.previous_action, start.previous_action),
            chosen(recent.keep, start.keep),
        )
        return sequence, torch.where(goes_on, earlier, elite)

    def _imagined_env(self, pessimism: Pessimism, generator: torch.Generator) -> ImaginedEnv:
        return ImaginedEnv(
            self.model, pessimism, self.hparams["sample_predictions"], generator, self.hparams["elite_per_rollout"]
        )

    def imagine(self, start: Sequence, n_steps: int, generator: torch.Generator) -> Rollout:
        """Rolls the exploring team through the model from ``start``, with pessimism."""
        env = self._imagined_env(self.pessimism, generator)
        env.reset(start.state[-1])
        return self._practise(env, start, n_steps, generator)

    def _practise(self, env: ImaginedEnv, start: Sequence, n_steps: int, generator: torch.Generator) -> Rollout:
        rollout = collect_rollout(env, self.actor, start, n_steps, generator)
        notes = {
            "imagined/stopped": rollout.stopped.any(0).float().mean(),
            "imagined/valid": rollout.valid.float().mean(),
            "imagined/terminated": rollout.terminated.any(0).float().mean(),
            "imagined/penalty": masked_mean(env.penalties(), rollout.valid),
            "imagined/uncertainty": masked_mean(env.uncertainties(), rollout.valid),
        }
        self.record(notes)
        return rollout

    def value_range(self) -> tuple[Tensor, Tensor]:
        """``[r_min, r_max] / (1 - γ)``, which no value of the data's rewards can leave."""
        scale = 1 / max(1 - self.hparams["discount"], 1e-6)
        space = self.model.space
        low = torch.minimum(space.reward_low * scale, space.worst_return)
        return low.clamp(max=0.0), (space.reward_high * scale).clamp(min=0.0)

    def stop_value(self) -> Tensor | None:
        """The worst discounted return of the data after a stop, unless bootstrapping was asked for."""
        return self.model.space.worst_return if self.pessimism.stop_value == "pessimistic" else None

    @torch.no_grad()
    def imagined_returns(self, states: Tensor, n_steps: int, seed: int = 0) -> Tensor:
        """Undiscounted, unpenalised return of the deterministic team in the model, to compare with its real return.

        Args:
            states: first states of episodes ``(B, S)``.
            n_steps: the task's horizon.
            seed: of the choice of elites.

        Returns:
            ``(B,)``.
        """
        generator = torch.Generator(self.device).manual_seed(seed)
        env = self._imagined_env(Pessimism.none(), generator)
        states = states.to(self.dtype)
        env.reset(states)
        start = initial_sequence(states, self.spec.n_agents, self.spec.action_size)
        rollout = collect_rollout(env, self.deployed, start, n_steps, None)
        return (rollout.reward * rollout.valid).sum(0)
