"""Policies of your own, recorded in an environment of your own, become a dataset."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from datamodules import collect


def policy(observations: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Each agent observes (left, right) and walks towards the other one."""
    left, right = observations["left"]
    return {"left": np.clip([right - left], -1, 1), "right": np.clip([left - right], -1, 1)}


if __name__ == "__main__":
    output = "runs/meeting/recorded"
    collect("own_environment:parallel_env", policy=policy, transitions=2000, output=output)
