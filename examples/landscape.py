"""What world models believe of every joint action of the ridge game, and where their teams go.

python examples/landscape.py landscape.png runs/one runs/another

Without runs, it trains a small one. Each run is a row: the true reward with the actions of the
log, the reward that the model expects, and how much its members disagree. Crosses are the
team's actions in an episode.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from datamodules import OfflineDataModule
from matplotlib.colors import LogNorm, Normalize
from momalit.envs import VectorTeamEnv, make_env
from momalit.functional.uncertainty import ensemble_covariance_norm
from momalit.policies.rollout import collect_rollout, initial_start
from momalit.policies.team_policy import load_policies
from momalit.policies.world_model_files import load_world_model

GRID = torch.linspace(-1, 1, 61)
SCALES = {
    "true reward; log (dots)": Normalize(0, 1),
    "expected reward": Normalize(0, 1),
    "disagreement": LogNorm(1e-5, 10),
}


def landscapes(checkpoint: Path) -> list[np.ndarray]:
    """Returns true reward, expected reward and disagreement at the first step, on the grid."""
    spec = load_policies(checkpoint).spec
    model, _ = load_world_model(checkpoint, spec)
    action = torch.cartesian_prod(GRID, GRID).unsqueeze(-1)
    mean = model(torch.zeros(len(action), spec.state_size), action).mean
    game = make_env(**spec.env)
    true = torch.tensor([game.reward(list(pair)) for pair in action.numpy()])
    expected = model.space.target.inverse(mean)[..., -1].mean(0)
    values = (true, expected, ensemble_covariance_norm(mean))
    return [value.reshape(len(GRID), -1).T.numpy() for value in values]


def played(checkpoint: Path) -> np.ndarray:
    """Returns the team's joint actions in one episode, ``(T, 2)``."""
    actor = load_policies(checkpoint)
    env = VectorTeamEnv(actor.spec, 1)
    start = initial_start(env.reset([0]), *actor.mask.shape)
    rollout = collect_rollout(env, actor, start, actor.spec.horizon, None)
    return rollout.action[:, 0, :, 0].numpy()


def draw(file: str, *runs: str) -> None:
    """Draws the landscapes of runs into a file."""
    size = (8, 2.5 * len(runs))
    figure, rows = plt.subplots(len(runs), 3, figsize=size, squeeze=False, layout="constrained")
    for axes, run in zip(rows, runs, strict=True):
        checkpoint = Path(run, "checkpoints", "last.ckpt")
        logged = OfflineDataModule("ridges/conflicting", transitions=1000).trajectories.action
        axes[0].plot(*logged[..., 0].T, ".", color="white", ms=1, alpha=0.3)
        axes[0].set_ylabel(f"{Path(run).name}\nagent 1's action", fontsize=9)
        values = landscapes(checkpoint)
        for panel, (title, scale), value in zip(axes, SCALES.items(), values, strict=True):
            image = panel.imshow(value, norm=scale, origin="lower", extent=(-1, 1, -1, 1))
            figure.colorbar(image, ax=panel)
            panel.plot(*played(checkpoint).T, "x", color="#D55E00", ms=7, mew=2)
            panel.set_title(title, fontsize=9)
    for panel in rows[-1]:
        panel.set_xlabel("agent 0's action", fontsize=9)
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    file, *runs = sys.argv[1:] or ["landscape.png"]
    if not runs:
        from momalit.cli import main

        runs = ["runs/landscape"]
        words = ["--config", "own.yaml", "--config", "overlays/quick.yaml"]
        words += ["--data.dataset", "ridges/conflicting", "--run_dir", *runs]
        if code := main(["fit", *words]):
            sys.exit(code)
    draw(file, *runs)
