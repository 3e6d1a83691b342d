"""The command ``estimate``: the return of teams in the real task, from data alone."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser

from callbacks.real_episodes import episode_seeds
from datamodules import OfflineDataModule
from momalit.cli import configs
from momalit.cli.console import console, print_table
from momalit.cli.error_messages import parse_arguments
from momalit.cli.own_runs import require_named_env, require_own
from momalit.core.checks import require_choice, require_numbers
from momalit.core.errors import UserError
from momalit.envs.vector_env import VectorTeamEnv
from momalit.nn.actors import TeamActor
from momalit.policies.estimate import ReturnEstimator
from momalit.policies.fitted_q import fitted_q
from momalit.policies.rollout import play_episodes
from momalit.policies.team_policy import load_policies
from momalit.policies.world_model_files import load_world_model
from momalit.studies.estimates import Judged, estimates_table, remarks, write_estimates
from momalit.training.cpu import configure_cpu
from momalit.training.run_directory import RunDirectory

logger = logging.getLogger(__name__)


def run_estimate(arguments: list[str]) -> None:
    """Prints the estimated return of every team, and writes a table and a figure.

    Args:
        arguments: the command-line arguments after ``estimate``.

    Raises:
        UserError: an argument is invalid, or a team, its dataset or its world model cannot be read.
    """
    options = parse_arguments(_parser(), arguments)
    require_numbers("--", {"real": options.real}, least=0)
    require_numbers("--", {"episodes": options.episodes}, least=1)
    output = None if options.output is None else Path(options.output).expanduser()
    if output is not None and output.exists() and not output.is_dir():
        raise UserError(f"--output: {output} is a file, expected a directory")
    configure_cpu()
    checkpoints = [path for source in options.sources for path in _checkpoints(Path(source), options.checkpoint)]
    judges: dict[Path, ReturnEstimator] = {}
    data: dict[str, Any] = {}  # the runs of a study share their dataset
    judged = []
    for number, path in enumerate(checkpoints, 1):
        run = RunDirectory.around(path)
        if run is None:
            raise UserError(f"estimate: {path} is in no run's directory, expected one, which names the dataset")
        if run.path not in judges:
            judges = {run.path: _judge(run, options.world_model or path, options.episodes, data)}
        team = _judge_team(judges[run.path], run, path, options)
        judged.append(team)
        logger.info(
            "%d of %d teams: %s %.5g (%.5g to %.5g)", number, len(checkpoints), path, team.estimate, *team.interval
        )
    print_table(estimates_table(judged))
    for sentence in remarks(judged):
        console.print(f"- {sentence}", highlight=False, markup=False)
    if output is not None:
        write_estimates(output, judged)
        logger.info("table and figure are in %s", output)


def _checkpoints(source: Path, which: str) -> list[Path]:
    """The checkpoints of a run, or a checkpoint itself."""
    source = source.expanduser()
    if source.is_file():
        return [source]
    run = RunDirectory(source)
    require_choice("--checkpoint", which, ("last", "best", "both"))
    paths = [run.checkpoint(name) for name in (("last", "best") if which == "both" else (which,))]
    for path in paths:
        if not path.is_file():
            raise UserError(f"estimate: found no {path}, expected a run's directory or a checkpoint")
    return paths


def _judge(run: RunDirectory, world_model: str | Path, episodes: int, known: dict[str, Any]) -> ReturnEstimator:
    """The estimator of a run: its data, which are added to the known ones, and the world model in a checkpoint."""
    if not run.config.is_file():
        raise UserError(f"estimate: found no {run.config}, expected the configuration of a run")
    require_own(run.config)
    settings = configs.read(run.config)
    named = settings.get("data")
    if not isinstance(named, Mapping) or "class_path" not in named:
        raise UserError(f"{run.config}: data.class_path: missing, expected the class of the run's data")
    if named["class_path"] != "datamodules.OfflineDataModule":
        raise UserError(f"estimate: {run.path} was trained without a dataset, expected a run on one")
    arguments = named.get("init_args")
    if not isinstance(arguments, Mapping) or "dataset" not in arguments:
        raise UserError(f"{run.config}: data.init_args.dataset: missing, expected the run's dataset")
    key = json.dumps(arguments, sort_keys=True)
    data = known[key] = known.get(key) or OfflineDataModule(**arguments)
    model, sample_predictions = load_world_model(world_model, data.spec)
    if not model.space.describes(data.train):
        logger.warning(
            "estimate: %s was trained on other data than the training split of %s, whose held-out episodes it may know;"
            " if so, the intervals are too narrow",
            world_model, run.path,
        )  # fmt: skip
    held_out = data.test if len(data.test) else data.validation
    deterministic = (settings.get("evaluation") or {}).get("deterministic", True)
    horizon = data.spec.horizon
    return ReturnEstimator(model, held_out, data.train, horizon, episodes, sample_predictions, deterministic)


def _judge_team(judge: ReturnEstimator, run: RunDirectory, path: Path, options: Any) -> Judged:
    actor = load_policies(path)
    if options.real and actor.spec.env is None:
        raise UserError(f"--real: {path} names no environment, expected one to play in")
    if options.real:
        require_named_env(run.config, actor.spec)
    found = judge.estimate(actor)
    team = Judged(str(run.path), path.stem, found.mean, (found.low, found.high), found.outside)
    team.reward_explained = found.reward_explained
    if options.fitted_q:
        team.fitted_q = fitted_q(actor, judge.train, judge.initial_states)
    if options.real:
        returns = _real_returns(actor, options.real, judge.deterministic)
        error = returns.std() / len(returns) ** 0.5 if len(returns) > 1 else 0.0
        team.real, team.real_error = float(returns.mean()), float(error)
    return team


def _real_returns(actor: TeamActor, episodes: int, deterministic: bool) -> torch.Tensor:
    env, seeds = VectorTeamEnv(actor.spec, episodes), episode_seeds("test", episodes)
    noise = None if deterministic else torch.Generator().manual_seed(seeds[0])
    try:
        return play_episodes(env, actor, seeds, noise)
    finally:
        env.close()


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="momalit estimate",
        usage="python main.py estimate RUN [RUN ...] [--checkpoint last|best|both] [--world_model FILE] [--episodes N]"
        " [--real N] [--fitted_q true] [--output DIR]",
        description="Estimates the return of trained teams from data alone: imagined episodes in every member of the"
        " world model, corrected by held-out data, with an interval and the share of steps that the data do not cover.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument(
        "sources", type=str, nargs="+", metavar="RUN", help="directories of runs, or checkpoints in such directories"
    )
    parser.add_argument(
        "--checkpoint", type=str, default="last", metavar="NAME", help="checkpoint of a run: last, best or both"
    )
    parser.add_argument(
        "--world_model",
        type=str | None,
        default=None,
        metavar="FILE",
        help="checkpoint with the world model, as for teams of a baseline (if null: the one in the team's checkpoint)",
    )
    parser.add_argument("--episodes", type=int, default=500, metavar="N", help="imagined episodes per team")
    parser.add_argument(
        "--real",
        type=int,
        default=0,
        metavar="N",
        help="also play N real episodes on the test seeds, to see how good the estimates are",
    )
    parser.add_argument(
        "--fitted_q", type=bool, default=False, help="also fitted-Q evaluation: a discounted value, without a model"
    )
    parser.add_argument(
        "--output", type=str | None, default=None, metavar="DIR", help="also write estimates.csv and figures there"
    )
    return parser
