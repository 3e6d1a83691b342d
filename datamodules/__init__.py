"""Where trajectories come from: datasets on disk, the experts that fill them, and real environments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from momalit.lazy import public

if TYPE_CHECKING:
    from datamodules.collecting import collect
    from datamodules.environment import EnvironmentDataModule
    from datamodules.formats import Dataset, read_dataset
    from datamodules.offline import OfflineDataModule

__all__ = ["Dataset", "EnvironmentDataModule", "OfflineDataModule", "collect", "read_dataset"]

# Imported when first used: the processes that play the experts need no Lightning.
__getattr__ = public(
    __name__,
    {
        "Dataset": "formats",
        "EnvironmentDataModule": "environment",
        "OfflineDataModule": "offline",
        "collect": "collecting",
        "read_dataset": "formats",
    },
)
