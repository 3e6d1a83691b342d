"""Where trajectories come from: datasets on disk, the experts that fill them, and real environments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from momalit.core.lazy_imports import lazy_getattr

if TYPE_CHECKING:
    from datamodules.builders.collect import collect
    from datamodules.environment import EnvironmentDataModule
    from datamodules.offline import OfflineDataModule
    from datamodules.readers.team_dataset import Dataset, read_dataset

__all__ = ["Dataset", "EnvironmentDataModule", "OfflineDataModule", "collect", "read_dataset"]

# Imported when first used: the processes that play the experts need no Lightning.
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
