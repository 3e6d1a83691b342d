"""The layout of a table: which column is what. It comes from a short YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from momalit.core.checks import require_known_keys
from momalit.core.errors import UserError

KEYS = (
    "episode", "step", "agent", "agents", "observations", "actions", "state", "reward", "terminated", "truncated",
    "discrete", "choices", "bounds", "task",
)  # fmt: skip
AGENT_KEYS = ("observations", "actions")


@dataclass(frozen=True)
class Columns:
    """The columns of one agent."""

    observations: tuple[str, ...]
    actions: tuple[str, ...]


@dataclass(frozen=True)
class TableLayout:
    """What the columns of a table are.

    Args:
        episode: column with the episode's number or name.
        reward: column with the team's reward, or several, which the import combines.
        agents: each agent's columns, where a row is a step of the whole team; empty where a row is one agent's.
        agent: column with the agent's name, where a row is one agent's; else None.
        shared: columns of every agent, where a row is one agent's; else None.
        step: column that orders the steps of an episode; None for the order of the rows.
        state: further columns of the global state.
        terminated: column that says whether the task ended the episode at this step; None for never.
        truncated: column that says whether a time limit ended it; None for wherever an episode stops otherwise.
        discrete: whether actions are numbers of choices, or the agents whose actions are.
        choices: number of choices; None for the largest action found plus 1.
        bounds: lower and upper bound of continuous actions; None for the smallest and largest found.
        task: name of the task; None for the file's.
    """

    episode: str
    reward: tuple[str, ...]
    agents: Mapping[str, Columns]
    agent: str | None = None
    shared: Columns | None = None
    step: str | None = None
    state: tuple[str, ...] = ()
    terminated: str | None = None
    truncated: str | None = None
    discrete: bool | tuple[str, ...] = False
    choices: int | None = None
    bounds: tuple[float, float] | None = None
    task: str | None = None

    @property
    def numbers(self) -> tuple[str, ...]:
        """All columns with numbers, each once."""
        columns = [*self.state, *self.reward, *([self.step] if self.step else [])]
        for own in (*self.agents.values(), *([self.shared] if self.shared else [])):
            columns += [*own.observations, *own.actions]
        return tuple(dict.fromkeys(columns))

    @property
    def flags(self) -> tuple[str, ...]:
        """The columns with yes or no."""
        return tuple(name for name in (self.terminated, self.truncated) if name)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns with names."""
        return tuple(name for name in (self.episode, self.agent) if name)


def read_layout(path: Path) -> TableLayout:
    """Reads a layout.

    Raises:
        UserError: the file is missing, or a key is unknown, missing or invalid. The message has the key.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--layout: {path} cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--layout: {path} is not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, Mapping):
        raise UserError(f"--layout: {path}: found {type(content).__name__}, expected keys such as episode and reward")
    require_known_keys(f"{path}: ", content, KEYS)
    for key in ("episode", "reward"):
        if content.get(key) in (None, []):
            raise UserError(f"{path}: {key}: missing, expected the name of a column")
    long = content.get("agent") is not None
    for key in ("agents",) if long else ("observations", "actions"):
        if content.get(key) is not None:
            raise UserError(
                f"{path}: {key}: found it {'beside' if long else 'without'} agent; agent, observations and actions"
                " describe a table where each row is one agent's, agents one where each row is the team's"
            )
    if long and content.get("step") is None:
        raise UserError(f"{path}: step: missing, expected a column, because the rows of all agents form a step")
    bounds, choices = content.get("bounds"), content.get("choices")
    if bounds is not None and not _are_bounds(bounds):
        raise UserError(f"{path}: bounds: found {bounds!r}, expected two numbers, e.g. [-1, 1]")
    if choices is not None and (not isinstance(choices, int) or isinstance(choices, bool) or choices < 2):
        raise UserError(f"{path}: choices: found {choices!r}, expected an integer of at least 2")
    discrete = content.get("discrete", choices is not None)
    if isinstance(discrete, list) and all(isinstance(name, str | int) for name in discrete):
        discrete = tuple(map(str, discrete))
    if not isinstance(discrete, bool | tuple):
        raise UserError(f"{path}: discrete: found {discrete!r}, expected true, false or a list of agents")
    return TableLayout(
        episode=_column(path, "episode", content["episode"]),
        reward=_columns(path, "reward", content["reward"]),
        agents={} if long else _agents(path, content.get("agents")),
        agent=_column(path, "agent", content["agent"]) if long else None,
        shared=_own(path, "", content) if long else None,
        step=None if content.get("step") is None else _column(path, "step", content["step"]),
        state=_columns(path, "state", content.get("state") or ()),
        terminated=None if content.get("terminated") is None else _column(path, "terminated", content["terminated"]),
        truncated=None if content.get("truncated") is None else _column(path, "truncated", content["truncated"]),
        discrete=discrete,
        choices=choices,
        bounds=None if bounds is None else (float(bounds[0]), float(bounds[1])),
        task=None if content.get("task") is None else str(content["task"]),
    )


def _agents(path: Path, given: Any) -> dict[str, Columns]:
    if not isinstance(given, Mapping) or not given:
        raise UserError(
            f"{path}: agents: found {given!r}, expected each agent's observations and actions, or agent: COLUMN where"
            " each row is one agent's"
        )
    for name, own in given.items():
        if not isinstance(name, str | int) or isinstance(name, bool):
            raise UserError(f"{path}: agents: found the name {name!r}, expected a text")
        if not isinstance(own, Mapping):
            raise UserError(f"{path}: agents.{name}: found {own!r}, expected observations and actions")
        require_known_keys(f"{path}: agents.{name}.", own, AGENT_KEYS)
    return {str(name): _own(path, f"agents.{name}.", own) for name, own in given.items()}


def _own(path: Path, prefix: str, content: Mapping[str, Any]) -> Columns:
    observations, actions = (_columns(path, f"{prefix}{key}", content.get(key) or ()) for key in AGENT_KEYS)
    for key, columns in (("observations", observations), ("actions", actions)):
        if not columns:
            raise UserError(f"{path}: {prefix}{key}: found none, expected at least one column")
    return Columns(observations, actions)


def _columns(path: Path, key: str, given: Any) -> tuple[str, ...]:
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, list | tuple):
        raise UserError(f"{path}: {key}: found {given!r}, expected a column or a list of columns")
    return tuple(_column(path, key, column) for column in listed)


def _column(path: Path, key: str, given: Any) -> str:
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise UserError(f"{path}: {key}: found {given!r}, expected the name of a column")
    return str(given)


def _are_bounds(given: Any) -> bool:
    numbers = isinstance(given, list) and all(isinstance(n, int | float) and not isinstance(n, bool) for n in given)
    return numbers and len(given) == 2 and given[0] < given[1]
