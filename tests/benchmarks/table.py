"""``python -m tests.benchmarks.table FILE``: prints the JSON file of pytest-benchmark as Markdown tables."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

COLUMNS = {
    "transitions_per_second": "transitions/s",
    "gflops": "GFLOP/s",
    "share_of_default": "of the default sgemm",
    "share_of_chosen": "of the sgemm used",
    "times_faster": "times the research code",
    "times_one_process": "times one process",
    "times_one_process_independent": "two independent processes",
    "peak_mb": "peak memory, MB",
    "memory_resident": "memory, times the raw size",
    "memory_peak": "peak while loading",
    "memory_peak_fitted": "peak while computing statistics",
}


PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}


def summary(benchmarks: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yields the lines of a summary table: the speed of each stage relative to the research code, over all tasks."""
    speedups: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for benchmark in benchmarks:
        if "times_faster" in benchmark["extra_info"]:
            words = benchmark["param"].split("-")
            precision = next(word for word in words if word in PRECISIONS)
            width = "".join(f", {word}" for word in words if word[0].isdigit())
            speedups[benchmark["group"] + width][precision].append(benchmark["extra_info"]["times_faster"])
    if speedups:
        yield f"| times as fast as the research code | {' | '.join(PRECISIONS.values())} |"
        yield "|---|" + "---|" * len(PRECISIONS)
    for stage, values in speedups.items():
        ranges = [(min(values[name]), max(values[name])) if values[name] else None for name in PRECISIONS]
        cells = ["" if ends is None else " to ".join(dict.fromkeys(f"{x:.1f}" for x in ends)) for ends in ranges]
        yield f"| {stage} | {' | '.join(cells)} |"


def lines(content: Mapping[str, Any]) -> Iterator[str]:
    """Yields the lines of all tables, one table per group of benchmarks."""
    benchmarks = sorted(content["benchmarks"], key=lambda benchmark: benchmark["group"] or "")
    first = benchmarks[0]["extra_info"]
    yield (
        f"{first['threads']} thread(s); float32 products of 1024x1024 matrices: {first['gflops_default']} GFLOP/s with"
        f" PyTorch's default library, {first['gflops_chosen']} with the used one.\n"
    )
    yield from summary(benchmarks)
    for group, members in groupby(benchmarks, key=lambda benchmark: benchmark["group"]):
        rows = list(members)
        shown = {key: title for key, title in COLUMNS.items() if any(key in row["extra_info"] for row in rows)}
        yield f"\n| {group} | ms | {' | '.join(shown.values())} |"
        yield "|---|" + "---|" * (len(shown) + 1)
        for row in rows:
            name = row["param"] or row["name"].removeprefix("test_")
            cells = [f"{round(row['extra_info'][key], 2):,}" if key in row["extra_info"] else "" for key in shown]
            yield f"| {name} | {1000 * row['stats']['min']:,.4g} | {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.stdout.write("\n".join(lines(json.loads(Path(sys.argv[1]).read_text()))) + "\n")
