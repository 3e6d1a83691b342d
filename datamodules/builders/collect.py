"""Generates datasets by running a behaviour in a real environment. Equal seeds give equal trajectories."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.builders.behaviours import make_behaviour
from datamodules.builders.play_episodes import run_behaviour
from datamodules.builders.recorded import Policy, RecordedPolicy, find_policy, kind_of
from datamodules.builders.snapshots import run_mixture, select_snapshots
from datamodules.builders.teams import TrainedTeams
from datamodules.names import DEFAULT_TRANSITIONS, dataset_id, datasets_root, split_name
from datamodules.readers.team_dataset import contents_hash
from datamodules.writer import write_dataset
from momalit.core.checks import require_integers
from momalit.core.errors import UserError
from momalit.core.files import locked
from momalit.core.team import TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.envs import make_env, team_spec
from momalit.envs.factory import non_default_settings
from momalit.envs.spaces import choices_of
from momalit.training.run_directory import versions_of

logger = logging.getLogger(__name__)

PACKAGES = ("numpy", "torch", "mujoco", "gymnasium", "pettingzoo", "minari")


def collect(
    dataset: str,
    env: Mapping[str, Any] | None = None,
    transitions: int | None = None,
    seed: int = 0,
    output: str | Path | None = None,
    policy: str | Policy | type | None = None,
    behaviour: Mapping[str, Any] | None = None,
    teams: Sequence[str | Path] = (),
) -> Path:
    """Generates a dataset, unless it exists already.

    Args:
        dataset: a built-in name such as ``reacher/expert-mix``, or ``package.module:callable/random``; with a policy or
            teams, the environment alone.
        env: settings of the task.
        transitions: minimum number of transitions; all episodes are complete. None for the task's default.
        seed: seed of the whole dataset.
        output: new directory for the dataset; None for its default location under ``$MOMALIT_HOME``. A policy that is
            no name needs one.
        policy: policies of your own to record (see ``RecordedPolicy``), or their ``package.module:name``.
        behaviour: settings of what plays a built-in dataset (see ``datamodules.builders.behaviours``), such as
            ``{"mixed": 0.3}`` for ``icg/conflicting``; None for that dataset's own.
        teams: checkpoints or run directories of trained teams, which play one after the other (see ``TrainedTeams``).
            They need an ``output``.

    Returns:
        the dataset's directory.

    Raises:
        UserError: the name or a setting is unknown, or ``output`` exists.
    """
    own = policy is not None or bool(teams)
    task, kind = (dataset.removesuffix("/random"), "teams") if own else split_name(dataset)
    if policy is not None and teams:
        raise UserError("--policy: found one and --team, too, expected one of them")
    if teams and output is None:
        raise UserError("output: found none, expected a new directory for what the teams do")
    recorded = None
    if policy is not None:
        recorded = find_policy(policy)
        kind = kind_of(recorded[1])
        if output is None and not isinstance(policy, str):
            raise UserError("output: found none, expected a new directory for what a policy without a name did")
    settings = _settings(task, env)
    transitions = _transitions(task, transitions)
    behaviour = dict(behaviour or {})
    if behaviour:
        _require_settings(task, kind, behaviour, own)
    name = _identifier(task, kind, settings, transitions, seed, behaviour)
    target = Path(output).expanduser() if output is not None else datasets_root() / name
    if output is not None and target.exists():
        raise UserError(f"output: {target} exists, expected a new directory")
    with ExitStack() as stack:
        try:  # a dataset that exists is used from where nothing can be written, too
            if output is None and not target.exists():
                message = f"{dataset}: another process is collecting it; waiting for it"
                stack.enter_context(locked(target, message))
        except OSError as error:
            raise UserError(f"dataset {target}: cannot be written ({error.strerror})") from error
        if target.exists():
            logger.info("%s is already at %s", dataset, target)
            return target
        logger.info("collecting %s: %d transitions, seed %d, into %s", dataset, transitions, seed, target)
        spec, trajectories, generator = _play(task, kind, settings, transitions, seed, recorded, behaviour, teams)
        provenance = {
            "dataset": dataset,
            "settings": settings,
            **({"behaviour": behaviour} if behaviour else {}),
            "transitions": transitions,
            "seed": seed,
            "generator": generator,
            "versions": versions(),
            "sha256": contents_hash(spec, trajectories),
        }
        write_dataset(target, name, spec, trajectories, provenance)
    return target


def spec_to_collect(
    dataset: str,
    env: Mapping[str, Any] | None = None,
    transitions: int | None = None,
    seed: int = 0,
    behaviour: Mapping[str, Any] | None = None,
) -> TeamSpec | None:
    """Returns the team of a built-in dataset that ``collect`` would generate; None if the dataset exists already.

    The arguments are those of ``collect``.

    Raises:
        UserError: the name or a setting is unknown.
    """
    task, kind = split_name(dataset)
    settings = _settings(task, env)
    name = _identifier(task, kind, settings, _transitions(task, transitions), seed, behaviour or {})
    if (datasets_root() / name).exists():
        return None
    instance = make_env(task, **settings)
    try:
        return team_spec(instance, task, settings)
    finally:
        instance.close()


def _settings(task: str, env: Mapping[str, Any] | None) -> dict[str, Any]:
    return non_default_settings(task, {key: value for key, value in (env or {}).items() if key != "name"})


def _transitions(task: str, given: int | None) -> int:
    transitions = DEFAULT_TRANSITIONS.get(task, 10_000) if given is None else given
    require_integers("data.", {"transitions": transitions}, 1)
    return transitions


def _identifier(
    task: str, kind: str, settings: Mapping[str, Any], transitions: int, seed: int, behaviour: Mapping[str, Any]
) -> str:
    named = {**settings, **{f"behaviour.{key}": value for key, value in behaviour.items()}}
    return dataset_id(task, kind, named, transitions, seed)


def _play(
    task: str,
    kind: str,
    settings: Mapping[str, Any],
    transitions: int,
    seed: int,
    recorded: tuple[Policy | type, str] | None,
    behaviour: Mapping[str, Any],
    teams: Sequence[str | Path],
) -> tuple[TeamSpec, Trajectories, dict[str, Any]]:
    """Plays the episodes of a dataset; also returns the team and what generated them."""
    instance = make_env(task, **settings)
    spec = team_spec(instance, task, settings)
    found = {agent: choices_of(agent, instance.action_space(agent)) for agent in spec.names}
    choices = {agent: own for agent, own in found.items() if own is not None}
    instance.close()
    if teams:
        trained = TrainedTeams(spec, teams)
        return spec, trained.play(transitions, seed, f"{task}, {len(teams)} trained"), trained.settings()
    if snapshots := select_snapshots(task, kind):
        trajectories = run_mixture(spec, snapshots, transitions, seed, f"{task}/{kind}")
        return spec, trajectories, {"snapshots": [snapshot.description() for snapshot in snapshots]}
    rng = np.random.default_rng(seed)
    player = (
        RecordedPolicy(spec, *recorded, choices)
        if recorded is not None
        else make_behaviour(task, kind, behaviour)(spec, -(-transitions // spec.horizon), rng)
    )
    return spec, run_behaviour(spec, player, transitions, rng, label=f"{task}/{kind}"), player.settings()


def _require_settings(task: str, kind: str, behaviour: Mapping[str, Any], own: bool) -> None:
    """Checks that what plays the dataset has these settings; their values are checked when it is made."""
    if own or select_snapshots(task, kind):
        who = "recorded policies have" if own else f"the policies of {task}/{kind} have"
        raise UserError(f"data.behaviour: found {dict(behaviour)!r}, but {who} no settings")
    make_behaviour(task, kind, behaviour)


def versions() -> dict[str, str]:
    """Versions of the packages that a dataset's contents depend on."""
    return versions_of(PACKAGES)
