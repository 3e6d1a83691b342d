"""Sources of trajectories: datasets on disk, the behaviours that generate them, and real environments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from momalit.core.imports import lazy_getattr

if TYPE_CHECKING:
    from datamodules.builders.collect import collect
    from datamodules.environment import EnvironmentDataModule
    from datamodules.offline import OfflineDataModule
    from datamodules.readers.team_dataset import Dataset, read_dataset

__all__ = ["Dataset", "EnvironmentDataModule", "OfflineDataModule", "collect", "read_dataset"]

# Imported on first use, because the worker processes that generate datasets do not need Lightning.
__getattr__ = lazy_getattr(
    __name__,
    {
        "Dataset": "readers.team_dataset",
        "EnvironmentDataModule": "environment",
        "OfflineDataModule": "offline",
        "collect": "builders.collect",
        "read_dataset": "readers.team_dataset",
    },
)
