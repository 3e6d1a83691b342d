"""TeamSpec: the agents of a team, their observations and their actions.

The specification is stored in every dataset and checkpoint. A policy can therefore be loaded and run without a dataset,
configuration or environment. If a dataset and a checkpoint do not fit together, the error message names the first
difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from momalit.core.checks import require_integers
from momalit.core.errors import UserError

STATE = "state"  # the key of the global state in datasets and in TeamSpec.sources, next to the agents' keys
PRESENT = (
    "present"  # the key in TeamSpec.sources of columns that say whether an agent is there; the column is its number
)


@dataclass(frozen=True)
class AgentSpec:
    """One agent.

    Args:
        name: its name in the PettingZoo environment and in the dataset.
        observes: the columns of the state that form its observation, in order.
        action_size: number of action components (continuous) or of discrete actions.
        low: lower action bounds, one per component; empty if its actions are discrete.
        high: upper action bounds, one per component; empty if its actions are discrete.
        legal: the columns of the state with its action mask (1 = valid); empty if every action is always valid.
        present: the column of the state that is 1 until the agent leaves and 0 from then on; None if it always stays.
    """

    name: str
    observes: tuple[int, ...]
    action_size: int
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    legal: tuple[int, ...] = ()
    present: int | None = None

    @property
    def discrete(self) -> bool:
        """Whether its actions are discrete (one-hot vectors) rather than bounded real vectors."""
        return not self.low


@dataclass(frozen=True)
class TeamSpec:
    """A cooperative team and its task.

    Observations and action masks are defined as columns of the state. A model that predicts the state therefore
    predicts consistent observations for all agents. Observations and actions are padded to the size of the largest
    agent; the masks are defined here. An agent that has left acts by zeros, with a log-probability of 0. Discrete
    actions are one-hot vectors in the whole library, so discrete and continuous actions have the same tensor layout,
    and a team may have agents of both kinds.

    Args:
        task: name of the task, e.g. ``reacher``.
        agents: the agents, in the order of the agent axis of every tensor.
        state_size: number of state dimensions.
        discrete: whether the actions of all agents are discrete.
        horizon: steps after which the environment truncates an episode.
        sources: the origin of each state dimension in the environment: (``"state"`` or an agent's name, column).
        env: name and keyword arguments from which ``momalit.envs.make_env`` makes the environment, or None.
    """

    task: str
    agents: tuple[AgentSpec, ...]
    state_size: int
    discrete: bool
    horizon: int
    sources: tuple[tuple[str, int], ...]
    env: dict[str, Any] | None = field(default=None)

    def __post_init__(self) -> None:
        if not self.agents:
            raise UserError("team: found no agents, expected at least one")
        if not isinstance(self.discrete, bool):
            raise UserError(f"team.discrete: found {self.discrete!r}, expected true or false")
        require_integers("team.", {"state_size": self.state_size, "horizon": self.horizon}, 1)
        if len(set(self.names)) < len(self.names):
            raise UserError(f"team.agents: found the names {', '.join(self.names)}, expected each once")
        for name in self.names:
            if not name or "/" in name or name in (".", "..", STATE):
                raise UserError(
                    f"team.agents: found the name {name!r}, expected one without '/' that is not empty, '.', '..' or"
                    f" {STATE!r}, because datasets have a group of that name"
                )
        if len(self.sources) != self.state_size:
            raise UserError(f"team.sources: found {len(self.sources)} entries, expected state_size = {self.state_size}")
        for agent in self.agents:
            present = () if agent.present is None else (agent.present,)
            outside = [i for i in (*agent.observes, *agent.legal, *present) if not 0 <= i < self.state_size]
            if outside:
                raise UserError(
                    f"team.agents.{agent.name}: found state columns {outside}, expected 0..{self.state_size - 1}"
                )
            bounds = 0 if self.discrete or not (agent.low or agent.high) else agent.action_size
            if len(agent.low) != bounds or len(agent.high) != bounds:
                raise UserError(
                    f"team.agents.{agent.name}: found {len(agent.low)} lower and {len(agent.high)} upper action bounds,"
                    f" expected {bounds} of each"
                )
            if not all(-math.inf < low < high < math.inf for low, high in zip(agent.low, agent.high, strict=True)):
                raise UserError(
                    f"team.agents.{agent.name}: found action bounds {agent.low} to {agent.high}, expected finite lower"
                    " bounds below the upper ones"
                )
        if not self.discrete and not any(agent.low for agent in self.agents):
            raise UserError("team.discrete: found false, expected true: no agent has action bounds")

    # --- sizes of the padded tensors -------------------------------------------------------------------------------
    @property
    def n_agents(self) -> int:
        return len(self.agents)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(agent.name for agent in self.agents)

    @property
    def mixed(self) -> bool:
        """Whether the actions of some agents are discrete and those of others are not."""
        return not self.discrete and any(agent.discrete for agent in self.agents)

    @property
    def observation_size(self) -> int:
        """Size of the padded observation, which is that of the largest agent."""
        return max(len(agent.observes) for agent in self.agents)

    @property
    def action_size(self) -> int:
        """Size of the padded action, which is that of the largest agent."""
        return max(agent.action_size for agent in self.agents)

    @property
    def joint_action_size(self) -> int:
        """Size of the unpadded joint action ``[a_1..a_n]``, an input of the world model."""
        return sum(agent.action_size for agent in self.agents)

    def fully_observed(self) -> TeamSpec:
        """Returns the same team where every agent observes the whole state."""
        everything = tuple(range(self.state_size))
        return replace(self, agents=tuple(replace(agent, observes=everything) for agent in self.agents))

    def dynamics(self) -> TeamSpec:
        """Returns what a world model depends on: the same team, without who observes what and without environment."""
        return replace(self.fully_observed(), env=None)

    # --- index maps and masks as tensors ---------------------------------------------------------------------------
    def observation_index(self) -> Tensor:
        """State column of each observation component, long ``(A, O)``; 0 in padding."""
        return _padded([agent.observes for agent in self.agents], self.observation_size, torch.long)

    def observation_mask(self) -> Tensor:
        """1 for observation components, 0 for padding, float ``(A, O)``."""
        return _padded([(1,) * len(agent.observes) for agent in self.agents], self.observation_size, torch.float32)

    def action_mask(self) -> Tensor:
        """1 for action components, 0 for padding, float ``(A, U)``."""
        return _padded([(1,) * agent.action_size for agent in self.agents], self.action_size, torch.float32)

    def action_low(self) -> Tensor:
        """Lower bounds ``(A, U)``; 0 in padding and for discrete actions."""
        return _padded([agent.low for agent in self.agents], self.action_size, torch.float32)

    def action_high(self) -> Tensor:
        """Upper bounds ``(A, U)``; 0 in padding, 1 for discrete actions."""
        rows = [(1.0,) * agent.action_size if agent.discrete else agent.high for agent in self.agents]
        return _padded(rows, self.action_size, torch.float32)

    def choosing(self) -> Tensor:
        """Whether the actions of each agent are discrete, bool ``(A,)``."""
        return torch.tensor([agent.discrete for agent in self.agents])

    def legal_index(self) -> Tensor | None:
        """State column of each discrete action's mask, long ``(A, U)``; -1 if always valid. None without masks."""
        if not any(agent.legal for agent in self.agents):
            return None
        rows = [agent.legal or (-1,) * agent.action_size for agent in self.agents]
        return _padded(rows, self.action_size, torch.long, fill=-1)

    def present_index(self) -> Tensor | None:
        """State column that says whether each agent is there, long ``(A,)``; -1 if it stays. None if all stay."""
        if all(agent.present is None for agent in self.agents):
            return None
        return torch.tensor([-1 if agent.present is None else agent.present for agent in self.agents])

    # --- saving and comparing --------------------------------------------------------------------------------------
    def to_dict(self) -> dict[str, Any]:
        """Returns plain Python values, which JSON and ``weights_only`` checkpoints can store."""
        values: dict[str, Any] = _plain(asdict(self))
        for agent in values["agents"]:
            if agent["present"] is None:
                del agent["present"]  # as in the files of teams whose agents stay
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TeamSpec:
        """Inverse of ``to_dict``.

        Raises:
            UserError: a key is missing or unknown.
        """
        try:
            agents = tuple(_agent(agent) for agent in values["agents"])
            rest = {k: v for k, v in values.items() if k not in ("agents", "sources")}
            sources = tuple((str(key), int(column)) for key, column in values["sources"])
            return cls(agents=agents, sources=sources, **rest)
        except UserError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"team specification: cannot be read ({error})") from error

    def require_same(self, other: TeamSpec, mine: str, theirs: str) -> None:
        """Checks that another dataset or checkpoint belongs to the same team.

        Args:
            other: the other specification.
            mine: the source of this specification for the error message, e.g. ``dataset reacher/...``.
            theirs: the source of the other one, e.g. ``checkpoint best.ckpt``.

        Raises:
            UserError: the specifications differ. The message names the first difference.
        """
        for name in ("task", "names", "state_size", "discrete", "sources", "agents"):
            a, b = getattr(self, name), getattr(other, name)
            if a != b:
                if name == "agents":
                    name, a, b = next(
                        (f"agents.{x.name}.{f}", getattr(x, f), getattr(y, f))
                        for x, y in zip(a, b, strict=True)
                        for f in ("observes", "action_size", "low", "high", "legal", "present")
                        if getattr(x, f) != getattr(y, f)
                    )
                raise UserError(f"{theirs} does not fit {mine}: its {name} is {b!r}, expected {a!r}")


def who_is_there(state: Tensor, index: Tensor) -> Tensor:
    """Whether each agent is there, bool ``(..., A)``, given ``TeamSpec.present_index()`` and states ``(..., S)``."""
    return (state[..., index.clamp(min=0)] > 0.5) | (index < 0)


def presence(state: Tensor, index: Tensor | None) -> Tensor | None:
    """1 for agents that are there, 0 for others, ``(..., A, 1)``; None if nobody ever leaves, as ``index`` then is."""
    return None if index is None else who_is_there(state, index).unsqueeze(-1).to(state.dtype)


def _agent(values: Mapping[str, Any]) -> AgentSpec:
    arguments: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    return AgentSpec(**arguments)


def _padded(rows: list[tuple[Any, ...]], width: int, dtype: torch.dtype, fill: float = 0) -> Tensor:
    return torch.tensor([list(row) + [fill] * (width - len(row)) for row in rows], dtype=dtype)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
