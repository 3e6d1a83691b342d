"""Teams of agents trained from logs alone: model-based offline multi-agent PPO."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from momalit.errors import UserError

if TYPE_CHECKING:
    from momalit.imagination import ImaginedEnv, Pessimism
    from momalit.mappo import MAPPOModule
    from momalit.moma_ppo import MOMAPPOModule
    from momalit.team import AgentSpec, TeamSpec
    from momalit.world_model import WorldModelModule

__all__ = [
    "AgentSpec",
    "ImaginedEnv",
    "MAPPOModule",
    "MOMAPPOModule",
    "Pessimism",
    "TeamSpec",
    "UserError",
    "WorldModelModule",
]

# Where the names live. They are imported when first used: the command line answers --help without PyTorch.
_HOMES = {
    "AgentSpec": "team",
    "ImaginedEnv": "imagination",
    "MAPPOModule": "mappo",
    "MOMAPPOModule": "moma_ppo",
    "Pessimism": "imagination",
    "TeamSpec": "team",
    "WorldModelModule": "world_model",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
