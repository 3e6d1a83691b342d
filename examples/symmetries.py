"""Symmetries of a task of one's own: the world model learns more from the same data.

The task is that of own_environment.py. The script records 500 steps of it, and trains a world
model without and with its symmetries: compare their val/error.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from momalit.cli import main

Parts = Mapping[str, np.ndarray]


def mirrored(observations: Parts, actions: Parts) -> tuple[Parts, Parts]:
    """The line seen from its other side."""
    return (
        {agent: -positions for agent, positions in observations.items()},
        {agent: -move for agent, move in actions.items()},
    )


def exchanged(observations: Parts, actions: Parts) -> tuple[Parts, Parts]:
    """Each agent in the other one's place."""
    return (
        {agent: positions[::-1] for agent, positions in observations.items()},
        {"left": actions["right"], "right": actions["left"]},
    )


BOTH = [mirrored, exchanged]


if __name__ == "__main__":
    data = "runs/symmetries/data"
    record = ["collect", "own_environment:parallel_env/random", "--transitions", "500"]
    main([*record, "--output", data])
    train = ["fit", "--config", "world_model/icg.yaml", "--data.dataset", data]
    for name, folder in (("null", "none"), ("symmetries:BOTH", "both")):
        options = ["--trainer.max_epochs", "100", "--run_dir", f"runs/symmetries/{folder}"]
        main([*train, "--data.symmetries", name, *options])
