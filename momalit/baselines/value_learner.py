"""What the methods with values have in common: memory, units, minibatches, target networks, optimiser."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from momalit.baselines.offline_learner import OfflineLearner, require_at_least
from momalit.baselines.return_scale import ReturnScale
from momalit.core.distributed import reweight
from momalit.core.errors import UserError
from momalit.core.records import Segments
from momalit.core.team import TeamSpec
from momalit.functional.value_learning import bootstrapped_target
from momalit.nn.actors import TeamActor
from momalit.nn.recurrent_trunk import recall
from momalit.training.hyperparameters import plain_arguments

MEMORY = 128

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Minibatch:
    """What a gradient step looks at: H times of burn-in, T steps, and the last successor.

    Args:
        inputs: what the agents' networks read, ``(A, H + T + 1, B, F)``.
        keep: ``(H + T + 1, B)``.
        state: raw, ``(T + 1, B, S)``.
        context: the same, standardised, for mixers.
        action: as in the log, ``(T, B, A, U)``.
        scaled: the same with bounds moved to -1 and 1.
        reward: scaled, ``(T, B)``.
        terminated: ``(T, B)``.
        valid: ``(T, B)``.
    """

    inputs: Tensor
    keep: Tensor
    state: Tensor
    context: Tensor
    action: Tensor
    scaled: Tensor
    reward: Tensor
    terminated: Tensor
    valid: Tensor

    @property
    def first(self) -> int:
        """Time of the first step, H."""
        return self.inputs.shape[1] - self.valid.shape[0] - 1

    @property
    def last(self) -> int:
        """Time of the last successor, H + T."""
        return self.inputs.shape[1] - 1


class ValueLearner(OfflineLearner):
    """Learns values and policies from minibatches of transitions, with rewards from the log and no environment.

    One epoch is ``steps`` gradient steps, and one loss serves values and policies, which share no weights. The time
    limit ends nothing: values follow it.

    Args:
        spec: the team (the command line links it to the data).
        width: units of the linear layers, two of them.
        gru_size: units of the GRUs; 0 for none; None for 128 where an agent sees less than the state, else 0.
        window: steps per window of the log, for networks with a memory; others learn from single transitions.
        burn_in: real steps of burn-in before each window.
        batch_size: transitions per minibatch, in all processes together.
        steps_per_epoch: gradient steps per epoch.
        lr: learning rate.
        discount: γ.
        target_update_rate: share of the way that target networks go to the learning ones in a step.
        initial_std: deviation of continuous actions at the start, as a share of half their range.
        min_std: least deviation.
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
        if self.deterministic:  # the deviations are not among its settings
            arguments = {name: value for name, value in arguments.items() if name not in ("initial_std", "min_std")}
        self.save_hyperparameters(arguments)
        require_at_least(1, width=width, window=window, batch_size=batch_size, steps_per_epoch=steps_per_epoch)
        require_at_least(0, gru_size=gru_size or 0, burn_in=burn_in)
        if not 0 <= discount < 1:
            raise UserError(f"model.discount: found {discount}, expected a number from 0 to below 1")
        if not 0 < target_update_rate <= 1:
            raise UserError(
                f"model.target_update_rate: found {target_update_rate}, expected a number above 0 and up to 1"
            )
        self.team = self.learner_spec()
        everything = set(range(self.team.state_size))
        if gru_size is None:
            gru_size = 0 if all(set(agent.observes) == everything for agent in self.team.agents) else MEMORY
        self.gru_size = gru_size
        self.window, self.burn_in = (window, burn_in) if gru_size else (1, 0)
        self.scale = ReturnScale()
        self.actor = self.to_team_actor(TeamActor(self.team, width, gru_size, False, initial_std, min_std))
        self._targets: list[tuple[nn.Module, nn.Module]] = []

    def learner_spec(self) -> TeamSpec:
        """The agents that learn; a centralised method makes the team one."""
        return self.spec

    def to_team_actor(self, policy: TeamActor) -> Any:
        """What acts in the environment, given the policies of the agents that learn."""
        return policy

    @property
    def policy(self) -> TeamActor:
        """The policies of the agents that learn."""
        return self.actor

    def losses(self, batch: Minibatch) -> dict[str, Tensor]:
        """The parts of the loss by name; their sum is minimised."""
        raise NotImplementedError

    def require_continuous(self) -> None:
        """Refuses teams that choose.

        Raises:
            UserError: naming the method and what to use instead.
        """
        if self.spec.discrete:
            raise UserError(
                f"model.class_path: {type(self).__name__} needs continuous actions, found the discrete ones of"
                f" {self.spec.task}; expected e.g. momalit.baselines.MAIQLModule or momalit.baselines.ICQLModule"
            )

    # --- minibatches -----------------------------------------------------------------------------------------------
    def setup(self, stage: str) -> None:
        """Takes the statistics of the training split."""
        super().setup(stage)
        if stage == "fit":
            self.scale.fit(self.data.train, self.spec.horizon, self.hparams["discount"])

    @property
    def windows_per_epoch(self) -> int:
        return self.hparams["steps_per_epoch"] * self.windows_per_batch

    @property
    def windows_per_batch(self) -> int:
        return max(self.hparams["batch_size"] // self.window, 1)

    def starts(self, random: torch.Generator) -> Tensor:
        """Uniformly drawn transitions, with replacement."""
        return torch.randint(len(self.training_data), (self.windows_per_epoch,), generator=random)

    def make_batch(self, index: Tensor) -> Segments:
        return self.training_data.segments(index, self.burn_in, self.window)

    def on_train_epoch_start(self) -> None:
        self.noise = self.randomness(self.device, 5)

    def encode(self, segments: Segments) -> Minibatch:
        """What the networks read, computed once for all of them."""
        sequence, inputs = segments.sequence, self.policy.inputs
        state = sequence.state[-len(segments.valid) - 1 :]
        return Minibatch(
            inputs=inputs(sequence.state, sequence.previous_action),
            keep=sequence.keep,
            state=state,
            context=inputs.standardizer(state),
            action=segments.action,
            scaled=inputs.scaled(segments.action),
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
        """Memories of policies at the times from ``begin`` to before ``end``, ``(A, end - begin, B, H)``."""
        return recall(policy.trunk, self.gru_size > 0, batch.inputs, batch.keep, begin, end)

    def bootstrapped(self, batch: Minibatch, following: Tensor) -> Tensor:
        """Targets of values from those of the successors, ``(T, B, ...)``."""
        return bootstrapped_target(batch.reward, batch.terminated, following, self.hparams["discount"])

    def target_of(self, network: Network) -> Network:
        """A slow copy of ``network`` that follows it after every step."""
        target = copy.deepcopy(network).requires_grad_(False)
        self._targets.append((network, target))
        return target

    @torch.no_grad()
    def update_targets(self) -> None:
        """Moves the target networks (Polyak averaging)."""
        rate = self.hparams["target_update_rate"]
        for network, target in self._targets:
            for new, old in zip(network.parameters(), target.parameters(), strict=True):
                old.lerp_(new, rate)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """A step of the optimiser, then one of the target networks."""
        super().optimizer_step(*args, **kwargs)
        self.update_targets()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        learning = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.Adam(learning, self.hparams["lr"], fused=self.fused)
