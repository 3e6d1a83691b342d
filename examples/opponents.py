"""A team among other agents: three hunters learn, and their prey follows a rule.

The game is simple_tag of mpe2 (``pip install mpe2``). The script records random hunters and
shows what is in the dataset.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from momalit.cli import main
from momalit.envs import FixedAgents
from mpe2 import simple_tag_v3
from pettingzoo import ParallelEnv

HUNTERS = slice(8, 14)  # where three hunters are from the prey; two obstacles come before


def run_away(observations: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Moves of the prey, away from the middle of its hunters: 1 left, 2 right, 3 down, 4 up."""
    moves = {}
    for name, seen in observations.items():
        x, y = seen[HUNTERS].reshape(3, 2).mean(0)
        moves[name] = (1 if x > 0 else 2) if abs(x) > abs(y) else (3 if y > 0 else 4)
    return moves


def hunters(max_cycles: int = 25) -> ParallelEnv:
    """simple_tag for its three hunters."""
    env = simple_tag_v3.parallel_env(max_cycles=max_cycles)
    return FixedAgents(env, ["adversary_0", "adversary_1", "adversary_2"], run_away)


if __name__ == "__main__":
    data = "runs/hunters/data"
    main(["collect", "opponents:hunters/random", "--transitions", "1000", "--output", data])
    main(["inspect", data, "--output", "runs/hunters/data.html"])
