"""Teams of agents trained from logs alone: model-based offline multi-agent PPO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from momalit.core.errors import UserError
from momalit.core.lazy_imports import lazy_getattr

if TYPE_CHECKING:
    from momalit.core.team import AgentSpec, TeamSpec
    from momalit.policies.mappo import MAPPOModule
    from momalit.policies.moma_ppo import MOMAPPOModule
    from momalit.world_model.imagination import ImaginedEnv, Pessimism
    from momalit.world_model.module import WorldModelModule

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
__getattr__ = lazy_getattr(
    __name__,
    {
        "AgentSpec": "core.team",
        "ImaginedEnv": "world_model.imagination",
        "MAPPOModule": "policies.mappo",
        "MOMAPPOModule": "policies.moma_ppo",
        "Pessimism": "world_model.imagination",
        "TeamSpec": "core.team",
        "WorldModelModule": "world_model.module",
    },
)
