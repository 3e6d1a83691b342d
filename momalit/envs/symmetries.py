"""Symmetries of a task, given as functions of observations and actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from momalit.core.errors import UserError
from momalit.core.imports import import_by_name
from momalit.core.symmetries import Symmetries, Symmetry, generated
from momalit.core.team import PRESENT, STATE, TeamSpec
from momalit.envs.factory import make_env

DECLARED = "declared"
TOLERANCE = 1e-5


def symmetries_named(name: str, spec: TeamSpec) -> Symmetries:
    """Returns the symmetries of a team's task.

    Args:
        name: ``declared`` for those in the environment's attribute ``symmetries``, or ``module:name`` of a
            symmetry or of a list of them.
        spec: the team.

    Raises:
        UserError: there are none of this name, or one of them is no symmetry.
    """
    if name == DECLARED:
        return symmetries_of(spec, _declared(spec))
    found = import_by_name(name, "data.symmetries", f"{DECLARED} or module:name")
    generators = [found] if callable(found) else found
    if not isinstance(generators, list | tuple) or not all(map(callable, generators)):
        raise UserError(f"data.symmetries: found '{name}', expected the name of a function or of a list of functions")
    return symmetries_of(spec, generators)


def symmetries_of(spec: TeamSpec, generators: Sequence[Symmetry]) -> Symmetries:
    """Returns the maps of state and joint action that symmetries and their repeated application amount to.

    A symmetry is a function. It takes what every agent observes, ``{agent: (columns,)}``, together with the columns of
    the environment's ``state()``, if it has one, as ``"state"``, and the agents' actions, ``{agent: (components,)}``,
    where a discrete action is a one-hot vector. It returns both as they would be in the mirrored, rotated or relabelled
    world. Rewards, terminations and the next step must be those of that world. It has to be affine, and actions must
    not depend on observations, nor the other way round. Where agents leave, ``"present"`` says who is there.

    Args:
        spec: the team.
        generators: the symmetries.

    Raises:
        UserError: a function fails, returns other shapes, is not affine, cannot be undone, or leaves the actions'
            bounds.
    """
    if not generators:
        raise UserError("data.symmetries: found none, expected at least one")
    maps = [_Probe(spec, function).map() for function in generators]
    return generated([matrix for matrix, _ in maps], [offset for _, offset in maps])


class _Probe:
    """Finds out the matrix of a symmetry by applying it to one column after the other."""

    def __init__(self, spec: TeamSpec, function: Symmetry) -> None:
        self._spec, self._function = spec, function
        self._name = f"data.symmetries: {getattr(function, '__name__', type(function).__name__)}"
        self._size = spec.state_size + spec.n_agents * spec.action_size
        columns = {agent.name: (*agent.observes, *agent.legal) for agent in spec.agents}
        for key in (STATE, PRESENT):
            if own := tuple(i for i, (source, _) in enumerate(spec.sources) if source == key):
                columns[key] = own
        self._columns = {key: np.array(places, dtype=np.int64) for key, places in columns.items()}
        self._needed = {key for key, _ in spec.sources}
        self._moves = spec.action_mask().numpy().astype(bool)

    def map(self) -> tuple[np.ndarray, np.ndarray]:
        """The matrix ``(D, D)`` and the offset ``(D,)`` of state and padded joint action.

        Raises:
            UserError: see ``symmetries_of``.
        """
        offset = self._apply(np.zeros(self._size))
        matrix = np.stack([self._apply(row) for row in np.eye(self._size)], 1) - offset[:, None]
        pads = np.flatnonzero(~self._action_columns())
        matrix[pads, pads] = 1.0
        self._require_affine(matrix, offset)
        self._require_bounds(matrix, offset)
        return matrix, offset

    def _action_columns(self) -> np.ndarray:
        """False for the padding of actions, ``(D,)``."""
        return np.concatenate([np.ones(self._spec.state_size, bool), self._moves.ravel()])

    def _apply(self, row: np.ndarray) -> np.ndarray:
        """The function of one ``[state ; padded joint action]``."""
        spec = self._spec
        state, joint = row[: spec.state_size], row[spec.state_size :].reshape(self._moves.shape)
        observations = {key: state[places] for key, places in self._columns.items()}
        actions = {agent.name: joint[i][self._moves[i]] for i, agent in enumerate(spec.agents)}
        sizes = {name: len(action) for name, action in actions.items()}
        try:
            seen, done = self._function(observations, actions)
        except Exception as error:  # whatever a user's function raises
            raise UserError(f"{self._name}: failed with {type(error).__name__}: {error}") from error
        seen = {key: self._part("observation", seen, key, len(self._columns[key])) for key in self._needed}
        done = {name: self._part("action", done, name, size) for name, size in sizes.items()}
        moved = np.zeros(self._moves.shape)
        for i, agent in enumerate(spec.agents):
            moved[i][self._moves[i]] = done[agent.name]
        return np.concatenate([[seen[key][column] for key, column in spec.sources], moved.ravel()])

    def _part(self, kind: str, parts: Any, key: str, size: int) -> np.ndarray:
        if not isinstance(parts, Mapping) or key not in parts:
            raise UserError(f"{self._name}: found no {kind} of {key} in what it returns, expected one")
        value = np.asarray(parts[key], np.float64)
        if value.shape != (size,):
            raise UserError(f"{self._name}: found shape {value.shape} for the {kind} of {key}, expected ({size},)")
        return value

    def _require_affine(self, matrix: np.ndarray, offset: np.ndarray) -> None:
        size, random = self._spec.state_size, np.random.default_rng(0)
        rows = random.uniform(-1.0, 1.0, (8, self._size)) * self._action_columns()
        images = np.stack([self._apply(row) for row in rows])
        if np.abs(images - (rows @ matrix.T + offset)).max() > TOLERANCE * max(1.0, np.abs(images).max()):
            raise UserError(f"{self._name}: found a function that is not affine, expected one: x -> A x + b")
        if np.abs(matrix[:size, size:]).max() > TOLERANCE or np.abs(matrix[size:, :size]).max() > TOLERANCE:
            raise UserError(
                f"{self._name}: found observations that depend on actions, or actions on observations, expected neither"
            )
        volume = np.linalg.slogdet(matrix)[1]
        if not abs(volume) < 1e-3:
            raise UserError(f"{self._name}: found a map that cannot be undone or that scales, expected a symmetry")

    def _require_bounds(self, matrix: np.ndarray, offset: np.ndarray) -> None:
        spec = self._spec
        size, low, high = spec.state_size, spec.action_low().numpy(), spec.action_high().numpy()
        centre, radius = ((low + high) / 2).ravel(), ((high - low) / 2).ravel()
        matrix, offset = matrix[size:, size:], offset[size:]
        same = np.allclose(matrix @ centre + offset, centre, atol=TOLERANCE)
        if not same or not np.allclose(np.abs(matrix) @ radius, radius, atol=TOLERANCE):
            raise UserError(f"{self._name}: found actions outside their bounds, expected each box mapped onto one")


def _declared(spec: TeamSpec) -> list[Symmetry]:
    if spec.env is None:
        raise UserError(
            f"data.symmetries: found {DECLARED}, but the dataset has no environment that could declare them, expected"
            " module:name of functions"
        )
    env = make_env(**spec.env)
    try:
        found = list(getattr(env, "symmetries", ()))
    finally:
        env.close()
    if not found:
        raise UserError(
            f"data.symmetries: found {DECLARED}, but {spec.env['name']} declares none, expected null or module:name"
        )
    return found
