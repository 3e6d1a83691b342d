"""Base class of the baselines with value functions: minibatches, scaling, target networks and optimiser."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from momalit.baselines.offline_learner import OfflineLearner
from momalit.baselines.return_scale import ReturnScale
from momalit.core.checks import require_numbers
from momalit.core.distributed import reweight
from momalit.core.errors import UserError
from momalit.core.records import Segments
from momalit.core.team import TeamSpec
from momalit.functional.value_learning import bootstrapped_target
from momalit.nn.actors import TeamActor
from momalit.nn.recurrent_trunk import run_with_burn_in
from momalit.training.hyperparameters import plain_arguments

DEFAULT_GRU_SIZE = 128  # for agents that do not observe the whole state

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Minibatch:
    """The data of a gradient step: H time steps of burn-in, T steps, and the next state of the last step.

    Args:
        inputs: inputs of the agents' networks, ``(A, H + T + 1, B, F)``.
        keep: ``(H + T + 1, B)``, as in ``Sequence``.
        state: raw states, ``(T + 1, B, S)``.
        context: standardised states for the mixers, ``(T + 1, B, S)``.
        action: the dataset's actions, ``(T, B, A, U)``.
        scaled_action: the same actions with the bounds scaled to -1 and 1.
        reward: scaled, ``(T, B)``.
        terminated: ``(T, B)``.
        valid: ``(T, B)``.
    """

    inputs: Tensor
    keep: Tensor
    state: Tensor
    context: Tensor
    action: Tensor
    scaled_action: Tensor
    reward: Tensor
    terminated: Tensor
    valid: Tensor

    @property
    def first(self) -> int:
        """Time index of the first step, H."""
        return self.inputs.shape[1] - self.valid.shape[0] - 1

    @property
    def last(self) -> int:
        """Time index of the last next state, H + T."""
        return self.inputs.shape[1] - 1


class ValueLearner(OfflineLearner):
    """Learns values and policies from minibatches of the dataset's transitions, without an environment.

    An epoch has ``steps_per_epoch`` gradient steps. A single loss trains values and policies, which share no weights.
    Targets bootstrap after a time limit, because it is no termination.

    Args:
        spec: the team (set from the dataset on the command line).
        width: units of each of the two linear layers.
        gru_size: units of the GRUs; 0 for none. None means 128 if an agent observes only part of the state, else 0.
        window: steps per trajectory window. Networks without a GRU learn from single transitions.
        burn_in: real steps of burn-in before each window.
        batch_size: transitions per minibatch, over all processes.
        steps_per_epoch: gradient steps per epoch.
        lr: learning rate.
        discount: γ.
        target_update_rate: step size of the Polyak averaging of target networks, above 0 and up to 1.
        initial_std: initial standard deviation of continuous actions, as a fraction of half their range.
        min_std: lower bound of the standard deviation, in the same units.
    """

    deterministic: ClassVar[bool] = False

    def __init__(
        self,
        spec: TeamSpec | Mapping[str, Any],
        width: int = 256,
        gru_size: int | None = None,
        window: int = 10,
        burn_in: int = 10,
        batch_size: int = 256,
        steps_per_epoch: int = 500,
        lr: float = 3e-4,
        discount: float = 0.99,
        target_update_rate: float = 0.005,
        initial_std: float = 0.5,
        min_std: float = 0.05,
    ) -> None:
        arguments = plain_arguments(locals())
        super().__init__(spec)
        if self.deterministic:  # such a method has no options for the standard deviation
            arguments = {name: value for name, value in arguments.items() if name not in ("initial_std", "min_std")}
        self.save_hyperparameters(arguments)
        require_numbers(
            "model.",
            {"width": width, "window": window, "batch_size": batch_size, "steps_per_epoch": steps_per_epoch},
            least=1,
        )
        require_numbers("model.", {"burn_in": burn_in}, least=0)
        require_numbers("model.", {"gru_size": gru_size}, least=0, optional=True)
        require_numbers("model.", {"lr": lr}, above=0)
        require_numbers("model.", {"discount": discount}, least=0, below=1)
        require_numbers("model.", {"target_update_rate": target_update_rate}, above=0, most=1)
        if self.spec.mixed:
            raise UserError(
                f"model.class_path: found {type(self).__name__} for the discrete and continuous actions of"
                f" {self.spec.task}, expected a method for both, momalit.MOMAPPOModule or momalit.baselines.BCModule"
            )
        self.team = self.learner_spec()
        everything = set(range(self.team.state_size))
        if gru_size is None:
            gru_size = 0 if all(set(agent.observes) == everything for agent in self.team.agents) else DEFAULT_GRU_SIZE
        self.gru_size = gru_size
        self.window_length, self.burn_in = (window, burn_in) if gru_size else (1, 0)
        self.scale = ReturnScale()
        self.actor = self.to_team_actor(TeamActor(self.team, width, gru_size, False, initial_std, min_std))
        self._targets: list[tuple[nn.Module, nn.Module]] = []

    def learner_spec(self) -> TeamSpec:
        """Returns the specification of the agents that learn. A centralised method returns that of one joint agent."""
        return self.spec

    def to_team_actor(self, policy: TeamActor) -> Any:
        """Returns the actor that acts in the environment, given the policies of the agents that learn."""
        return policy

    @property
    def policy(self) -> TeamActor:
        """The policies of the agents that learn."""
        return self.actor

    def losses(self, batch: Minibatch) -> dict[str, Tensor]:
        """Returns the terms of the loss by name. Their sum is minimised."""
        raise NotImplementedError

    def require_continuous(self) -> None:
        """Checks that the team has continuous actions.

        Raises:
            UserError: it has discrete ones. The message suggests other methods.
        """
        if self.spec.discrete:
            raise UserError(
                f"model.class_path: found {type(self).__name__} for the discrete actions of {self.spec.task}, expected"
                " a method that supports them, e.g. momalit.baselines.MAIQLModule or momalit.baselines.ICQLModule"
            )

    # --- minibatches -----------------------------------------------------------------------------------------------
    def setup(self, stage: str) -> None:
        """Computes the statistics of the training split."""
        super().setup(stage)
        if stage == "fit":
            self.scale.fit(self.data.train, self.spec.horizon, self.hparams["discount"])

    @property
    def windows_per_epoch(self) -> int:
        return self.hparams["steps_per_epoch"] * self.windows_per_batch

    @property
    def windows_per_batch(self) -> int:
        return max(self.hparams["batch_size"] // self.window_length, 1)

    def sample_windows(self, generator: torch.Generator) -> Tensor:
        """Samples windows with replacement."""
        count = self.training_data.count_windows(self.window_length)
        return torch.randint(count, (self.windows_per_epoch,), generator=generator)

    def make_batch(self, index: Tensor, missing: Tensor) -> Segments:
        return self.training_data.segments(index, self.burn_in, self.window_length, missing)

    def on_train_epoch_start(self) -> None:
        self.noise = self.epoch_generator(self.device, 5)

    def encode(self, segments: Segments) -> Minibatch:
        """Computes the inputs that all networks share."""
        sequence, inputs = segments.sequence, self.policy.inputs
        state = sequence.state[-len(segments.valid) - 1 :]
        return Minibatch(
            inputs=inputs(sequence.state, sequence.previous_action),
            keep=sequence.keep,
            state=state,
            context=inputs.standardizer(state),
            action=segments.action,
            scaled_action=inputs.scaled(segments.action),
            reward=self.scale.reward(segments.reward),
            terminated=segments.terminated,
            valid=segments.valid,
        )

    # --- a gradient step -------------------------------------------------------------------------------------------
    def training_step(self, batch: Segments, _: int) -> Tensor:
        losses = {name: reweight(loss, batch.weight) for name, loss in self.losses(self.encode(batch)).items()}
        self.record(losses)
        return torch.stack(list(losses.values())).sum()

    def hidden_states(self, policy: TeamActor, batch: Minibatch, begin: int, end: int) -> Tensor:
        """Returns hidden states of policies at time steps ``begin`` to ``end - 1``, ``(A, end - begin, B, H)``."""
        return run_with_burn_in(policy.trunk, self.gru_size > 0, batch.inputs, batch.keep, begin, end)

    def td_target(self, batch: Minibatch, next_value: Tensor) -> Tensor:
        """Returns ``r + γ V(s')``, given the values of the next states ``(T, B, ...)``."""
        return bootstrapped_target(batch.reward, batch.terminated, next_value, self.hparams["discount"])

    def make_target(self, network: Network) -> Network:
        """Returns a target network, a copy of ``network`` that is updated towards it after every gradient step."""
        target = copy.deepcopy(network).requires_grad_(False)
        self._targets.append((network, target))
        return target

    @torch.no_grad()
    def update_targets(self) -> None:
        """Updates the target networks by Polyak averaging."""
        rate = self.hparams["target_update_rate"]
        for network, target in self._targets:
            for online, slow in zip(network.parameters(), target.parameters(), strict=True):
                slow.lerp_(online, rate)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Takes a step of the optimiser, then updates the target networks."""
        super().optimizer_step(*args, **kwargs)
        self.update_targets()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.Adam(trained, self.hparams["lr"], fused=self.fused)
