"""World models in the checkpoints of teams and of the models themselves."""

from __future__ import annotations

from pathlib import Path

from momalit.core.errors import UserError
from momalit.core.team import TeamSpec
from momalit.policies.moma_ppo import MOMAPPOModule
from momalit.training.checkpoints import load_module, read_checkpoint
from momalit.world_model.dynamics import WorldModel
from momalit.world_model.module import WorldModelModule


def load_world_model(path: str | Path, spec: TeamSpec) -> tuple[WorldModel, bool]:
    """Loads a world model from its own checkpoint or from that of a team which was trained in it.

    Args:
        path: the checkpoint.
        spec: the team whose dynamics it must have.

    Returns:
        the world model on the CPU, and whether imagined steps carry its noise (a team's setting; else True).

    Raises:
        UserError: the file cannot be read, has no world model, or that of another team.
    """
    method = read_checkpoint(path).get("momalit", {}).get("method")
    if method is None:
        trained = load_module(path, WorldModelModule)
        model, found, sampled = trained.world_model(), trained.spec, True
    else:
        team = _team(path, method)
        model, found, sampled = team.model, team.spec, bool(team.hparams["sample_predictions"])
    spec.dynamics().require_same(found.dynamics(), "the dataset", f"world model {path}")
    return model, sampled


def _team(path: str | Path, method: str) -> MOMAPPOModule:
    if method != "MOMAPPOModule":
        raise UserError(
            f"checkpoint {path}: {method} has no world model, expected --world_model FILE, the checkpoint of one or of"
            " a team trained in one"
        )
    team = load_module(path, MOMAPPOModule)
    if team.world_model is None:
        raise UserError(f"checkpoint {path}: found no world model, expected one saved during or after training")
    return team
