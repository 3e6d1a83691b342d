"""The team of a dataset that does not say it: from its columns, its action spaces, and any environment named."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from minari.serialization import deserialize_space

from datamodules.readers.hdf5_episodes import Episodes
from momalit.core.errors import UserError
from momalit.core.team import STATE, AgentSpec, TeamSpec
from momalit.envs.factory import make_env
from momalit.envs.spaces import MASK, OBSERVATION, action_part, same_kind, widths
from momalit.envs.spec_from_env import declared_horizon, index_map, team_spec


def inferred_spec(episodes: Episodes, metadata: Mapping[str, Any]) -> tuple[TeamSpec, dict[str, np.ndarray]]:
    """Infers a team.

    Columns that are equal in every row are the same state dimension. Bounds and numbers of choices are those of the
    metadata's action space; without one, whole-number actions count as choices. The horizon is the longest episode.

    Args:
        episodes: the data.
        metadata: Minari's, or nothing.

    Returns:
        the specification and the rows it was made from, per agent and for the state.

    Raises:
        UserError: the layout is not keyed by agent, or action bounds are unknown.
    """
    agents = sorted(episodes.keys("actions"), key=_natural)
    present = episodes.keys("observations")
    for agent in agents:
        if agent not in present:
            raise UserError(
                f"{episodes.path}: {episodes.names[0]}/observations/{agent} is missing, found {', '.join(present)},"
                " expected one for every agent in actions"
            )
    rows: dict[str, np.ndarray] = {}
    split: dict[str, int] = {}
    if STATE in present and STATE not in agents:
        rows[STATE] = episodes.read(f"observations/{STATE}", extra=1)
    observation_spaces = _spaces(metadata, "observation_space")
    for agent in agents:
        rows[agent], split[agent] = _observation(episodes, agent, observation_spaces.get(agent))
    parts = {agent: _action_part(episodes, agent, space) for agent, space in _action_spaces(agents, metadata).items()}
    discrete = same_kind(str(episodes.path), {agent: part[0] for agent, part in parts.items()})
    sources, observes, legal = index_map(rows, split)
    spec = TeamSpec(
        task=str(metadata.get("dataset_id") or episodes.path.stem),
        agents=tuple(AgentSpec(agent, observes[agent], *parts[agent][1:], legal[agent]) for agent in agents),
        state_size=len(sources),
        discrete=discrete,
        horizon=max(episodes.lengths),
        sources=sources,
    )
    return spec, rows


def state_columns(spec: TeamSpec, rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """The state ``(rows, S)`` assembled from what ``spec.sources`` names."""
    return np.stack([rows[key][:, column] for key, column in spec.sources], axis=1)


def action_starts(spec: TeamSpec, metadata: Mapping[str, Any] | None) -> dict[str, int]:
    """The number that stands for every agent's first choice in the dataset."""
    found = _action_spaces(spec.names, metadata or {})
    return {agent: int(getattr(space, "start", 0)) for agent, space in found.items()}


def with_env(spec: TeamSpec, env: Mapping[str, Any], path: Path) -> TeamSpec:
    """The dataset's specification with another environment, or other settings of its own.

    Args:
        spec: the dataset's.
        env: settings, and ``name`` unless the dataset names one.
        path: for messages.

    Raises:
        UserError: no environment is named, or it is not that of the data.
    """
    settings = {**(spec.env or {}), **env}
    if settings == spec.env:
        return spec
    name = settings.pop("name", None)
    if name is None:
        raise UserError(f"data.env: found {dict(env)!r}, but {path} names no environment, expected env.name as well")
    live = make_env(name, **settings)
    try:
        if spec.env is not None:
            found = team_spec(live, name, settings)
            spec.require_same(replace(found, agents=_seeing_alike(found, spec)), f"dataset {path}", f"env {name}")
            return found
        _require_fit(spec, live, name, path)
        horizon = declared_horizon(live) or spec.horizon
        return replace(spec, task=name, horizon=horizon, env={"name": name, **settings})
    finally:
        live.close()


