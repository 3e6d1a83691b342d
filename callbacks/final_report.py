"""The final report of a run: a table of returns on the console, and ``results.json``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from callbacks.evaluation import Evaluation, Judgement
from momalit.core.distributed import gather_objects
from momalit.envs import references
from momalit.policies.coverage import VisitRecorder, distance_to_data
from momalit.policies.estimate import ReturnEstimate
from momalit.policies.figure_data import figure_data
from momalit.policies.model_check import errors_on_path, over_time
from momalit.policies.moma_ppo import MOMAPPOModule
from momalit.policies.team_policy import TeamPolicyModule
from momalit.studies.estimates import MANY_OUTSIDE, WELL_EXPLAINED, poorly_explained
from momalit.studies.run_page import FIGURES, write_run_page
from momalit.studies.statistics import bootstrap_interval
from momalit.studies.tables import REFERENCES, format_number
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
    """Evaluates the last and the best checkpoint on the test seeds, writes ``results.json`` and prints the table.

    Without an environment there are no real returns (``return_last`` is null), and the world model's remain.

    The best checkpoint is the one with the highest return at a validation; for teams that train in a world model, the
    latest that is not clearly worse in it than the highest one. Every process must call this.

    Args:
        trainer: the trainer, after ``fit``.
        model: the trained module. It has the weights of the last epoch before and after this call.
        datamodule: its data.
        run_dir: the directory of ``results.json``.
        seed: seed of the run.
        started: start time of the run, in seconds since the Unix epoch.

    Returns:
        the contents of ``results.json``.
    """
    evaluation = next((c for c in trainer.callbacks if isinstance(c, Evaluation)), None) or Evaluation()  # type: ignore[attr-defined]
    judged: dict[str, Judgement] = {}
    model_check: dict[str, Any] | None = None
    figures: dict[str, Any] | None = None
    changed: dict[str, Tensor] = {}
    last = {name: value.clone() for name, value in model.state_dict().items()}
    model.eval()
    for name, weights in _weights_to_evaluate(trainer, last):
        if judged and _same(weights, last):
            judged[name] = judged["last"]
            continue
        model.load_state_dict(weights)
        share = trainer.global_rank, trainer.world_size
        found = judged[name] = evaluation.judge(model, "test", evaluation.test_episodes, *share, record=not judged)
        if name == "last" and isinstance(model, MOMAPPOModule) and found.estimate is not None:
            model_check = _check_model(model, found.visits, found.estimate)
            figures = _figures(model, found.estimate)
        if name == "last":
            changed = evaluation.in_changed_worlds(model, *share)
    model.load_state_dict(last)
    returns = {name: team.returns for name, team in judged.items() if team.returns is not None}
    estimates = {name: team.estimate for name, team in judged.items() if team.estimate is not None}
    distance = _distance(judged["last"].visits.visited, datamodule)
    results = _results(model, datamodule, returns, estimates, distance, seed, started, evaluation.deterministic)
    results["model_check"] = model_check
    results["changed"] = _changed(changed)
    if trainer.is_global_zero:
        write_json(run_dir / RESULTS, results)
        if figures is not None:
            write_json(run_dir / FIGURES, figures)
        write_run_page(run_dir)
        Console().print(results_table(results))
        if model_check is not None:
            Console().print(model_check_table(model_check))
    return results


def _check_model(model: MOMAPPOModule, visits: VisitRecorder, estimate: ReturnEstimate) -> dict[str, Any] | None:
    """Where imagination and this process's real episodes part; None without real episodes or a test split."""
    visited, held_out = visits.transitions, model.data.test
    if visited is None or not len(held_out):
        return None
    errors = errors_on_path(model.model, visited, held_out)
    return {**errors, "over_time": over_time(visits.rewards, estimate.rollout, len(visits.rewards[0]))}


def _figures(model: MOMAPPOModule, estimate: ReturnEstimate) -> dict[str, Any] | None:
    """What the figures of the run's page show; None without a test split."""
    data = model.data
    if not len(data.test):
        return None
    return figure_data(model.spec, model.model, estimate.rollout, data.train, data.test)


