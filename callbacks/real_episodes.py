"""Episodes of a team in its real environment, on seeds that training never uses."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from momalit.core.team import TeamSpec
from momalit.envs.factory import TASKS
from momalit.envs.vector_env import VectorTeamEnv
from momalit.envs.workers import WORKERS_VARIABLE, worker_count
from momalit.policies.coverage import VisitRecorder
from momalit.policies.rollout import play_episodes
from momalit.policies.team_policy import TeamPolicyModule
from momalit.training.forks import can_fork, side_by_side

# Evaluation seeds are below 2**30, and training on a real environment uses seeds above. Validation (which selects
# checkpoints), test (which is reported) and videos have separate seeds.
_STREAMS = {"validation": 1, "test": 2, "video": 3}
MOST_RECORDED = 256  # episodes whose steps are recorded
MOST_ROWS, MOST_ROWS_ON_GPU = 32, 256  # episodes side by side: cores share parts, a GPU needs large ones

Result = TypeVar("Result")


def episode_seeds(purpose: str, episodes: int) -> list[int]:
    """Returns distinct, reproducible environment seeds for ``purpose`` (``validation``, ``test`` or ``video``)."""
    words = np.random.SeedSequence([20230517, _STREAMS[purpose]]).generate_state(2 * episodes)
    unique = list(dict.fromkeys(int(word) % 2**29 * 2 + _STREAMS[purpose] % 2 for word in words))
    return unique[:episodes]


def changed_spec(spec: TeamSpec, settings: Mapping[str, Any]) -> TeamSpec:
    """The same team with some settings of its environment replaced."""
    return replace(spec, env={**spec.env, **settings}) if spec.env is not None and settings else spec


class Played(NamedTuple):
    """Episodes that ran side by side: their returns ``(B,)``, and their steps if these were recorded."""

    returns: Tensor
    visits: VisitRecorder | None


class RealEpisodes:
    """Runs episodes in parts that do not depend on the number of processes, and neither do their returns.

    Parts of built-in tasks are played by copies of this process, which meanwhile does other work. Other environments
    may be slow to make, or hold what cannot be copied; they are made once, and the policies act in this process.

    Args:
        deterministic: whether actions are the policies' modes; False samples them.
        workers: number of processes; None for the value of the environment variable ``MOMALIT_WORKERS``. Without
            either, built-in tasks use ``cores`` processes and others one.
    """

    def __init__(self, deterministic: bool, workers: int | None = None) -> None:
        self.deterministic, self.workers, self.cores = deterministic, workers, 1
        self._env: VectorTeamEnv | None = None
        self._env_process = 0

    def play(
        self,
        module: TeamPolicyModule,
        seeds: list[int],
        record: bool,
        meanwhile: Callable[[], Result],
        settings: Mapping[str, Any] | None = None,
    ) -> tuple[list[Played], Result]:
        """Runs an episode for every seed.

        Args:
            module: the module of the team.
            seeds: one per episode.
            record: whether to record the steps of the first 256 episodes.
            meanwhile: called in this process, before or during the episodes.
            settings: settings of the environment in place of those of the data; None for none.

        Returns:
            the episodes, in the order of the seeds, and the result of ``meanwhile``.
        """
        built_in = module.spec.env is not None and module.spec.env["name"] in TASKS
        spec = changed_spec(module.spec, settings or {})
        copies = built_in and module.device.type == "cpu" and can_fork()
        most = MOST_ROWS if module.device.type == "cpu" else MOST_ROWS_ON_GPU
        parts = [part.tolist() for part in np.array_split(np.asarray(seeds), -(-len(seeds) // most) or 1)]
        chosen = self.workers is not None or bool(os.environ.get(WORKERS_VARIABLE))
        workers = worker_count(self.workers) if chosen or not copies else self.cores
        tasks, first = [], 0
        for part in parts:
            wanted = record and first < MOST_RECORDED
            tasks.append(partial(self._play, module, spec, part, wanted, 1 if copies else workers))
            first += len(part)
        result, played = side_by_side(meanwhile, tasks, workers if copies else 1)
        return played, result

    def _play(self, module: TeamPolicyModule, spec: TeamSpec, seeds: list[int], record: bool, workers: int) -> Played:
        if not seeds:
            return Played(torch.zeros(0), None)
        noise = None if self.deterministic else torch.Generator(module.device).manual_seed(seeds[0])
        env = self._env_of(spec, len(seeds), workers)
        if not record:
            return Played(play_episodes(env, module.deployed, seeds, noise), None)
        visits = VisitRecorder()
        returns = play_episodes(visits.wrap(env), module.deployed, seeds, noise)
        return Played(returns, visits.alone())

    def _env_of(self, spec: TeamSpec, n_rows: int, workers: int) -> VectorTeamEnv:
        """The last environment if this process made it and it is the same, else a new one."""
        last, own = self._env, self._env_process == os.getpid()
        if last is not None and own and (last.n_rows, last.spec) == (n_rows, spec):
            return last
        if last is not None and own:
            last.close()
        self._env, self._env_process = VectorTeamEnv(spec, n_rows, workers=workers), os.getpid()
        return self._env
