"""The end of a run: one table that says what the team is worth, and ``results.json`` with the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from callbacks.evaluation import Evaluation
from momalit.core.distributed import gather_objects
from momalit.envs import references
from momalit.policies.coverage import VisitRecorder, distance_to_data
from momalit.policies.moma_ppo import MOMAPPOModule
from momalit.policies.team_policy import TeamPolicyModule
from momalit.studies.statistics import bootstrap_interval
from momalit.training.checkpoints import read_checkpoint
from momalit.training.run_directory import versions, write_json

RESULTS = "results.json"


def final_report(
    trainer: pl.Trainer,
    model: TeamPolicyModule,
    datamodule: Any,
    run_dir: Path,
    seed: int | None,
    started: float,
) -> dict[str, Any]:
    """Plays the test seeds with the last and the best checkpoint, writes ``results.json`` and shows the table.

    The best checkpoint is the one that the validation seeds chose. Every process must call this.

    Args:
        trainer: that has just finished.
        model: what it trained; its weights are those of the last epoch again afterwards.
        datamodule: what on.
        run_dir: where ``results.json`` goes.
        seed: of the run.
        started: when it began, in seconds since the epoch.

    Returns:
        the contents of ``results.json``.
    """
    evaluation = next((c for c in trainer.callbacks if isinstance(c, Evaluation)), None) or Evaluation()  # type: ignore[attr-defined]
    played: dict[str, Tensor] = {}
    imagined: dict[str, float | None] = {"last": None, "best": None}
    share, visits = (trainer.global_rank, trainer.world_size), {"last": VisitRecorder()}
    last = {name: value.clone() for name, value in model.state_dict().items()}
    model.eval()
    for name, weights in _candidates(trainer, last):
        model.load_state_dict(weights)
        played[name] = evaluation.play(model, "test", evaluation.test_episodes, *share, visits.get(name))
        if isinstance(model, MOMAPPOModule) and model.world_model is not None:
            imagined[name] = float(evaluation.imagine(model).mean())
    model.load_state_dict(last)
    distance = _distance(visits["last"].visited, datamodule)
    results = _results(model, datamodule, played, imagined, distance, seed, started, evaluation.deterministic)
    if trainer.is_global_zero:
        write_json(run_dir / RESULTS, results)
        Console().print(results_table(results))
    return results


def _candidates(trainer: pl.Trainer, last: dict[str, Tensor]) -> list[tuple[str, dict[str, Tensor]]]:
    """The weights to report on; the last ones stand for the best where no checkpoint was chosen."""
    path = best_checkpoint(trainer)
    best = last if path is None else read_checkpoint(path)["state_dict"]
    return [("last", last), ("best", best)]


def best_checkpoint(trainer: pl.Trainer) -> Path | None:
    """The file of the checkpoint that the validation seeds chose, or None if none was chosen."""
    path = ""
    for callback in trainer.checkpoint_callbacks:
        if getattr(callback, "monitor", None):
            path = getattr(callback, "best_model_path", "") or path
    return Path(path) if path and Path(path).is_file() else None


def _results(
    model: TeamPolicyModule,
    datamodule: Any,
    played: dict[str, Tensor],
    imagined: dict[str, float | None],
    distance: float | None,
    seed: int | None,
    started: float,
    deterministic: bool,
) -> dict[str, Any]:
    reference = references(model.spec)
    returns = getattr(datamodule, "returns", None)
    normalized = _normalizer(reference)
    results: dict[str, Any] = {
        "task": model.spec.task,
        "env": model.spec.env,
        "dataset": getattr(datamodule, "dataset", None),
        "method": type(model).__name__.removesuffix("Module"),
        "seed": seed,
        "episodes": len(played["last"]),
        "deterministic": deterministic,
        "return_data": None if returns is None else float(returns.mean()),
        "return_data_top": None if returns is None else top_mean(returns),
        "return_random": reference["random"] if reference else None,
        "return_expert": reference["expert"] if reference else None,
    }
    for name, values in played.items():
        mean = float(values.mean())
        results[f"return_{name}"] = mean
        results[f"return_{name}_interval"] = list(bootstrap_interval([values.double().numpy()]))
        results[f"normalized_{name}"] = normalized(mean)
        results[f"imagined_{name}"] = imagined[name]
    results["distance"] = distance
    results["wall_clock_seconds"] = round(time.time() - started, 1)
    results["versions"] = versions()
    return results


def _distance(visited: Tensor, datamodule: Any) -> float | None:
    """Mean distance from the data over all processes; None where there are no data to be far from."""
    train, held_out = (getattr(datamodule, name, None) for name in ("train", "test"))
    own = None if train is None or held_out is None else distance_to_data(visited, train, held_out)
    found = [value for value in gather_objects(own) if value is not None]
    return sum(found) / len(found) if found else None


def top_mean(returns: Tensor, share: float = 0.1) -> float:
    """Mean of the best ``share`` of returns ``(N,)``, of one at least."""
    return float(returns.topk(max(round(share * len(returns)), 1)).values.mean())


def _normalizer(reference: dict[str, float] | None) -> Callable[[float], float | None]:
    """The normalised score (R - R_random) / (R_expert - R_random) of a return; None without references."""

    def score(value: float) -> float | None:
        if reference is None or reference["expert"] == reference["random"]:
            return None
        return (value - reference["random"]) / (reference["expert"] - reference["random"])

    return score


def results_table(results: dict[str, Any]) -> Table:
    """The table for people, from the contents of ``results.json``."""
    score = _normalizer(
        None
        if results["return_random"] is None
        else {"random": results["return_random"], "expert": results["return_expert"]}
    )
    title = f"{results['method']} on {results['dataset'] or results['task']}, seed {results['seed']}"
    mode = "deterministic" if results["deterministic"] else "sampled"
    caption = f"{results['episodes']} episodes on test seeds, {mode}; 95 % intervals"
    table = Table(title=title, caption=caption)
    table.add_column("team")
    for column in ("return", "interval", "normalised", "imagined"):
        table.add_column(column, justify="right")

    def row(name: str, value: float | None, interval: list[float] | None = None, dream: float | None = None) -> None:
        if value is not None:
            span = "" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"
            table.add_row(name, f"{value:.2f}", span, _text(score(value)), _text(dream))

    row("random actions", results["return_random"])
    row("mean of the data", results["return_data"])
    row("best tenth of the data", results["return_data_top"])
    row("expert", results["return_expert"])
    table.add_section()
    row("last checkpoint", results["return_last"], results["return_last_interval"], results["imagined_last"])
    row("best checkpoint", results["return_best"], results["return_best_interval"], results["imagined_best"])
    return table


def _text(value: float | None) -> str:
    return "" if value is None or not torch.isfinite(torch.tensor(value)) else f"{value:.2f}"