def _weights_to_evaluate(trainer: pl.Trainer, last: dict[str, Tensor]) -> list[tuple[str, dict[str, Tensor]]]:
    """Returns the ``last`` and the ``best`` weights; without a best checkpoint both are the last ones."""
    path = best_checkpoint(trainer)
    best = last if path is None else read_checkpoint(path)["state_dict"]
    return [("last", last), ("best", best)]


def _same(weights: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return all(torch.equal(weights[name], value.cpu()) for name, value in others.items())


def best_checkpoint(trainer: pl.Trainer) -> Path | None:
    """Returns the file of the checkpoint with the best monitored metric, or None if there is none."""
    path = ""
    for callback in trainer.checkpoint_callbacks:
        if getattr(callback, "monitor", None):
            path = getattr(callback, "best_model_path", "") or path
    return Path(path) if path and Path(path).is_file() else None


def _results(
    model: TeamPolicyModule,
    datamodule: Any,
    returns: dict[str, Tensor],
    estimates: dict[str, ReturnEstimate],
    distance: float | None,
    seed: int | None,
    started: float,
    deterministic: bool,
) -> dict[str, Any]:
    reference = references(model.spec)
    data_returns = getattr(datamodule, "known_returns", None)
    normalized = _normalizer(reference)
    results: dict[str, Any] = {
        "task": model.spec.task,
        "env": model.spec.env,
        "dataset": getattr(datamodule, "dataset", None),
        "method": type(model).__name__.removesuffix("Module"),
        "seed": seed,
        "episodes": len(returns["last"]) if returns else 0,
        "deterministic": deterministic,
        "return_data": None if data_returns is None else float(data_returns.mean()),
        "return_data_top": None if data_returns is None else top_mean(data_returns),
        "return_random": reference["random"] if reference else None,
        "return_expert": reference["expert"] if reference else None,
    }
    for name in ("last", "best"):
        real, estimate = _mean_and_interval(returns.get(name)), estimates.get(name)
        results[f"return_{name}"], results[f"return_{name}_interval"] = real
        results[f"normalized_{name}"] = None if real[0] is None else normalized(real[0])
        results[f"estimate_{name}"] = None if estimate is None else estimate.mean
        results[f"estimate_{name}_interval"] = None if estimate is None else [estimate.low, estimate.high]
        results[f"outside_{name}"] = None if estimate is None else estimate.outside
    results["reward_explained"] = estimates["last"].reward_explained if estimates else None
    symmetries = getattr(datamodule, "symmetries", None) if isinstance(model, MOMAPPOModule) else None
    results["symmetries"] = None if symmetries is None else len(symmetries)
    results["distance"] = distance
    results["wall_clock_seconds"] = round(time.time() - started, 1)
    results["versions"] = versions()
    return results


def _changed(returns: dict[str, Tensor]) -> dict[str, Any]:
    """The returns in changed worlds, as in ``results.json``."""
    found = {name: _mean_and_interval(values) for name, values in returns.items()}
    return {name: {"return": mean, "interval": interval} for name, (mean, interval) in found.items()}


def _mean_and_interval(returns: Tensor | None) -> tuple[float | None, list[float] | None]:
    """Mean of the returns ``(N,)`` and its 95 % interval over episodes; None for both without returns."""
    if returns is None:
        return None, None
    return float(returns.mean()), list(bootstrap_interval([returns.double().numpy()]))


def _distance(visited: Tensor, datamodule: Any) -> float | None:
    """Returns the mean distance to the dataset over all processes; None without a dataset."""
    train, held_out = (getattr(datamodule, name, None) for name in ("train", "test"))
    own = None if train is None or held_out is None else distance_to_data(visited, train, held_out)
    distances = [value for value in gather_objects(own) if value is not None]
    return sum(distances) / len(distances) if distances else None


def top_mean(returns: Tensor, fraction: float = 0.1) -> float:
    """Returns the mean of the highest ``fraction`` of the returns ``(N,)``, of at least one return."""
    return float(returns.topk(max(round(fraction * len(returns)), 1)).values.mean())


def _normalizer(reference: dict[str, float] | None) -> Callable[[float], float | None]:
    """Returns a function that maps a return R to the normalised score (R - R_random) / (R_expert - R_random).

    Without reference returns the function returns None.
    """

    def score(value: float) -> float | None:
        if reference is None or reference["expert"] == reference["random"]:
            return None
        return (value - reference["random"]) / (reference["expert"] - reference["random"])

    return score


def results_table(results: dict[str, Any]) -> Table:
    """Returns a table of the contents of ``results.json`` for the console."""
    score = _normalizer(
        None
        if results["return_random"] is None
        else {"random": results["return_random"], "expert": results["return_expert"]}
    )
    title = f"{results['method']} on {results['dataset'] or results['task']}, seed {results['seed']}"
    mode = "deterministic" if results["deterministic"] else "sampled"
    caption = f"{results['episodes']} episodes on test seeds, {mode}; 95 % intervals"
    if not results["episodes"]:
        caption = "no real episodes: data.env.name adds them (and evaluation.environment false omits them)"
    table = Table(title=title, caption="\n".join([caption, *_estimate_in_words(results)]))
    table.add_column("team")
    for column in ("return", "interval", "normalised", "estimate"):
        table.add_column(column, justify="right")
    for key, name in REFERENCES:
        value = results[key]
        if value is not None:
            table.add_row(name, _text(value), "", _text(score(value)))
    table.add_section()
    for which in ("last", "best"):
        value, estimate = results[f"return_{which}"], results[f"estimate_{which}"]
        interval = results[f"return_{which}_interval"] or results[f"estimate_{which}_interval"]
        if interval is not None:
            cells = (_text(value), _span(interval), _text(None if value is None else score(value)), _text(estimate))
            table.add_row(f"{which} checkpoint", *cells)
    for name, found in results["changed"].items():
        value = found["return"]
        table.add_row(f"last checkpoint, {name}", _text(value), _span(found["interval"]), _text(score(value)))
    return table


def _estimate_in_words(results: dict[str, Any]) -> list[str]:
    """What data alone say about the last checkpoint; empty without an estimate."""
    estimate, interval, outside = (
        results[name] for name in ("estimate_last", "estimate_last_interval", "outside_last")
    )
    if estimate is None:
        return []
    line = f"estimated from data alone, last checkpoint: {_text(estimate)} ({_span(interval)})"
    if outside is not None:
        line += f"; {100 * outside:.0f} % of its steps are outside the data"
        line += ", where this is a guess" if outside > MANY_OUTSIDE else ""
    explained = results["reward_explained"]
    return [line, *([] if explained is None or explained >= WELL_EXPLAINED else [poorly_explained(explained)])]


def model_check_table(check: dict[str, Any]) -> Table:
    """Returns a table of the entry ``model_check`` of ``results.json`` for the console."""
    target, bias = next(iter(check["path"]["bias"].items()))
    error, doubt = (f"{check['path'][name]:.3g} ({check['held_out'][name]:.3g})" for name in ("error", "uncertainty"))
    table = Table(
        title="Imagination and reality over time, last checkpoint",
        caption=(
            f"the model on the team's path (on held-out data): squared error {error}, uncertainty {doubt};"
            f" largest bias {target}: {bias:+.2g} standard deviations a step"
        ),
    )
    table.add_column("steps")
    for column in ("real reward", "imagined reward", "real running", "imagined running"):
        table.add_column(column, justify="right")
    for part in check["over_time"]:
        cells = (f"{part['real_reward']:.3f}", f"{part['imagined_reward']:.3f}")
        running = (f"{part['real_running']:.0%}", f"{part['imagined_running']:.0%}")
        table.add_row(f"{part['from']} to {part['to']}", *cells, *running)
    return table


def _span(interval: list[float]) -> str:
    return f"{_text(interval[0])} to {_text(interval[1])}"


def _text(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else format_number(value)
