"""What a team's specification is, read off an environment or inferred from rows of data.

In ``TeamSpec.sources`` an agent's columns are its flattened observation followed by its action mask, if it has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from momalit.core.errors import UserError
from momalit.core.team import STATE, AgentSpec, TeamSpec
from momalit.envs.spaces import MASK, action_part, flat, is_masked, same_kind, widths

PROBE_ROWS, PROBE_EPISODES, PROBE_LIMIT = 256, 4, 10_000
HORIZON_NAMES = ("horizon", "max_cycles", "max_steps", "max_episode_steps", "_max_episode_steps")


def team_spec(env: ParallelEnv, name: str, settings: Mapping[str, Any] | None = None) -> TeamSpec:
    """The specification of an environment's team.

    Environments that have ``observes`` (agent -> columns of the state) say it themselves. For any other, the state is
    ``state()``, if there is one, and after it the observation columns that are not found in it: columns that are equal
    over a short random play are the same column. Action masks become columns of the state too. It resets the
    environment.

    Args:
        env: the environment.
        name: what ``make_env`` calls it.
        settings: the keyword arguments that it was made with.

    Raises:
        UserError: a space does not fit, or the environment neither declares a horizon nor truncates.
    """
    names = list(env.possible_agents)
    if STATE in names:
        raise UserError(
            f"env {name}: found an agent called {STATE!r}, expected any other name: it is the global state's"
        )
    parts = {agent: action_part(agent, env.action_space(agent)) for agent in names}
    discrete = same_kind(f"env {name}", {agent: part[0] for agent, part in parts.items()})
    horizon = declared_horizon(env)
    if hasattr(env, "observes") and horizon is not None:
        size = int(np.prod(env.state_space.shape))
        sources = tuple((STATE, column) for column in range(size))
        observes: dict[str, tuple[int, ...]] = dict(env.observes)
        legal: dict[str, tuple[int, ...]] = dict.fromkeys(names, ())
    else:
        rows, longest = _probe(env, name, horizon)
        split = {agent: widths(agent, env.observation_space(agent))[0] for agent in names}
        sources, observes, legal = index_map(rows, split)
        horizon = longest
    agents = tuple(AgentSpec(agent, observes[agent], *parts[agent][1:], legal[agent]) for agent in names)
    return TeamSpec(
        task=name,
        agents=agents,
        state_size=len(sources),
        discrete=discrete,
        horizon=horizon,
        sources=sources,
        env={"name": name, **(settings or {})},
    )


def index_map(
    rows: Mapping[str, np.ndarray], split: Mapping[str, int]
) -> tuple[tuple[tuple[str, int], ...], dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Finds the columns that are the same in different places.

    A column that never changes is like every other such column, so those are only taken for the same where a whole
    block of columns is; otherwise each keeps a place of its own.

    Args:
        rows: under ``"state"`` (optional) and under every agent, the values at the same N times, ``(N, columns)``.
        split: for every agent, how many of its columns are observation; the rest is its action mask.

    Returns:
        ``sources``, then per agent the state columns of its observation and of its action mask.
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
    """The number of steps after which an environment says that it truncates, or None if it does not say."""
    for part in (env, getattr(env, "unwrapped", None), getattr(env, "single_agent_env", None)):
        for owner in (part, getattr(part, "spec", None)):
            for name in HORIZON_NAMES:
                value = getattr(owner, name, None)
                if isinstance(value, int | np.integer) and value > 0:
                    return int(value)
    return None


def global_state(env: ParallelEnv) -> np.ndarray | None:
    """``state()`` as float32 columns, or None if the environment has none."""
    try:
        return np.asarray(env.state(), dtype=np.float32).ravel()
    except (NotImplementedError, AttributeError):
        return None


def _probe(env: ParallelEnv, name: str, horizon: int | None) -> tuple[dict[str, np.ndarray], int]:
    """Plays randomly; returns what was seen whenever all agents were there, and the horizon."""
    rng = np.random.default_rng(0)
    names = list(env.possible_agents)
    seen: dict[str, list[np.ndarray]] = {agent: [] for agent in names}
    states: list[np.ndarray] = []
    steps = episodes = longest = 0
    while (
        len(seen[names[0]]) < PROBE_ROWS or episodes < PROBE_EPISODES or (horizon is None and longest == 0)
    ) and steps < PROBE_LIMIT:
        observations, _ = env.reset(seed=episodes)
        episodes += 1
        length = 0
        while True:
            if all(agent in observations for agent in names):
                for agent in names:
                    seen[agent].append(flat(env.observation_space(agent), observations[agent]))
                if (state := global_state(env)) is not None:
                    states.append(state)
            if not env.agents or steps >= PROBE_LIMIT or length == horizon:
                break
            live = list(env.agents)
            actions = {agent: _random_action(rng, env, agent, observations.get(agent)) for agent in live}
            observations, _, _, truncations, _ = env.step(actions)
            steps, length = steps + 1, length + 1
            if not env.agents and any(truncations.values()):
                longest = max(longest, length)
    if horizon is None and longest == 0:
        raise UserError(
            f"env {name}: found no horizon (an attribute {', '.join(HORIZON_NAMES[:3])}) and no truncation within"
            f" {steps} random steps, expected either"
        )
    rows = {agent: np.stack(values) for agent, values in seen.items()}
    return ({STATE: np.stack(states), **rows} if states else rows), horizon or longest


def _random_action(rng: np.random.Generator, env: ParallelEnv, agent: str, observation: Any) -> Any:
    space = env.action_space(agent)
    if isinstance(space, spaces.Discrete):
        legal = np.arange(space.n)
        if observation is not None and is_masked(env.observation_space(agent)):
            legal = np.flatnonzero(observation[MASK])
        return int(space.start + rng.choice(legal))
    assert isinstance(space, spaces.Box)
    return rng.uniform(space.low, space.high).astype(space.dtype)
