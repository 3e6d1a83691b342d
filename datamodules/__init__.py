"""Where trajectories come from: datasets on disk, the experts that fill them, and real environments."""

from datamodules.collect import collect
from datamodules.environment import EnvironmentDataModule
from datamodules.formats import Dataset, read_dataset
from datamodules.offline import OfflineDataModule

__all__ = ["Dataset", "EnvironmentDataModule", "OfflineDataModule", "collect", "read_dataset"]
