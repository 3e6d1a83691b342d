"""Which checkpoint is the best one, where only estimates can tell."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from callbacks import Evaluation
from momalit.policies.estimate import EliteReturns


class RunCheckpoint(ModelCheckpoint):
    """Saves the last or the best checkpoint of a run.

    It is a separate class because Lightning rejects two ModelCheckpoints of the same class and settings.
    """


class BestEstimate(RunCheckpoint):
    """Saves the latest team that is not clearly worse than the one with the highest estimate.

    The elites of the world model judge both teams from the same initial states. A team is clearly worse if they agree
    on it (see ``EliteReturns.is_below``). The highest of many estimates is partly the luckiest one, and teams usually
    improve until the end; so an earlier team must be better by more than the model's errors explain.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.highest: EliteReturns | None = None
        self._judged: EliteReturns | None = None

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Whether the team that was evaluated last becomes the best one."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        evaluation = next((c for c in callbacks if isinstance(c, Evaluation)), None)
        if evaluation is None:
            return super().check_monitor_top_k(trainer, current)
        latest = evaluation.elites
        if latest is None or latest is self._judged:  # between evaluations the metric is an old one
            return False
        self._judged = latest
        if self.highest is None or latest.mean >= self.highest.mean:
            self.highest = latest
        return not latest.is_below(self.highest)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "highest": None if self.highest is None else asdict(self.highest)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if (highest := state_dict.get("highest")) is not None:
            self.highest = EliteReturns(**highest)
