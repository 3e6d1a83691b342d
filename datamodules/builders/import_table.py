"""Imports a table of a team's steps (CSV or Parquet) as a dataset."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from datamodules.builders.imported import Built, import_once, stem
from datamodules.builders.steps_dataset import steps_dataset, summary
from datamodules.readers.table_layout import read_layout
from datamodules.readers.table_steps import team_steps
from momalit.core.errors import UserError


def import_table(
    source: str | Path, layout: str | Path, output: str | Path | None = None, reward: str = "mean"
) -> Path:
    """Imports a table, unless it exists already. For the ends of episodes see ``steps_dataset``.

    Args:
        source: a CSV (also compressed), TSV or Parquet file with one row per step, or one per step and agent.
        layout: a YAML file that says what the columns are, see ``TableLayout``.
        output: new directory for the dataset; None for its default location under ``$MOMALIT_HOME``.
        reward: how several rewards of a step become the team's, see ``team_steps``.

    Returns:
        the dataset's directory.

    Raises:
        UserError: the table or the layout is invalid, or ``output`` exists.
    """
    path = Path(source).expanduser()
    described = read_layout(Path(layout).expanduser())
    if not path.is_file():
        raise UserError(f"source: found no file {str(path)!r}, expected a CSV or Parquet file")
    task = described.task or stem(path)

    def build() -> Built:
        steps = team_steps(path, described, reward)
        unknown = [] if isinstance(described.discrete, bool) else sorted({*described.discrete} - {*steps.actions})
        if unknown:
            raise UserError(f"{layout}: discrete: found {unknown[0]}, expected agents of {', '.join(steps.actions)}")
        how = (described.discrete, described.choices, described.bounds)
        spec, trajectories, counts = steps_dataset(path, task, steps, *how)
        return spec, trajectories, {"columns": dict(steps.columns), "counts": counts}

    settings = {"layout": asdict(described), "reward": reward}
    return import_once(path, output, task, settings, build, lambda *found: summary(path, *found))
