"""Imports recordings with one array for all agents (see ``datamodules.readers.team_arrays``) as a dataset."""

from __future__ import annotations

from pathlib import Path

from datamodules.builders.imported import Built, import_once, stem
from datamodules.builders.steps_dataset import steps_dataset, summary
from datamodules.readers.team_arrays import read_team_arrays, recorded_steps


def import_team_arrays(source: str | Path, reward: str = "mean", output: str | Path | None = None) -> Path:
    """Imports an HDF5 file of OMIGA or a vault of OG-MARL, unless it exists already.

    For the ends of episodes see ``steps_dataset``.

    Args:
        source: the file, or the vault's directory.
        reward: the team's reward: ``mean`` or ``sum`` of the agents', or the name of one of them.
        output: new directory for the dataset; None for its default location under ``$MOMALIT_HOME``.

    Returns:
        the dataset's directory.

    Raises:
        UserError: the source is invalid, or ``output`` exists.
    """
    path = Path(source).expanduser()

    def build() -> Built:
        arrays = read_team_arrays(path)
        steps = recorded_steps(path, arrays, reward)
        spec, trajectories, counts = steps_dataset(path, stem(path), steps, arrays.discrete, arrays.choices)
        return spec, trajectories, {"counts": counts}

    return import_once(path, output, stem(path), {"reward": reward}, build, lambda *found: summary(path, *found))
