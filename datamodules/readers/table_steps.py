"""Turns the rows of a table into steps of a team: in order, complete, without empty columns."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.readers.steps import Steps, cell, filled_columns, team_reward
from datamodules.readers.table_file import TableColumns, read_columns
from datamodules.readers.table_layout import TableLayout
from momalit.core.errors import UserError
from momalit.core.team import STATE

logger = logging.getLogger(__name__)


def team_steps(path: Path, layout: TableLayout, reward: str = "mean") -> Steps:
    """Reads a table's rows as steps of the team, in the order of episodes and steps.

    Args:
        path: the table.
        layout: what its columns are.
        reward: the team's reward: ``mean`` or ``sum`` of several columns and agents; or the name of one reward column,
            where a row is the team's, or of one agent, where a row is an agent's.

    Raises:
        UserError: a column is missing, a cell is invalid, the agents of a step are not complete, or ``reward`` is none
            of the table's.
    """
    table = read_columns(path, layout.numbers, layout.flags, layout.names)
    episode = table.codes[layout.episode]
    if layout.step is not None and not (finite := np.isfinite(table.numbers[layout.step])).all():
        row = int(np.flatnonzero(~finite)[0])
        found = cell(table.numbers[layout.step][row])
        raise UserError(f"{path}: {layout.step} in data row {row + 1}: found {found}, expected a number")
    by = [episode] if layout.step is None else [table.numbers[layout.step], episode]
    if layout.agent is None:
        order = np.lexsort(by)
        _require_steps_once(path, layout, table, order)
        values, names = {n: v[order] for n, v in table.numbers.items()}, list(layout.agents)
        observations = {a: _stack(values, own.observations) for a, own in layout.agents.items()}
        actions = {a: _stack(values, own.actions) for a, own in layout.agents.items()}
        rewards, whose = _stack(values, layout.reward), list(layout.reward)
        flags = {name: flag[order] for name, flag in table.flags.items()}
        episode = episode[order]
        if layout.state:
            observations[STATE] = _stack(values, layout.state)
    else:
        assert layout.shared is not None
        names = table.names[layout.agent]
        order = np.lexsort([table.codes[layout.agent], *by])
        rows, there = _team_rows(path, layout, table, order)
        observations = {a: _stack(table.numbers, layout.shared.observations, rows[:, i]) for i, a in enumerate(names)}
        actions = {a: _stack(table.numbers, layout.shared.actions, rows[:, i]) for i, a in enumerate(names)}
        combine = np.sum if reward == "sum" else np.mean
        each = [combine(_stack(table.numbers, layout.reward, rows[:, i]), axis=1) for i in range(len(names))]
        rewards, whose = np.stack(each, 1) * there, names
        episode = episode[rows[:, 0]]
        stays = np.ones_like(there)  # the flag of an agent that leaves before the others ends nothing
        stays[:-1] = there[1:] | (np.diff(episode) != 0)[:, None]
        flags = {name: np.asarray((flag[rows] & there & stays).any(1)) for name, flag in table.flags.items()}
        if layout.state:
            observations[STATE] = _stack(table.numbers, layout.state, rows[np.arange(len(rows)), there.argmax(1)])
        _forget_absent(actions, there)
    never = np.zeros(len(episode), bool)
    leave = layout.agent is not None and not there.all()
    own = layout.agents or dict.fromkeys(names, layout.shared)
    named = {name: columns.observations for name, columns in own.items() if columns is not None}
    named |= {STATE: layout.state} if layout.state else {}
    filled = {name: filled_columns(path, f"observations of {name}", array) for name, array in observations.items()}
    used = {name: filled_columns(path, f"actions of {name}", array) for name, array in actions.items()}
    return Steps(
        episode,
        {name: array[:, filled[name]] for name, array in observations.items()},
        {name: array[:, used[name]] for name, array in actions.items()},
        team_reward(path, rewards, whose, reward),
        flags.get(layout.terminated or "", never),
        flags.get(layout.truncated or "", never),
        {name: [column for column, keep in zip(named[name], filled[name], strict=True) if keep] for name in filled},
        present=there if leave else None,
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


def _team_rows(
    path: Path, layout: TableLayout, table: TableColumns, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The row of every agent at every step, where each row is one agent's.

    Args:
        path: for messages.
        layout: the table's layout.
        table: its columns.
        order: rows in the order of episode, step and agent.

    Returns:
        rows ``(R, A)`` and whether the agent is there ``(R, A)`` bool. The row of one that has left is its last one.

    Raises:
        UserError: an agent has two rows in a step, is missing at first, or comes back.
    """
    assert layout.agent is not None
    assert layout.step is not None
    names, episodes = table.names[layout.agent], table.names[layout.episode]
    agent = table.codes[layout.agent][order]
    episode, step = table.codes[layout.episode][order], table.numbers[layout.step][order]
    first = np.append(True, (np.diff(episode) != 0) | (np.diff(step) != 0))
    start, number = np.flatnonzero(first), np.cumsum(first) - 1
    begins = np.append(True, np.diff(episode[start]) != 0)

    def refuse(at: np.ndarray, found: Callable[[int], str]) -> None:
        if at.any():
            i = int(np.flatnonzero(at)[0])
            where = f"{layout.episode} {episodes[episode[start[i]]]}, {layout.step} {step[start[i]]:g}"
            raise UserError(f"{path}: {where} {found(i)}")

    counts = np.zeros((len(start), len(names)), np.int64)
    np.add.at(counts, (number, agent), 1)
    there = counts > 0
    rows = np.zeros(counts.shape, np.int64)
    rows[number, agent] = order
    everybody = ", ".join(names)
    twice = counts > 1
    refuse(
        np.asarray(twice.any(1)),
        lambda i: f"has {counts[i].max()} rows of {names[int(twice[i].argmax())]}, expected one",
    )
    refuse(
        begins & ~there.all(1),
        lambda i: (
            f"has no row of {names[int((~there[i]).argmax())]}, expected one of each agent ({everybody}) at the"
            " first step; agents may leave, but not join later"
        ),
    )
    back = np.zeros_like(there)
    back[1:] = there[1:] & ~there[:-1] & ~begins[1:, None]
    refuse(
        np.asarray(back.any(1)),
        lambda i: (
            f"has a row of {names[int(back[i].argmax())]}, which has none in the step before, expected that agents"
            " stay away once they have left"
        ),
    )
    latest = np.maximum.accumulate(np.where(there, np.arange(len(rows))[:, None], 0), axis=0)
    return np.take_along_axis(rows, latest, 0), there


def _forget_absent(actions: dict[str, np.ndarray], there: np.ndarray) -> None:
    """Sets the actions of agents that have left, which repeat their last ones, to 0, or to none where nobody acts."""
    acting = np.zeros(len(there), bool)
    for i, values in enumerate(actions.values()):
        acting |= there[:, i] & ~np.isnan(values).all(1)
    for i, values in enumerate(actions.values()):
        values[~there[:, i]] = np.where(acting[~there[:, i], None], 0.0, np.nan)
