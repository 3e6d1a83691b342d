"""Turns the rows of a table into steps of a team: in order, complete, without empty columns."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.readers.steps import Steps, filled_columns
from datamodules.readers.table_file import TableColumns, read_columns
from datamodules.readers.table_layout import TableLayout
from momalit.core.errors import UserError
from momalit.core.team import STATE

logger = logging.getLogger(__name__)


def team_steps(path: Path, layout: TableLayout) -> Steps:
    """Reads a table's rows as steps of the team, in the order of episodes and steps.

    Raises:
        UserError: a column is missing, a cell is invalid, or the agents of a step are not complete.
    """
    table = read_columns(path, layout.numbers, layout.flags, layout.names)
    episode = table.codes[layout.episode]
    by = [episode] if layout.step is None else [table.numbers[layout.step], episode]
    if layout.agent is None:
        order = np.lexsort(by)
        _require_steps_once(path, layout, table, order)
        values, names = {n: v[order] for n, v in table.numbers.items()}, list(layout.agents)
        observations = {a: _stack(values, own.observations) for a, own in layout.agents.items()}
        actions = {a: _stack(values, own.actions) for a, own in layout.agents.items()}
        reward = _stack(values, layout.reward)
        flags = {name: flag[order] for name, flag in table.flags.items()}
        episode = episode[order]
        if layout.state:
            observations[STATE] = _stack(values, layout.state)
    else:
        assert layout.shared is not None
        names = table.names[layout.agent]
        order = np.lexsort([table.codes[layout.agent], *by])
        _require_complete_teams(path, layout, table, order)
        rows = order.reshape(-1, len(names))
        observations = {a: _stack(table.numbers, layout.shared.observations, rows[:, i]) for i, a in enumerate(names)}
        actions = {a: _stack(table.numbers, layout.shared.actions, rows[:, i]) for i, a in enumerate(names)}
        reward = np.concatenate([_stack(table.numbers, layout.reward, rows[:, i]) for i in range(len(names))], 1)
        flags = {name: np.asarray(flag[rows].any(1)) for name, flag in table.flags.items()}
        episode = episode[rows[:, 0]]
        if layout.state:
            observations[STATE] = _stack(table.numbers, layout.state, rows[:, 0])
    never = np.zeros(len(episode), bool)
    own = layout.agents or dict.fromkeys(names, layout.shared)
    named = {name: columns.observations for name, columns in own.items() if columns is not None}
    named |= {STATE: layout.state} if layout.state else {}
    filled = {name: filled_columns(path, f"observations of {name}", array) for name, array in observations.items()}
    used = {name: filled_columns(path, f"actions of {name}", array) for name, array in actions.items()}
    return Steps(
        episode,
        {name: array[:, filled[name]] for name, array in observations.items()},
        {name: array[:, used[name]] for name, array in actions.items()},
        reward.mean(1),
        flags.get(layout.terminated or "", never),
        flags.get(layout.truncated or "", never),
        {name: [column for column, keep in zip(named[name], filled[name], strict=True) if keep] for name in filled},
    )


def _stack(values: dict[str, np.ndarray], columns: tuple[str, ...], rows: Any = slice(None)) -> np.ndarray:
    return np.stack([values[column][rows] for column in columns], 1)


def _require_steps_once(path: Path, layout: TableLayout, table: TableColumns, order: np.ndarray) -> None:
    if layout.step is None:
        return
    episode, step = table.codes[layout.episode][order], table.numbers[layout.step][order]
    twice = np.flatnonzero((np.diff(episode) == 0) & (np.diff(step) == 0))
    if len(twice):
        i = int(twice[0])
        raise UserError(
            f"{path}: found {layout.step} {step[i]:g} of {layout.episode} {table.names[layout.episode][episode[i]]}"
            " twice, expected each step once; where each row is one agent's, name its column as agent"
        )


def _require_complete_teams(path: Path, layout: TableLayout, table: TableColumns, order: np.ndarray) -> None:
    """Checks that every step has one row of every agent."""
    assert layout.agent is not None
    assert layout.step is not None
    names, episodes = table.names[layout.agent], table.names[layout.episode]
    agent = table.codes[layout.agent][order]
    episode, step = table.codes[layout.episode][order], table.numbers[layout.step][order]
    first = np.append(True, (np.diff(episode) != 0) | (np.diff(step) != 0))
    start = np.flatnonzero(first)
    n = len(names)
    if len(agent) == n * len(start) and (start % n == 0).all() and (agent == np.tile(np.arange(n), len(start))).all():
        return
    counts = np.diff(np.append(start, len(agent)))
    for begin, count in zip(start, counts, strict=True):
        present = agent[begin : begin + count]
        if count == len(names) and (present == np.arange(len(names))).all():
            continue
        where = f"{layout.episode} {episodes[episode[begin]]}, {layout.step} {step[begin]:g}"
        missing = [name for i, name in enumerate(names) if i not in present]
        if missing:
            raise UserError(
                f"{path}: {where} has no row of {missing[0]}, expected one of each agent ({', '.join(names)}); agents"
                " that leave before the others are not supported"
            )
        raise UserError(f"{path}: {where} has {count} rows, expected one of each of {len(names)} agents")