def _seeing_alike(found: TeamSpec, spec: TeamSpec) -> tuple[AgentSpec, ...]:
    """The agents of ``found`` with the eyes of ``spec``: who sees what is free to change, the rest is not."""
    if found.names != spec.names:
        return found.agents
    return tuple(replace(a, observes=b.observes, legal=b.legal) for a, b in zip(found.agents, spec.agents, strict=True))


def _require_fit(spec: TeamSpec, live: Any, name: str, path: Path) -> None:
    names = tuple(live.possible_agents)
    if set(names) != set(spec.names):
        raise UserError(f"env {name} does not fit {path}: its agents are {names}, expected {spec.names}")
    for agent in spec.agents:
        part = action_part(agent.name, live.action_space(agent.name))[1:]
        if part != (agent.action_size, agent.low, agent.high):
            raise UserError(
                f"env {name} does not fit {path}: {agent.name} acts in {live.action_space(agent.name)}, expected"
                f" {agent.action_size} {'choices' if spec.discrete else f'components in {agent.low}..{agent.high}'}"
            )
        found = widths(agent.name, live.observation_space(agent.name))
        if found != (len(agent.observes), len(agent.legal)):
            raise UserError(
                f"env {name} does not fit {path}: {agent.name} observes {found[0]} columns and {found[1]} of mask,"
                f" expected {len(agent.observes)} and {len(agent.legal)}"
            )


def _observation(episodes: Episodes, agent: str, space: spaces.Space[Any] | None) -> tuple[np.ndarray, int]:
    """An agent's columns, those of its action mask last, and how many are observation."""
    key = f"observations/{agent}"
    if episodes.is_group(key):
        found = set(episodes.keys(key))
        if found != {OBSERVATION, MASK}:
            raise UserError(
                f"{episodes.path}: {episodes.names[0]}/{key} holds {', '.join(sorted(found))}, expected an array or"
                f" {OBSERVATION} and {MASK}"
            )
        inner = space[OBSERVATION] if isinstance(space, spaces.Dict) else None
        seen = _one_hot(episodes.read(f"{key}/{OBSERVATION}", extra=1), inner)
        return np.concatenate([seen, episodes.read(f"{key}/{MASK}", extra=1)], axis=1), seen.shape[1]
    seen = _one_hot(episodes.read(key, extra=1), space)
    return seen, seen.shape[1]


def _one_hot(values: np.ndarray, space: spaces.Space[Any] | None) -> np.ndarray:
    """Discrete observations as the environment's flattening has them; others as they are."""
    if not isinstance(space, spaces.Discrete):
        return values
    index = values[:, 0].astype(np.int64) - int(space.start)
    return np.eye(int(space.n), dtype=np.float32)[index.clip(0, int(space.n) - 1)]


def _action_part(
    episodes: Episodes, agent: str, space: spaces.Space[Any] | None
) -> tuple[bool, int, tuple[float, ...], tuple[float, ...]]:
    if space is not None:
        return action_part(agent, space)
    values = episodes.read(f"actions/{agent}", dtype=None)
    if values.dtype.kind in "iu" and values.shape[1] == 1:
        return True, int(values.max()) + 1, (), ()
    raise UserError(
        f"{episodes.path}: bounds of actions/{agent} are unknown, expected metadata.json with an action_space beside it"
    )


def _action_spaces(agents: Any, metadata: Mapping[str, Any]) -> dict[str, spaces.Space[Any] | None]:
    found = _spaces(metadata, "action_space")
    return {agent: found.get(agent) for agent in agents}


def _spaces(metadata: Mapping[str, Any], key: str) -> dict[str, spaces.Space[Any]]:
    """The spaces per agent that Minari's metadata holds under ``key``; none where it holds no such."""
    if key not in metadata:
        return {}
    text = metadata[key]
    try:
        space = deserialize_space(text if isinstance(text, str) else json.dumps(text))
    except (ValueError, KeyError, TypeError, NotImplementedError, AssertionError) as error:
        raise UserError(f"metadata.json: {key} cannot be read ({' '.join(str(error).split())})") from error
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {}


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts ``agent_2`` before ``agent_10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
