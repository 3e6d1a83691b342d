"""Which steps of a dataset imagined rollouts start from."""

from __future__ import annotations

import torch
from torch import Tensor

from momalit.core.trajectories import Trajectories


class StartStates:
    """Samples transitions of a dataset whose states rollouts start from.

    Args:
        data: the dataset.
        top_fraction: fraction of the episodes to start in, those with the highest returns.
        initial_fraction: fraction of the samples that are the first step of any episode.
        device: device of the random number generator and of the samples.
    """

    def __init__(self, data: Trajectories, top_fraction: float, initial_fraction: float, device: torch.device) -> None:
        self.count, self.initial_fraction = len(data), initial_fraction
        self.selected: Tensor | None = None  # the transitions to choose from, if not all
        if top_fraction < 1:
            self.selected = data.indices_of(data.best_episodes(top_fraction)).to(device)
            self.count = len(self.selected)
        self.first = data.first.to(device)

    def sample(self, rows: int, generator: torch.Generator) -> Tensor:
        """Returns the indices of ``rows`` transitions, with repetitions."""
        index = torch.randint(self.count, (rows,), generator=generator, device=self.first.device)
        index = index if self.selected is None else self.selected[index]
        if not self.initial_fraction:
            return index
        initial = self.first[torch.randint(len(self.first), (rows,), generator=generator, device=self.first.device)]
        use_initial = torch.rand(rows, generator=generator, device=self.first.device) < self.initial_fraction
        return torch.where(use_initial, initial, index)
