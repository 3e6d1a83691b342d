"""Derives a team's specification from an environment; ``index_map`` also serves recorded data.

In ``TeamSpec.sources`` an agent's columns are its flattened observation followed by its action mask, if it has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from momalit.core.errors import UserError
from momalit.core.team import PRESENT, STATE, AgentSpec, TeamSpec
from momalit.envs.spaces import (
    MASK,
    action_layout,
    choices_of,
    flatten_observation,
    is_masked,
    observation_widths,
)

PROBE_ROWS, PROBE_EPISODES, PROBE_LIMIT = 256, 4, 10_000
HORIZON_NAMES = ("horizon", "max_cycles", "max_steps", "max_episode_steps", "_max_episode_steps")


def team_spec(env: ParallelEnv, name: str, settings: Mapping[str, Any] | None = None) -> TeamSpec:
    """Returns the specification of an environment's team. Resets the environment.

    An environment with the attribute ``observes`` (agent -> columns of the state) declares what its agents observe.
    Otherwise the state is ``state()``, if available, followed by the observation columns that it does not contain.
    Columns that are equal during a few random episodes count as the same column. Action masks also become columns of
    the state. If an agent leaves before the others there, every agent has a column that says whether it is still there.

    Args:
        env: the environment.
        name: its name for ``make_env``.
        settings: the keyword arguments of the environment.

    Raises:
        UserError: a space is not supported, or the environment neither declares a horizon nor truncates.
    """
    names = list(env.possible_agents)
    for reserved in (STATE, PRESENT):
        if reserved in names:
            raise UserError(f"env {name}: found an agent called {reserved!r}, expected another name: it is reserved")
    layouts = {agent: action_layout(agent, env.action_space(agent)) for agent in names}
    horizon = declared_horizon(env)
    if hasattr(env, "observes") and horizon is not None:
        size = int(np.prod(env.state_space.shape))
        sources = tuple((STATE, column) for column in range(size))
        observes: dict[str, tuple[int, ...]] = dict(env.observes)
        legal: dict[str, tuple[int, ...]] = dict.fromkeys(names, ())
        leave = False
    else:
        rows, longest, leave = _probe(env, name, horizon)
        split = {agent: observation_widths(agent, env.observation_space(agent))[0] for agent in names}
        sources, observes, legal = index_map(rows, split)
        horizon = longest
    present: list[int | None] = [None] * len(names)
    if leave:
        present = [len(sources) + i for i in range(len(names))]
        sources = (*sources, *((PRESENT, i) for i in range(len(names))))
    agents = tuple(
        AgentSpec(agent, observes[agent], *layouts[agent][1:], legal[agent], column)
        for agent, column in zip(names, present, strict=True)
    )
    return TeamSpec(
        task=name,
        agents=agents,
        state_size=len(sources),
        discrete=all(layout[0] for layout in layouts.values()),
        horizon=horizon,
        sources=sources,
        env={"name": name, **(settings or {})},
    )


def index_map(
    rows: Mapping[str, np.ndarray], split: Mapping[str, int]
) -> tuple[tuple[tuple[str, int], ...], dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Builds the state's columns from the distinct columns of state, observations and action masks.

    Constant columns cannot be told apart by their values. They are therefore merged only if a whole block of columns
    is equal; otherwise each remains a separate column.

    Args:
        rows: values at the same N time steps, ``(N, columns)``, for every agent and optionally for ``"state"``.
        split: number of observation columns per agent; the remaining columns are its action mask.

    Returns:
        ``sources``, then the state columns of the observation and those of the action mask, per agent.
    """
    sources: list[tuple[str, int]] = []
    column_at: dict[bytes, int] = {}
    block_at: dict[bytes, tuple[int, ...]] = {}
    observes: dict[str, tuple[int, ...]] = {}
    legal: dict[str, tuple[int, ...]] = {}

    def place(key: str, start: int, block: np.ndarray, search: bool) -> tuple[int, ...]:
        block = np.ascontiguousarray(block.T.astype(np.float32) + 0.0)  # + 0.0 turns -0.0 into 0.0
        constant = (block == block[:, :1]).all(axis=1)
        whole = block.tobytes()
        if search and whole in block_at and not constant.all():
            return block_at[whole]
        found = []
        for j, column in enumerate(block):
            data = column.tobytes()
            at = None if constant[j] or not search else column_at.get(data)
            if at is None:
                at = len(sources)
                sources.append((key, start + j))
                column_at.setdefault(data, at)
            found.append(at)
        block_at.setdefault(whole, tuple(found))
        return tuple(found)

    if STATE in rows:
        place(STATE, 0, rows[STATE], search=False)
    for agent, width in split.items():
        observes[agent] = place(agent, 0, rows[agent][:, :width], search=True)
        legal[agent] = place(agent, width, rows[agent][:, width:], search=True) if rows[agent].shape[1] > width else ()
    return tuple(sources), observes, legal


