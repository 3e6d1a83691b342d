"""Cross-play: agents of different trainings put into one team, which tells agreement from luck."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.table import Table
from torch import Tensor

from callbacks.evaluation import episode_seeds
from momalit.baselines.joint_agent import JointActor
from momalit.core.errors import UserError
from momalit.core.lazy_imports import import_by_path
from momalit.envs.vector_env import VectorTeamEnv
from momalit.nn.cross_play_team import CrossPlayTeam
from momalit.policies.rollout import play_episodes
from momalit.policies.team_policy import TeamPolicyModule
from momalit.training.checkpoints import load_module
from momalit.training.run_directory import RunDirectory

logger = logging.getLogger(__name__)


def cross_play(
    runs: Sequence[Path], checkpoint: str = "last", episodes: int = 100, most_teams: int = 25, seed: int = 0
) -> list[dict[str, Any]]:
    """Plays teams stitched from the agents of several runs, and the runs' own, on the test seeds.

    Args:
        runs: directories of at least two runs of one method on one task, with different seeds.
        checkpoint: ``last`` or ``best``.
        episodes: per team.
        most_teams: where there are more ways to stitch, as many are drawn at random.
        seed: of that draw.

    Returns:
        for every team ``seeds`` (the training seed of each agent, joined by ``+``), ``kind`` (``self`` or ``cross``)
        and ``return``, the mean over episodes.

    Raises:
        UserError: a run has no such checkpoint, or does not fit the others, or acts as one agent.
    """
    if len(runs) < 2:
        raise UserError(f"cross-play: found {len(runs)} run, expected at least two of different seeds")
    teams = [_team(RunDirectory(Path(run)), checkpoint) for run in runs]
    for team, run in zip(teams[1:], runs[1:], strict=True):
        team.spec.require_same(teams[0].spec, str(runs[0]), str(run))
    names = [str(RunDirectory(Path(run)).record.get("seed")) for run in runs]
    if len(set(names)) < len(names):
        raise UserError(f"cross-play: found seeds {', '.join(names)}, expected runs of different seeds")
    actors = [team.deployed for team in teams]
    env = VectorTeamEnv(teams[0].spec, episodes)
    seeds = episode_seeds("test", episodes)
    found = []
    try:
        for chosen in team_assignments(len(runs), teams[0].spec.n_agents, most_teams, seed):
            returns: Tensor = play_episodes(env, CrossPlayTeam(actors, chosen), seeds)  # type: ignore[arg-type]
            kind = "self" if len(set(chosen)) == 1 else "cross"
            team_name = "+".join(names[number] for number in chosen)
            found.append({"seeds": team_name, "kind": kind, "return": float(returns.mean())})
    finally:
        env.close()
    return found


def team_assignments(n_runs: int, n_agents: int, most: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Which run each agent comes from, for every team that is to be played.

    The runs' own teams come first. Of the others there are ``n_runs ** n_agents - n_runs``; where that is more than
    ``most`` allows, different ones are drawn at random.
    """
    own = [(number,) * n_agents for number in range(n_runs)]
    if n_runs**n_agents <= max(most, n_runs):
        return own + [team for team in product(range(n_runs), repeat=n_agents) if len(set(team)) > 1]
    random = np.random.default_rng(seed)
    drawn: dict[tuple[int, ...], None] = {}
    while len(drawn) < max(most - n_runs, 1):
        team = tuple(int(number) for number in random.integers(n_runs, size=n_agents))
        if len(set(team)) > 1:
            drawn[team] = None
    return own + list(drawn)


def cross_play_table(teams: Sequence[dict[str, Any]]) -> Table:
    """The table for people."""
    table = Table(title="Cross-play", caption="mean return over the test seeds")
    table.add_column("agents' seeds")
    table.add_column("return", justify="right")
    for kind in ("self", "cross"):
        rows = [team for team in teams if team["kind"] == kind]
        for team in rows:
            table.add_row(team["seeds"], f"{team['return']:.2f}")
        mean = float(np.mean([team["return"] for team in rows]))
        table.add_row(f"[bold]mean of {'their own' if kind == 'self' else 'stitched'} teams", f"[bold]{mean:.2f}")
        table.add_section()
    return table


def _team(run: RunDirectory, checkpoint: str) -> TeamPolicyModule:
    path = run.checkpoint(checkpoint)
    if not run.config.is_file() or not path.is_file():
        raise UserError(f"cross-play: found no finished run with checkpoints/{path.name} in {run.path}")
    kind = import_by_path(yaml.safe_load(run.config.read_text(encoding="utf-8"))["model"]["class_path"])
    if not (isinstance(kind, type) and issubclass(kind, TeamPolicyModule)):
        raise UserError(f"cross-play: {run.path} trained a {getattr(kind, '__name__', kind)}, expected a team")
    module = load_module(path, kind)
    if isinstance(module.deployed, JointActor):
        raise UserError(f"cross-play: {run.path} was trained to act as one agent, expected agents that act apart")
    return module
