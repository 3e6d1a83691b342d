"""Teams of agents trained from logs alone: model-based offline multi-agent PPO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from momalit.errors import UserError
from momalit.lazy import public

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
__getattr__ = public(
    __name__,
    {
        "AgentSpec": "team",
        "ImaginedEnv": "imagination",
        "MAPPOModule": "mappo",
        "MOMAPPOModule": "moma_ppo",
        "Pessimism": "imagination",
        "TeamSpec": "team",
        "WorldModelModule": "world_model",
    },
)
