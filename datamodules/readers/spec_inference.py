"""Infers the team of a dataset without a specification, from its columns, action spaces and environment."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from minari.serialization import deserialize_space

from datamodules.readers.action_columns import action_part
from datamodules.readers.hdf5_episodes import Episodes
from momalit.core.errors import UserError
from momalit.core.team import PRESENT, STATE, AgentSpec, TeamSpec
from momalit.envs.factory import make_env
from momalit.envs.spaces import (
    MASK,
    OBSERVATION,
    Choices,
    action_layout,
    choices_of,
    observation_widths,
    require_no_image,
)
from momalit.envs.spec_from_env import declared_horizon, index_map, team_spec

logger = logging.getLogger(__name__)


def inferred_spec(episodes: Episodes, metadata: Mapping[str, Any]) -> tuple[TeamSpec, dict[str, np.ndarray]]:
    """Infers the specification of a team.

    Columns that are equal in every row are the same state dimension. Action bounds and numbers of discrete actions come
    from the metadata's action space; without one, integer actions are discrete, boolean ones are two choices, and the
    bounds of others are the smallest and largest found. The horizon is the longest episode.
    An agent with fewer actions than the episode has steps has left then; its observations end with it.

    Args:
        episodes: the data.
        metadata: Minari's metadata; may be empty.

    Returns:
        the specification, and the arrays it was inferred from, by agent and for the state.

    Raises:
        UserError: the arrays are not keyed by agent, an agent has no observations or no actions, or its actions are
            of a kind that only the metadata could tell.
    """
    agents = sorted(episodes.keys("actions"), key=_natural_sort_key)
    episodes.require_keys("actions", agents)
    present = episodes.keys("observations")
    for agent in agents:
        if agent not in present:
            raise UserError(
                f"{episodes.path}: {episodes.names[0]}/observations/{agent} is missing, found {', '.join(present)},"
                " expected one for each agent in actions"
            )
    for key in present:
        if key not in (*agents, STATE):
            raise UserError(
                f"{episodes.path}: {episodes.names[0]}/actions/{key} is missing, found {', '.join(agents)}, expected"
                f" one for each key of observations but {STATE}"
            )
    rows: dict[str, np.ndarray] = {}
    n_observed: dict[str, int] = {}
    if STATE in present and STATE not in agents:
        rows[STATE] = episodes.read(f"observations/{STATE}", extra=1)
    observation_spaces = _spaces(metadata, "observation_space")
    for agent in agents:
        rows[agent], n_observed[agent] = _observation(episodes, agent, observation_spaces.get(agent))
    parts = {agent: _action_part(episodes, agent, space) for agent, space in _action_spaces(agents, metadata).items()}
    sources, observes, legal = index_map(rows, n_observed)
    column: dict[str, int] = {}
    if (there := _who_is_there(episodes, agents)) is not None:
        rows[PRESENT] = there
        column = {agent: len(sources) + i for i, agent in enumerate(agents)}
        sources = (*sources, *((PRESENT, i) for i in range(len(agents))))
    spec = TeamSpec(
        task=str(metadata.get("dataset_id") or episodes.path.stem),
        agents=tuple(
            AgentSpec(agent, observes[agent], *parts[agent][1:], legal[agent], column.get(agent)) for agent in agents
        ),
        state_size=len(sources),
        discrete=all(part[0] for part in parts.values()),
        horizon=max(episodes.lengths),
        sources=sources,
    )
    return spec, rows


def state_columns(spec: TeamSpec, rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """Assembles the state ``(rows, S)`` from the columns listed in ``spec.sources``."""
    return np.stack([rows[key][:, column] for key, column in spec.sources], axis=1)


def recorded_choices(spec: TeamSpec, metadata: Mapping[str, Any] | None) -> dict[str, Choices]:
    """How the dataset writes the actions of each agent with discrete ones."""
    sizes = {agent.name: agent.action_size for agent in spec.agents if agent.discrete}
    found = _action_spaces(sizes, metadata or {})
    choices = {agent: None if space is None else choices_of(agent, space) for agent, space in found.items()}
    return {agent: own or Choices((sizes[agent],), (0,), True) for agent, own in choices.items()}


def with_env(spec: TeamSpec, env: Mapping[str, Any], path: Path) -> TeamSpec:
    """The dataset's specification with another environment or other settings.

    Args:
        spec: the dataset's specification.
        env: settings of the environment, and ``name`` unless the dataset names one.
        path: path of the dataset, for messages.

    Raises:
        UserError: no environment is named, or it does not fit the data.
    """
    settings = {**(spec.env or {}), **env}
    if settings == spec.env:
        return spec
    name = settings.pop("name", None)
    if name is None:
        raise UserError(f"data.env: found {dict(env)!r}, but {path} names no environment, expected env.name too")
    instance = make_env(name, **settings)
    try:
        if spec.env is not None:
            found = team_spec(instance, name, settings)
            comparable = replace(found, agents=_with_observations_of(found, spec))
            spec.require_same(comparable, f"dataset {path}", f"env {name}")
            return found
        _require_matching_env(spec, instance, name, path)
        horizon = declared_horizon(instance) or spec.horizon
        return replace(spec, task=name, horizon=horizon, env={"name": name, **settings})
    finally:
        instance.close()


def _with_observations_of(found: TeamSpec, spec: TeamSpec) -> tuple[AgentSpec, ...]:
    """The agents of ``found`` with the observed columns of ``spec``, because only observability may differ."""
    if found.names != spec.names:
        return found.agents
    return tuple(replace(a, observes=b.observes, legal=b.legal) for a, b in zip(found.agents, spec.agents, strict=True))


def _require_matching_env(spec: TeamSpec, instance: Any, name: str, path: Path) -> None:
    names = tuple(instance.possible_agents)
    if set(names) != set(spec.names):
        raise UserError(f"env {name} does not fit {path}: found agents {names}, expected {spec.names}")
    for agent in spec.agents:
        part = action_layout(agent.name, instance.action_space(agent.name))[1:]
        if part != (agent.action_size, agent.low, agent.high):
            kind = "discrete actions" if agent.discrete else f"components in {agent.low}..{agent.high}"
            raise UserError(
                f"env {name} does not fit {path}: {agent.name} has {instance.action_space(agent.name)}, expected"
                f" {agent.action_size} {kind}"
            )
        found = observation_widths(agent.name, instance.observation_space(agent.name))
        if found != (len(agent.observes), len(agent.legal)):
            raise UserError(
                f"env {name} does not fit {path}: {agent.name} has {found[0]} observation and {found[1]} mask columns,"
                f" expected {len(agent.observes)} and {len(agent.legal)}"
            )


def _who_is_there(episodes: Episodes, agents: Sequence[str]) -> np.ndarray | None:
    """1 while an agent acts, 0 after it has left, ``(rows of all states, A)``; None if all agents always stay.

    At the end of an episode everybody leaves, which says nothing.
    """
    acts = np.stack([episodes.steps_of(agent) for agent in agents], 1)
    if (acts == np.array(episodes.lengths)[:, None]).all():
        return None
    there = []
    for length, own in zip(episodes.lengths, acts, strict=True):
        step = np.arange(length + 1)[:, None]
        there.append((step < own) | (own >= length))
    return np.concatenate(there).astype(np.float32)


def _observation(episodes: Episodes, agent: str, space: spaces.Space[Any] | None) -> tuple[np.ndarray, int]:
    """Columns of an agent's observation and then of its action mask, and the number of observation columns."""
    key, steps = f"observations/{agent}", episodes.steps_of(agent)
    if episodes.is_group(key):
        found = set(episodes.keys(key))
        if found != {OBSERVATION, MASK}:
            raise UserError(
                f"{episodes.path}: {episodes.names[0]}/{key} holds {', '.join(sorted(found))}, expected an array or"
                f" {OBSERVATION} and {MASK}"
            )
        inner = space[OBSERVATION] if isinstance(space, spaces.Dict) else None
        observed = _one_hot(episodes.read(f"{key}/{OBSERVATION}", extra=1, steps=steps), inner)
        mask = episodes.read(f"{key}/{MASK}", extra=1, steps=steps)
        return np.concatenate([observed, mask], axis=1), observed.shape[1]
    require_no_image(f"{episodes.path}: {episodes.names[0]}/{key}", episodes.shape(key))
    observed = _one_hot(episodes.read(key, extra=1, steps=steps), space)
    return observed, observed.shape[1]


