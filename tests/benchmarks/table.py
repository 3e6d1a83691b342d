"""``python -m tests.benchmarks.table FILE``: prints the JSON file of pytest-benchmark as Markdown tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

COLUMNS = {
    "peer_ms": "peer, ms",
    "times_peer": "times as fast",
    "transitions_per_second": "transitions/s",
    "gflops": "GFLOP/s",
    "share_of_default": "of the default sgemm",
    "share_of_chosen": "of the sgemm used",
    "times_one_process": "times one process",
    "times_one_process_independent": "two independent processes",
    "peak_mb": "peak memory, MB",
    "memory_resident": "memory, times the raw size",
    "memory_peak": "peak while loading",
    "memory_peak_fitted": "peak while computing statistics",
}


def lines(content: Mapping[str, Any]) -> Iterator[str]:
    """Yields the lines of all tables, one table per group of benchmarks."""
    benchmarks = sorted(content["benchmarks"], key=lambda benchmark: benchmark["group"] or "")
    first = benchmarks[0]["extra_info"]
    yield (
        f"{first['threads']} thread(s); float32 products of 1024x1024 matrices: {first['gflops_default']} GFLOP/s with"
        f" PyTorch's default library, {first['gflops_chosen']} with the used one.\n"
    )
    for group, members in groupby(benchmarks, key=lambda benchmark: benchmark["group"]):
        rows = list(members)
        shown = {key: title for key, title in COLUMNS.items() if any(key in row["extra_info"] for row in rows)}
        yield f"\n| {group} | ms | {' | '.join(shown.values())} |"
        yield "|---|" + "---|" * (len(shown) + 1)
        for row in rows:
            name = row["param"] or row["name"].removeprefix("test_")
            cells = [f"{round(row['extra_info'][key], 2):,}" if key in row["extra_info"] else "" for key in shown]
            ms = row["extra_info"].get("median_ms", 1000 * row["stats"]["min"])
            yield f"| {name} | {ms:,.4g} | {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.stdout.write("\n".join(lines(json.loads(Path(sys.argv[1]).read_text()))) + "\n")
