"""Teams of agents trained from logs alone: model-based offline multi-agent PPO."""

from momalit.errors import UserError
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
