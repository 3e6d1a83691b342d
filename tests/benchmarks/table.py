"""``python -m tests.benchmarks.table FILE``: the JSON of pytest-benchmark as tables in Markdown."""

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
    "times_one_process_apart": "two that share nothing",
    "peak_mb": "peak memory, MB",
    "memory_resident": "memory, times the raw size",
    "memory_peak": "at its peak",
    "memory_peak_fitted": "at the peak of taking statistics",
}


PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}


def summary(benchmarks: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """How many times as fast as the research code the stages are, over all tasks: a table of a few lines."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for each in benchmarks:
        if "times_faster" in each["extra_info"]:
            words = each["param"].split("-")
            number = next(word for word in words if word in PRECISIONS)
            width = "".join(f", {word}" for word in words if word[0].isdigit())
            found[each["group"] + width][number].append(each["extra_info"]["times_faster"])
    if found:
        yield f"| times as fast as the research code | {' | '.join(PRECISIONS.values())} |"
        yield "|---|" + "---|" * len(PRECISIONS)
    for stage, numbers in found.items():
        ends = [(min(numbers[name]), max(numbers[name])) if numbers[name] else None for name in PRECISIONS]
        cells = ["" if end is None else " to ".join(dict.fromkeys(f"{x:.1f}" for x in end)) for end in ends]
        yield f"| {stage} | {' | '.join(cells)} |"


def lines(content: Mapping[str, Any]) -> Iterator[str]:
    """The tables' lines, one table per group of benchmarks."""
    every = sorted(content["benchmarks"], key=lambda each: each["group"] or "")
    first = every[0]["extra_info"]
    yield (
        f"{first['threads']} thread(s); products of 1024x1024 in float32: {first['gflops_default']} GFLOP/s by"
        f" PyTorch's default library, {first['gflops_chosen']} by the one used.\n"
    )
    yield from summary(every)
    for group, members in groupby(every, key=lambda each: each["group"]):
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