def _one_hot(values: np.ndarray, space: spaces.Space[Any] | None) -> np.ndarray:
    """One-hot vectors of discrete observations, as the environment flattens them. Others are returned unchanged."""
    if not isinstance(space, spaces.Discrete):
        return values
    index = values[:, 0].astype(np.int64) - int(space.start)
    return np.eye(int(space.n), dtype=np.float32)[index.clip(0, int(space.n) - 1)]


def _action_part(
    episodes: Episodes, agent: str, space: spaces.Space[Any] | None
) -> tuple[bool, int, tuple[float, ...], tuple[float, ...]]:
    """Whether an agent's actions are discrete, its action size, and its lower and upper bounds."""
    if space is not None:
        return action_layout(agent, space)
    key, steps = f"actions/{agent}", episodes.steps_of(agent)
    values = episodes.read(key, dtype=None, steps=steps)
    if values.dtype.kind == "f":
        return _found_bounds(
            episodes.path, agent, values if values.dtype == np.float32 else episodes.read(key, steps=steps)
        )
    if values.shape[1] != 1:
        raise UserError(
            f"{episodes.path}: {episodes.names[0]}/{key} has {values.shape[1]} columns of {values.dtype}, expected one"
            " column of choices, floats, or metadata.json with an action_space beside it"
        )
    return True, 2 if values.dtype.kind == "b" else int(values.max()) + 1, (), ()


def _found_bounds(path: Path, agent: str, values: np.ndarray) -> tuple[bool, int, tuple[float, ...], tuple[float, ...]]:
    """The result of ``_action_part`` for continuous actions ``(N, U)`` whose bounds nothing but the data tell."""
    _, size, low, high = action_part(path, agent, values)
    pairs = ", ".join(f"[{least:g}, {most:g}]" for least, most in dict.fromkeys(zip(low, high, strict=True)))
    logger.info("%s: %s has action bounds from the smallest and largest found: %s", path, agent, pairs)
    return False, size, low, high


def _action_spaces(agents: Any, metadata: Mapping[str, Any]) -> dict[str, spaces.Space[Any] | None]:
    found = _spaces(metadata, "action_space")
    return {agent: found.get(agent) for agent in agents}


def _spaces(metadata: Mapping[str, Any], key: str) -> dict[str, spaces.Space[Any]]:
    """Spaces by agent that Minari's metadata holds under ``key``. Empty if there are none."""
    if key not in metadata:
        return {}
    text = metadata[key]
    try:
        space = deserialize_space(text if isinstance(text, str) else json.dumps(text))
    except (ValueError, KeyError, TypeError, NotImplementedError, AssertionError) as error:
        raise UserError(f"metadata.json: {key} cannot be read ({' '.join(str(error).split())})") from error
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {}


def _natural_sort_key(name: str) -> list[tuple[int, str]]:
    """Sort key that places ``agent_2`` before ``agent_10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
