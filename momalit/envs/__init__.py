"""Real environments: PettingZoo tasks by name, their team specifications and vectorised environments."""

from momalit.envs.factory import TASKS, make_env, references
from momalit.envs.fixed_agents import FixedAgents
from momalit.envs.spec_from_env import team_spec
from momalit.envs.vector_env import VectorTeamEnv

__all__ = ["TASKS", "FixedAgents", "VectorTeamEnv", "make_env", "references", "team_spec"]