def declared_horizon(env: Any) -> int | None:
    """Returns the number of steps after which an environment declares to truncate, or None if it declares none."""
    for part in (env, getattr(env, "unwrapped", None), getattr(env, "single_agent_env", None)):
        for owner in (part, getattr(part, "spec", None)):
            for name in HORIZON_NAMES:
                value = getattr(owner, name, None)
                if isinstance(value, int | np.integer) and value > 0:
                    return int(value)
    return None


def global_state(env: ParallelEnv) -> np.ndarray | None:
    """Returns ``state()`` as float32 columns, or None if the environment has none."""
    try:
        return np.asarray(env.state(), dtype=np.float32).ravel()
    except (NotImplementedError, AttributeError):
        return None


def _probe(env: ParallelEnv, name: str, horizon: int | None) -> tuple[dict[str, np.ndarray], int, bool]:
    """Runs random episodes.

    Returns:
        the observations and states at all steps with all agents present, the horizon, and whether agents leave before
            others.
    """
    rng = np.random.default_rng(0)
    names = list(env.possible_agents)
    observed: dict[str, list[np.ndarray]] = {agent: [] for agent in names}
    states: list[np.ndarray] = []
    steps = episodes = longest = 0
    leave = False
    while (
        len(observed[names[0]]) < PROBE_ROWS or episodes < PROBE_EPISODES or (horizon is None and longest == 0)
    ) and steps < PROBE_LIMIT:
        observations, _ = env.reset(seed=episodes)
        episodes += 1
        length = 0
        while True:
            if all(agent in observations for agent in names):
                for agent in names:
                    observed[agent].append(flatten_observation(env.observation_space(agent), observations[agent]))
                if (state := global_state(env)) is not None:
                    states.append(state)
            if not env.agents or steps >= PROBE_LIMIT or length == horizon:
                break
            live = list(env.agents)
            actions = {agent: _random_action(rng, env, agent, observations.get(agent)) for agent in live}
            observations, _, _, truncations, _ = env.step(actions)
            steps, length = steps + 1, length + 1
            leave = leave or 0 < len(env.agents) < len(names)
            if not env.agents and any(truncations.values()):
                longest = max(longest, length)
    if horizon is None and longest == 0:
        raise UserError(
            f"env {name}: found no horizon (an attribute {', '.join(HORIZON_NAMES[:3])}) and no truncation within"
            f" {steps} random steps, expected either"
        )
    if never := [agent for agent, values in observed.items() if not values]:
        raise UserError(
            f"env {name}: found no step of {steps} random ones at which {never[0]} was there with all others, expected"
            " all agents at first; they may leave, but not join later"
        )
    rows = {agent: np.stack(values) for agent, values in observed.items()}
    return ({STATE: np.stack(states), **rows} if states else rows), horizon or longest, leave


def _random_action(rng: np.random.Generator, env: ParallelEnv, agent: str, observation: Any) -> Any:
    space = env.action_space(agent)
    if (choices := choices_of(agent, space)) is not None:
        legal = np.arange(choices.count)
        if observation is not None and is_masked(env.observation_space(agent)):
            legal = np.flatnonzero(observation[MASK])
        return choices.action(int(rng.choice(legal)))
    assert isinstance(space, spaces.Box)
    return rng.uniform(space.low, space.high).astype(space.dtype)
