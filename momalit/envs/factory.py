"""Environments by name: the built-in tasks and any user-defined PettingZoo ParallelEnv."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pettingzoo import ParallelEnv

from momalit.core.errors import UserError
from momalit.core.imports import import_by_name
from momalit.core.team import TeamSpec
from momalit.envs.ant import Ant
from momalit.envs.coordination_game import CoordinationGame
from momalit.envs.factored_mujoco import MultiAgentMujoco
from momalit.envs.particles import spread, tag, world
from momalit.envs.reacher import Reacher
from momalit.envs.ridge_game import RidgeGame

TASKS: dict[str, Callable[..., ParallelEnv]] = {
    "ant": Ant,
    "icg": CoordinationGame,
    "mamujoco": MultiAgentMujoco,
    "reacher": Reacher,
    "ridges": RidgeGame,
    "spread": spread,
    "tag": tag,
    "world": world,
}


def make_env(name: str, **settings: Any) -> ParallelEnv:
    """Creates an environment.

    Args:
        name: a built-in task (a key of ``TASKS``) or ``package.module:callable`` that returns a ParallelEnv.
        settings: keyword arguments of the environment.

    Raises:
        UserError: the name or a setting is unknown, or the result is not a ParallelEnv.
    """
    make = TASKS[name] if name in TASKS else _import_callable(name)
    _check_settings(name, make, settings)
    try:
        env = make(**settings)
    except TypeError as error:
        raise UserError(f"env {name}: cannot be made with {settings or 'no settings'} ({error})") from error
    missing = [part for part in ("possible_agents", "reset", "step", "action_space") if not hasattr(env, part)]
    if missing:
        raise UserError(
            f"env {name}: made a {type(env).__name__} without {', '.join(missing)}, expected a PettingZoo ParallelEnv"
        )
    return env


def non_default_settings(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that differ from the environment's defaults, so that equal environments compare as equal.

    Args:
        name: name of the environment, as for ``make_env``.
        settings: keyword arguments; they are not validated here.
    """
    parameters = _parameters(TASKS[name] if name in TASKS else _import_callable(name)) or {}
    return {key: v for key, v in settings.items() if key not in parameters or parameters[key].default != v}


def references(spec: TeamSpec) -> dict[str, float] | None:
    """Returns the undiscounted returns of random actions and of an expert, or None if the task stores none.

    Args:
        spec: the team; ``spec.env`` is the name and the settings of the environment.

    Returns:
        ``{"random": ..., "expert": ...}``, which the normalised score maps to 0 and 1.
    """
    if spec.env is None:
        return None
    env = make_env(**spec.env)
    try:
        return env.references() if hasattr(env, "references") else None
    finally:
        env.close()


def suggestion(word: str, words: list[str]) -> str:
    """Returns ``"; did you mean X?"`` for the closest of ``words``, or an empty string if none is close."""
    close = difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _import_callable(name: str) -> Callable[..., ParallelEnv]:
    expected = f"one of {', '.join(TASKS)}, or package.module:callable{suggestion(name, list(TASKS))}"
    made = import_by_name(name, "env.name", expected)
    if not callable(made):
        raise UserError(
            f"env.name: found '{name}', a {type(made).__name__}, expected a callable that makes a ParallelEnv"
        )
    return made


def _parameters(make: Callable[..., ParallelEnv]) -> Mapping[str, inspect.Parameter] | None:
    try:
        return inspect.signature(make).parameters
    except ValueError:  # written in C, without a signature
        return None


def _check_settings(name: str, make: Callable[..., ParallelEnv], settings: dict[str, Any]) -> None:
    parameters = _parameters(make)
    if parameters is None or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for key in settings:
        if key not in parameters:
            raise UserError(
                f"env.{key}: not a setting of {name}, expected one of {', '.join(parameters) or '(none)'}"
                f"{suggestion(key, list(parameters))}"
            )
