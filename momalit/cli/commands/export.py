"""The command ``export``: writes a team's agents for use elsewhere."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from momalit.cli.error_messages import parse_arguments
from momalit.core.checks import require_choice
from momalit.core.errors import UserError
from momalit.core.files import new_directory
from momalit.training.run_directory import RunDirectory

logger = logging.getLogger(__name__)


def run_export(arguments: list[str]) -> None:
    """Exports the team of a run or checkpoint.

    Args:
        arguments: the command-line arguments after ``export``.

    Raises:
        UserError: an argument is invalid, or there is no team.
    """
    options = parse_arguments(_parser(), arguments)
    from momalit.policies.export import FORMATS, export_team
    from momalit.policies.team_policy import load_policies

    formats = options.formats.split(",")
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"--formats: found '{name}', expected some of {','.join(FORMATS)}")
    checkpoint, run = _checkpoint(options.source, options.checkpoint)
    output = Path(options.output).expanduser()
    if output.exists():
        raise UserError(f"--output: {output} exists, expected a new directory")
    actor = load_policies(checkpoint)
    try:
        with new_directory(output) as partial:
            agents = export_team(actor, partial, _facts(run, checkpoint), formats)
    except OSError as error:
        raise UserError(f"--output: {output} cannot be written ({error.strerror})") from error
    logger.info("%d agents are in %s; README.md there says how to run them", len(agents), output)


def _checkpoint(source: str, which: str) -> tuple[Path, RunDirectory | None]:
    path = Path(source).expanduser()
    if path.is_file():
        return path, RunDirectory.around(path)
    run = RunDirectory(path)
    require_choice("--checkpoint", which, ("last", "best"))
    if not run.checkpoint(which).is_file():
        raise UserError(f"export: found no {run.checkpoint(which)}, expected a run's directory or a checkpoint")
    return run.checkpoint(which), run


def _facts(run: RunDirectory | None, checkpoint: Path) -> dict[str, Any]:
    """What the model card says about the run, with the returns of ``last`` or ``best``; other checkpoints have none."""
    facts: dict[str, Any] = {"checkpoint": checkpoint.name}
    if run is None:
        return facts
    record = run.record
    dataset = record.get("dataset") or {}
    facts |= {"dataset": dataset.get("dataset"), "fingerprint of the data": str(dataset.get("fingerprint"))[:16]}
    facts |= {"seed": record.get("seed"), "momalit": (record.get("versions") or {}).get("momalit")}
    try:
        results = json.loads((run.path / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return facts
    which = checkpoint.stem
    names = {f"return_{which}": "mean return", f"estimate_{which}": "return estimated from data"}
    for key, name in {**names, "return_data": "mean return of the dataset"}.items():
        if isinstance(results.get(key), int | float):
            facts[name] = f"{results[key]:.4g}"
    return facts


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="momalit export",
        usage="python main.py export RUN --output DIR [--checkpoint best] [--formats onnx,torch]",
        description="Writes each agent of a trained team as a network of its own (ONNX and torch.export), with a"
        " description, a runner that needs onnxruntime and numpy alone, and a model card.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("source", type=str, metavar="RUN", help="a run's directory, or a checkpoint")
    parser.add_argument("--output", type=str, required=True, metavar="DIR", help="new directory for the team")
    parser.add_argument(
        "--checkpoint", type=str, default="last", metavar="NAME", help="checkpoint of the run: last or best"
    )
    parser.add_argument(
        "--formats", type=str, default="onnx,torch", metavar="NAMES", help="onnx, torch, or both with a comma"
    )
    return parser
