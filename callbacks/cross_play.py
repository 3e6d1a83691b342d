"""Cross-play: teams whose agents come from runs with different seeds."""

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

from callbacks.real_episodes import episode_seeds
from momalit.baselines.joint_agent import JointActor
from momalit.core.errors import UserError
from momalit.core.imports import import_by_path
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
    """Evaluates same-seed teams (all agents from one run) and cross-play teams (from several runs) on the test seeds.

    Args:
        runs: directories of at least two runs with the same method and task and different seeds.
        checkpoint: ``last`` or ``best``.
        episodes: number of episodes per team.
        most_teams: maximum number of teams; if there are more, cross-play teams are sampled at random.
        seed: seed of that sampling.

    Returns:
        for each team ``seeds`` (the training seeds of its agents, joined by ``+``), ``kind`` (``self`` for a same-seed
        team, ``cross`` for a cross-play team) and ``return``, the mean over episodes.

    Raises:
        UserError: a run has no such checkpoint, does not match the other runs, or has a joint agent.
    """
    if len(runs) < 2:
        raise UserError(f"cross-play: found {len(runs)} run, expected at least two of different seeds")
    teams = [_load_team(RunDirectory(Path(run)), checkpoint) for run in runs]
    for team, run in zip(teams[1:], runs[1:], strict=True):
        team.spec.require_same(teams[0].spec, str(runs[0]), str(run))
    names = [str(RunDirectory(Path(run)).record.get("seed")) for run in runs]
    if len(set(names)) < len(names):
        raise UserError(f"cross-play: found seeds {', '.join(names)}, expected runs of different seeds")
    actors = [team.deployed for team in teams]
    env = VectorTeamEnv(teams[0].spec, episodes)
    seeds = episode_seeds("test", episodes)
    results = []
    try:
        for assignment in team_assignments(len(runs), teams[0].spec.n_agents, most_teams, seed):
            returns: Tensor = play_episodes(env, CrossPlayTeam(actors, assignment), seeds)  # type: ignore[arg-type]
            kind = "self" if len(set(assignment)) == 1 else "cross"
            team_name = "+".join(names[run] for run in assignment)
            results.append({"seeds": team_name, "kind": kind, "return": float(returns.mean())})
    finally:
        env.close()
    return results


def team_assignments(n_runs: int, n_agents: int, most: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Returns the teams to evaluate. A team is a tuple with the index of the run that each agent comes from.

    Same-seed teams come first. There are ``n_runs ** n_agents - n_runs`` cross-play teams. If all teams together exceed
    ``most``, distinct cross-play teams, at least one, are sampled at random.
    """
    same_seed = [(run,) * n_agents for run in range(n_runs)]
    if n_runs**n_agents <= max(most, n_runs):
        return same_seed + [team for team in product(range(n_runs), repeat=n_agents) if len(set(team)) > 1]
    random = np.random.default_rng(seed)
    sampled: dict[tuple[int, ...], None] = {}
    while len(sampled) < max(most - n_runs, 1):
        team = tuple(int(run) for run in random.integers(n_runs, size=n_agents))
        if len(set(team)) > 1:
            sampled[team] = None
    return same_seed + list(sampled)


def cross_play_table(teams: Sequence[dict[str, Any]]) -> Table:
    """Returns a table of all teams' returns for the console."""
    table = Table(title="Cross-play", caption="mean return over the test seeds")
    table.add_column("seeds of the agents")
    table.add_column("return", justify="right")
    for kind, label in (("self", "same-seed"), ("cross", "cross-play")):
        rows = [team for team in teams if team["kind"] == kind]
        for team in rows:
            table.add_row(team["seeds"], f"{team['return']:.2f}")
        mean = float(np.mean([team["return"] for team in rows]))
        table.add_row(f"[bold]mean of {label} teams", f"[bold]{mean:.2f}")
        table.add_section()
    return table


def _load_team(run: RunDirectory, checkpoint: str) -> TeamPolicyModule:
    path = run.checkpoint(checkpoint)
    if not run.config.is_file() or not path.is_file():
        raise UserError(f"cross-play: found no finished run with checkpoints/{path.name} in {run.path}")
    kind = import_by_path(yaml.safe_load(run.config.read_text(encoding="utf-8"))["model"]["class_path"])
    if not (isinstance(kind, type) and issubclass(kind, TeamPolicyModule)):
        raise UserError(f"cross-play: {run.path} trained a {getattr(kind, '__name__', kind)}, expected a team")
    module = load_module(path, kind)
    if isinstance(module.deployed, JointActor):
        raise UserError(f"cross-play: {run.path} has one joint agent, expected decentralised agents")
    return module
