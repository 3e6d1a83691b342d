"""A callback of your own: any Lightning callback works.

A configuration adds it to the callbacks of another one:
--config icg.yaml --config own_callback.yaml
"""

from __future__ import annotations

import sys
from pathlib import Path

import lightning.pytorch as pl
from momalit.envs import VectorTeamEnv
from momalit.policies.rollout import play_episodes


class WorstEpisode(pl.Callback):
    """Logs the lowest return of a few episodes after every validation.

    Args:
        episodes: number of episodes.
    """

    def __init__(self, episodes: int = 8) -> None:
        self.episodes = episodes

    def on_validation_epoch_end(self, trainer: pl.Trainer, team: pl.LightningModule) -> None:
        env = VectorTeamEnv(team.spec, self.episodes)
        returns = play_episodes(env, team.deployed, seeds=list(range(self.episodes)))
        team.log("eval/worst", returns.min())


if __name__ == "__main__":
    from momalit.cli import main

    overlay = Path(__file__).with_suffix(".yaml")
    words = ["--config", "icg.yaml", "--config", str(overlay), "--run_dir", "runs/own_callback"]
    sys.exit(main(["fit", *words]))
