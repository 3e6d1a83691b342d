"""Turns recorded steps into a team and its trajectories."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.readers.action_columns import ActionPart, action_part, joint_action
from datamodules.readers.last_steps import Cut, cut
from datamodules.readers.steps import Steps, cell
from momalit.core.errors import UserError
from momalit.core.team import PRESENT, AgentSpec, TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.envs.spec_from_env import index_map


def steps_dataset(
    path: Path,
    task: str,
    steps: Steps,
    discrete: bool | Collection[str] = False,
    choices: int | None = None,
    bounds: tuple[float, float] | None = None,
) -> tuple[TeamSpec, Trajectories, dict[str, int]]:
    """Builds the team and its trajectories from recorded steps.

    An episode's last row without actions is its last observation. If there is none, the observation after the last
    step is unknown: the step is left out, unless it terminated; then its next observation is extrapolated from the last
    two, so that a world model learns when episodes end.

    Args:
        path: the source, for messages.
        task: name of the task.
        steps: what was recorded.
        discrete: whether actions are numbers of choices, or the agents whose actions are.
        choices: number of choices; None for the largest action found plus 1.
        bounds: bounds of continuous actions; None for the smallest and largest found.

    Returns:
        the team, the trajectories, and numbers of steps that needed special treatment, by reason.

    Raises:
        UserError: a value is missing or not finite, an action is invalid, or no episode has a step.
    """
    rows, ended = _cut(path, steps)
    _require_numbers(path, steps, rows)
    agents, masks = list(steps.actions), steps.masks
    observations = {name: rows.states(array, masks.get(name, 0)) for name, array in steps.observations.items()}
    observed_columns = {name: observations[name].shape[1] - masks.get(name, 0) for name in agents}
    sources, observed, legal = index_map(observations, observed_columns)
    state = np.stack([observations[key][:, column] for key, column in sources], 1).astype(np.float32)
    present: list[int | None] = [None] * len(agents)
    if steps.present is not None:
        there = rows.states(steps.present.astype(np.float32), len(agents))
        present = [len(sources) + i for i in range(len(agents))]
        sources = (*sources, *((PRESENT, i) for i in range(len(agents))))
        state = np.concatenate([state, there], 1)
    chooses = agents if discrete is True else discrete or ()
    n = len(rows.transitions)
    parts: list[ActionPart] = []
    for i, name in enumerate(agents):
        acts = np.ones(n, bool) if steps.present is None else steps.present[rows.transitions, i]
        recorded = steps.actions[name][rows.transitions[acts]]
        values, size, low, high = action_part(path, name, recorded, name in chooses, choices, bounds)
        everywhere = np.zeros((n, size), np.float32)
        everywhere[acts] = values
        parts.append((everywhere, size, low, high))
    spec = TeamSpec(
        task=task,
        agents=tuple(
            AgentSpec(name, observed[name], *part[1:], legal[name], column)
            for name, part, column in zip(agents, parts, present, strict=True)
        ),
        state_size=len(sources),
        discrete=all(name in chooses for name in agents),
        horizon=int(rows.lengths.max()),
        sources=sources,
    )
    action = joint_action([part[0] for part in parts], spec)
    terminated = np.zeros(n, bool)
    last = rows.last()
    terminated[last] = ended[rows.transitions[last]]
    truncated = np.zeros(n, bool)
    truncated[last] = ~terminated[last]
    reward = steps.reward[rows.transitions].astype(np.float32)
    arrays = (state, action, reward, terminated, truncated, rows.lengths)
    counts = {"left out": rows.left_out, "extrapolated": int(rows.added.sum())}
    return spec, Trajectories.from_lengths(*map(torch.from_numpy, arrays)), counts


def kind_of_actions(spec: TeamSpec) -> str:
    """Whether a team's actions are choices, in a few words."""
    if spec.mixed:
        return f"actions that are choices of {', '.join(agent.name for agent in spec.agents if agent.discrete)}"
    return f"{spec.action_size} choices" if spec.discrete else "continuous actions"


def summary(path: Path, spec: TeamSpec, trajectories: Trajectories, facts: Mapping[str, Any]) -> str:
    """What was imported, in one line. ``facts`` has ``counts``, the third result of ``steps_dataset``."""
    parts = [
        f"{path}: {len(trajectories)} transitions in {len(trajectories.lengths)} episodes of {', '.join(spec.names)}"
        f" with {kind_of_actions(spec)}, {spec.state_size} state columns,"
        f" {int(trajectories.terminated.sum())} episodes terminated"
    ]
    if n := facts["counts"]["left out"]:
        parts.append(f"{n} last steps left out because the observation after them is unknown")
    if n := facts["counts"]["extrapolated"]:
        parts.append(f"{n} observations after terminated steps extrapolated")
    return "; ".join(parts)


def _cut(path: Path, steps: Steps) -> tuple[Cut, np.ndarray]:
    """Which rows become transitions, and whether the task ended with a row, ``(R,)`` bool."""
    acts = np.stack([~np.isnan(actions).all(1) for actions in steps.actions.values()], 1)
    starts = np.append(True, np.diff(steps.episode) != 0)
    ends = np.append(starts[1:], True)
    for wrong, found in (
        (acts.any(1) & ~acts.all(1), "actions of some agents only, expected those of all or of none"),
        (~acts.any(1) & ~ends, "no actions before the end of an episode, expected them at every step but the last"),
    ):
        if wrong.any():
            raise UserError(f"{path}: step {int(np.flatnonzero(wrong)[0]) + 1} of the recording: found {found}")
    observation = ends & ~starts & ~acts.any(1)
    before = np.append(observation[1:], False)  # with the last action; either row may have the flag
    early = (steps.terminated | steps.truncated) & ~ends & ~before
    if early.any():
        raise UserError(
            f"{path}: step {int(np.flatnonzero(early)[0]) + 1} of the recording: found an end (terminated or truncated)"
            ", expected it in the last row of an episode only; what follows needs another episode's name"
        )
    ended = steps.terminated.copy()
    ended[before] |= steps.terminated[observation]
    rows = cut(starts, ended, np.asarray(acts.all(1)))
    if not len(rows.lengths):
        raise UserError(f"{path}: found no episode of two or more rows, expected at least one")
    return rows, ended


def _require_numbers(path: Path, steps: Steps, cut: Cut) -> None:
    arrays = [(f"observation of {name}", array, cut.rows) for name, array in steps.observations.items()]
    arrays += [(f"action of {name}", array, cut.transitions) for name, array in steps.actions.items()]
    arrays.append(("reward", steps.reward[:, None], cut.transitions))
    for name, array, rows in arrays:
        finite = np.isfinite(array[rows])
        wrong = np.flatnonzero(~finite.all(1))
        if len(wrong):
            value = array[rows[wrong[0]]][~finite[wrong[0]]][0]
            raise UserError(
                f"{path}: {name} in step {int(rows[wrong[0]]) + 1} of the recording: found"
                f" {cell(value)}, expected a number ({len(wrong)} such steps)"
            )
