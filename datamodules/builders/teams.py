"""Episodes of trained teams, which ``collect --team`` records."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.builders.play_episodes import Episode, as_trajectories, enough_episodes, rows_for
from datamodules.builders.progress import progress_bar
from datamodules.builders.snapshots import StochasticTeam
from momalit.core.team import TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.envs import VectorTeamEnv
from momalit.policies.team_policy import load_policies
from momalit.training.batches import keyed_generator
from momalit.training.checkpoints import LAST
from momalit.training.run_directory import RunDirectory


def checkpoint_of(team: str | Path) -> Path:
    """The checkpoint that a team's path means: itself, or the last one of a run's directory."""
    path = Path(team).expanduser()
    return RunDirectory(path).checkpoint(LAST) if path.is_dir() else path


class TrainedTeams:
    """Teams that play one after the other, each for an equal share of the steps, with sampled actions.

    Args:
        spec: the team of the dataset; agents may observe something else there than the trained ones do.
        teams: checkpoints or run directories.

    Raises:
        UserError: a checkpoint has no policies, or is that of another team.
    """

    def __init__(self, spec: TeamSpec, teams: Sequence[str | Path]) -> None:
        self.spec, self.paths = spec, [checkpoint_of(team) for team in teams]
        self.actors = [load_policies(path) for path in self.paths]
        for path, actor in zip(self.paths, self.actors, strict=True):
            spec.dynamics().require_same(actor.spec.dynamics(), f"the environment of {spec.task}", f"checkpoint {path}")

    def settings(self) -> dict[str, Any]:
        """The entry in the dataset's provenance."""
        return {"behaviour": "teams", "checkpoints": [str(path) for path in self.paths]}

    def play(self, transitions: int, seed: int, label: str) -> Trajectories:
        """Runs complete episodes of every team.

        Args:
            transitions: minimum number of steps of all teams together.
            seed: seed of environments and actions.
            label: label of the progress bar.
        """
        share = -(-transitions // len(self.actors))
        env = VectorTeamEnv(self.spec, rows_for(self.spec, share))
        collected: list[Episode] = []
        with progress_bar(label, share * len(self.actors)) as advance:
            for number, actor in enumerate(self.actors):
                generator = keyed_generator("cpu", seed, number)
                behaviour = partial(StochasticTeam, actor, self.spec, generator)
                collected += enough_episodes(env, behaviour, share, np.random.default_rng((seed, number)), advance)
        env.close()
        return as_trajectories(collected)
