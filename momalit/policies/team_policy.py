"""TeamPolicyModule: base class of all methods that train a team."""

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

    Callbacks evaluate the policies in the real environment. The validation and test loaders therefore yield one dummy
    batch, which makes Lightning run its loops and callbacks.

    Args:
        spec: the team, or the dictionary that checkpoints store.
    """

    actor: TeamActor

    def __init__(self, spec: TeamSpec | Mapping[str, Any]) -> None:
        super().__init__()
        self.spec = spec if isinstance(spec, TeamSpec) else TeamSpec.from_dict(spec)
        self.save_hyperparameters({"spec": self.spec.to_dict()})

    @property
    def deployed(self) -> TeamActor:
        """The policies to evaluate and deploy: the trained ones unless a method overrides this."""
        return self.actor

    @property
    def data(self) -> Any:
        """The data module of the current trainer."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def setup(self, stage: str) -> None:
        """Checks that the data belong to this team.

        Raises:
            UserError: the data belong to another team.
        """
        super().setup(stage)
        self.data.spec.require_same(self.spec, "the dataset", "the configured model")

    # --- loaders ---------------------------------------------------------------------------------------------------
    def val_dataloader(self) -> DataLoader:
        return self.stream(1, lambda: iter([torch.zeros(0)]))

    def test_dataloader(self) -> DataLoader:
        return self.val_dataloader()

    def validation_step(self, batch: Tensor, _: int) -> None:
        """Does nothing; the evaluation callback does the work."""

    def test_step(self, batch: Tensor, _: int) -> None:
        """Does nothing; the evaluation callback does the work."""

    def predict_dataloader(self) -> DataLoader:
        """Returns a loader of the complete trajectories of the test split, in order."""
        data: Trajectories = self.data.test
        longest, first = max(data.lengths.tolist(), default=0), data.first

        def batches() -> Iterator[Windows]:
            for index in first.split(64):
                yield data.windows(index, 0, longest)

        return self.stream(-(-len(first) // 64), batches)

    def predict_step(self, batch: Windows, _: int) -> dict[str, Tensor]:
        """Returns the team's deterministic actions along recorded trajectories, ``(transitions, A, U)``."""
        policy, _ = self.deployed(batch.sequence)
        action = self.deployed.clip(policy.mode).transpose(0, 1)
        return {"action": action[batch.valid.transpose(0, 1)]}

    # --- checkpoints -----------------------------------------------------------------------------------------------
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint[_KEY] = {"method": type(self).__name__, "spec": self.spec.to_dict()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks that the checkpoint belongs to this team.

        Raises:
            UserError: the checkpoint belongs to another team.
        """
        super().on_load_checkpoint(checkpoint)
        if _KEY in checkpoint:
            other = TeamSpec.from_dict(checkpoint[_KEY]["spec"])
            self.spec.require_same(other, "the configured team", "the checkpoint")


def team_of(path: str | Path) -> TeamSpec:
    """The team of a checkpoint.

    Raises:
        UserError: the file cannot be read or contains no team.
    """
    return _team_of(path, read_checkpoint(path))


def _team_of(path: str | Path, content: Mapping[str, Any]) -> TeamSpec:
    if _KEY not in content:
        raise UserError(f"checkpoint {path}: found no policies, expected the checkpoint of a team")
    return TeamSpec.from_dict(content[_KEY]["spec"])


def load_policies(path: str | Path) -> TeamActor:
    """Loads the deployed policies from a team's checkpoint.

    Network sizes are inferred from the weights, so the module that trained them is not needed.

    Args:
        path: checkpoint of a ``TeamPolicyModule`` with one policy per agent.

    Returns:
        the policies on the CPU, with their ``spec`` and ``sizes``.

    Raises:
        UserError: the file cannot be read or contains no such policies.
    """
    content = read_checkpoint(path)
    state, spec = content["state_dict"], _team_of(path, content)
    prefix = "averaged." if any(name.startswith("averaged.") for name in state) else "actor."
    weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if "trunk.linear.weight" not in weights:
        method = content[_KEY]["method"]
        raise UserError(f"checkpoint {path}: {method} trains one policy for the whole team, expected one per agent")
    min_std = content.get("hyper_parameters", {}).get("min_std")
    sizes = TeamActor.sizes_from_weights(spec, weights)
    actor = TeamActor(spec, **sizes, **({} if min_std is None else {"min_std": min_std}))
    actor.load_state_dict(weights)
    return actor.eval()
