"""TeamPolicyModule: what every method that trains a team has in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from momalit.core.errors import UserError
from momalit.core.records import Windows
from momalit.core.team import TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.nn.actors import TeamActor
from momalit.training.checkpoints import read_checkpoint
from momalit.training.resumable import ResumableModule

_KEY = "momalit"


class TeamPolicyModule(ResumableModule):
    """A LightningModule with a team of policies, ``self.actor``.

    Policies are evaluated by callbacks in the real environment; the validation and test loaders give one empty batch,
    which is what makes Lightning run its loops and the callbacks in them.

    Args:
        spec: the team, or its dictionary as checkpoints store it.
    """

    actor: TeamActor

    def __init__(self, spec: TeamSpec | Mapping[str, Any]) -> None:
        super().__init__()
        self.spec = spec if isinstance(spec, TeamSpec) else TeamSpec.from_dict(spec)
        self.save_hyperparameters({"spec": self.spec.to_dict()})

    @property
    def deployed(self) -> TeamActor:
        """The policies that are evaluated and used: those that learn, or what the method makes of them."""
        return self.actor

    @property
    def data(self) -> Any:
        """The data module of the current trainer."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def setup(self, stage: str) -> None:
        """Refuses data of another team.

        Raises:
            UserError: naming the difference.
        """
        super().setup(stage)
        self.data.spec.require_same(self.spec, "the dataset", "the configured model")

    # --- loaders ---------------------------------------------------------------------------------------------------
    def val_dataloader(self) -> DataLoader:
        return self.stream(1, lambda: iter([torch.zeros(0)]))

    def test_dataloader(self) -> DataLoader:
        return self.val_dataloader()

    def validation_step(self, batch: Tensor, _: int) -> None:
        """Nothing here: the evaluation callback does the work."""

    def test_step(self, batch: Tensor, _: int) -> None:
        """Nothing here: the evaluation callback does the work."""

    def predict_dataloader(self) -> DataLoader:
        """Whole trajectories of the test split, in order."""
        data: Trajectories = self.data.test
        longest, first = int(data.lengths.max()), data.first

        def draw() -> Iterator[Windows]:
            for index in first.split(64):
                yield data.windows(index, 0, longest)

        return self.stream(-(-len(first) // 64), draw)

    def predict_step(self, batch: Windows, _: int) -> dict[str, Tensor]:
        """What the team would do, deterministically, along recorded trajectories: ``(transitions, A, U)``."""
        policy, _memory = self.deployed(batch.sequence)
        action = self.deployed.clip(policy.mode).transpose(0, 1)
        return {"action": action[batch.valid.transpose(0, 1)]}

    # --- checkpoints -----------------------------------------------------------------------------------------------
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint[_KEY] = {"method": type(self).__name__, "spec": self.spec.to_dict()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses the checkpoint of another team.

        Raises:
            UserError: naming the difference.
        """
        super().on_load_checkpoint(checkpoint)
        if _KEY in checkpoint:
            other = TeamSpec.from_dict(checkpoint[_KEY]["spec"])
            self.spec.require_same(other, "the configured team", "the checkpoint")


def load_policies(path: str | Path) -> TeamActor:
    """Loads the policies of any team's checkpoint: those that its method would deploy.

    The sizes of the networks are read off the weights, so no module of the method that trained them is needed.

    Args:
        path: checkpoint of a ``TeamPolicyModule`` with one policy per agent.

    Returns:
        the policies on the CPU; ``spec`` and ``sizes`` describe them.

    Raises:
        UserError: the file cannot be read or holds no such policies.
    """
    content = read_checkpoint(path)
    if _KEY not in content:
        raise UserError(f"checkpoint {path}: found no policies, expected the checkpoint of a team")
    state, spec = content["state_dict"], TeamSpec.from_dict(content[_KEY]["spec"])
    prefix = "averaged." if any(name.startswith("averaged.") for name in state) else "actor."
    weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if "trunk.linear.weight" not in weights:
        method = content[_KEY]["method"]
        raise UserError(f"checkpoint {path}: {method} trains one policy for the whole team, expected one per agent")
    min_std = content.get("hyper_parameters", {}).get("min_std")
    actor = TeamActor(spec, **TeamActor.sizes_of(spec, weights), **({} if min_std is None else {"min_std": min_std}))
    actor.load_state_dict(weights)
    return actor.eval()
