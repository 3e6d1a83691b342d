"""Model-based offline multi-agent PPO: teams of agents trained from datasets, without an environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from momalit.core.errors import UserError
from momalit.core.imports import lazy_getattr

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

# The submodule of each name. Names are imported when first used, so that --help does not import PyTorch.
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
