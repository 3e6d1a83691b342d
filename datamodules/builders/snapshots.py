"""Policy snapshots from a training run, which ship with the package, and the episodes that they generate.

The files are in ``datamodules/policies/<task>``, one per snapshot and numbered in the order of training. The header of
a file describes the policy's training and its returns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from datamodules.builders.actuators import actuators_of, merge_actions, split_action
from datamodules.builders.play_episodes import Episode, as_trajectories, run_episodes
from datamodules.builders.progress import progress_bar
from momalit.core.errors import MAIN_GUARD_HINT
from momalit.core.records import Sequence
from momalit.core.team import TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.envs import VectorTeamEnv, make_env, team_spec
from momalit.nn.actors import TeamActor
from momalit.policies.rollout import TeamRunner
from momalit.training.batches import keyed_generator
from momalit.training.cpu import cores, default_matmul

POLICY_DIRECTORY = Path(__file__).parents[1] / "policies"
MAX_EPISODES = 4  # per snapshot and round; the contents of a dataset depend on it
KINDS = ("medium", "medium-replay", "full-replay", "medium-expert", "expert")


@dataclass(frozen=True)
class Snapshot:
    """A policy on disk.

    Args:
        path: its file.
        metadata: its header: ``env`` (name and settings it was trained in), ``network`` (arguments of ``TeamActor``),
            ``steps`` (environment steps of training), ``return_sampled`` and ``return_deterministic``.
    """

    path: Path
    metadata: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Snapshot:
        """Reads the header only."""
        with safe_open(path, "pt") as file:
            return cls(path, {key: json.loads(value) for key, value in file.metadata().items()})

    @cached_property
    def spec(self) -> TeamSpec:
        """Specification of the trained team."""
        settings = {key: value for key, value in self.metadata["env"].items() if key != "name"}
        env = make_env(self.metadata["env"]["name"], **settings)
        try:
            return team_spec(env, self.metadata["env"]["name"], settings)
        finally:
            env.close()

    def actor(self) -> TeamActor:
        """Loads the team's policies on the CPU."""
        actor = TeamActor(self.spec, **self.metadata["network"])
        state_dict = load_file(self.path)
        actor.load_state_dict({name: _cast_float(tensor, torch.float32) for name, tensor in state_dict.items()})
        return actor.eval()

    def description(self) -> dict[str, Any]:
        """Entry in a dataset's provenance."""
        return {"file": self.path.name, **self.metadata}


def save_snapshot(actor: TeamActor, path: Path, metadata: Mapping[str, Any]) -> None:
    """Writes a policy with its weights in half precision. ``metadata`` is that of ``Snapshot``."""
    weights = {name for name, _ in actor.named_parameters()}
    tensors = {
        name: (_cast_float(tensor, torch.float16) if name in weights else tensor).contiguous()
        for name, tensor in actor.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, {key: json.dumps(value) for key, value in metadata.items()})


def _cast_float(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Casts a tensor of half or single precision to ``dtype``. Others are returned unchanged."""
    return tensor.to(dtype) if tensor.dtype in (torch.float16, torch.float32) else tensor


def select_snapshots(task: str, kind: str) -> list[Snapshot]:
    """Snapshots that generate a dataset, named as in D4RL (Fu et al., 2020). Empty for other datasets.

    ``expert`` is the snapshot with the best return of sampled actions. ``medium`` is the one whose return is nearest to
    half of that. ``medium-replay`` is all snapshots up to the medium one, and ``full-replay`` is all snapshots.
    """
    snapshots = [Snapshot.read(path) for path in sorted((POLICY_DIRECTORY / task).glob("*.safetensors"))]
    if not snapshots or kind not in KINDS:
        return []
    returns = np.array([snapshot.metadata["return_sampled"] for snapshot in snapshots])
    expert = int(returns.argmax())
    medium = int(np.abs(returns - returns[expert] / 2).argmin())
    return {
        "medium": [snapshots[medium]],
        "medium-replay": snapshots[: medium + 1],
        "full-replay": snapshots,
        "medium-expert": [snapshots[medium], snapshots[expert]],
        "expert": [snapshots[expert]],
    }[kind]


def run_mixture(
    spec: TeamSpec, snapshots: list[Snapshot], transitions: int, seed: int, label: str, workers: int | None = None
) -> Trajectories:
    """Runs equally many episodes of each snapshot, with sampled actions and at least ``transitions`` steps in total.

    Each snapshot has its own random streams in each round, so the number of processes does not change the result.

    Args:
        spec: the team of the dataset. It may assign the robot's actuators differently from the snapshots' team.
        snapshots: the snapshots.
        transitions: minimum number of steps.
        seed: seed of environments and actions.
        label: label of the progress bar.
        workers: number of processes; None for one per core.
    """
    episodes = min(max(transitions // (len(snapshots) * spec.horizon), 1), MAX_EPISODES)
    max_round_steps = len(snapshots) * episodes * spec.horizon
    collected: list[Episode] = []
    total = rounds_done = 0
    with progress_bar(label, transitions) as advance, _pool(workers or cores()) as run:
        while total < transitions:
            # The minimum number of rounds that can still be needed. A round runs each snapshot once.
            rounds = -(-(transitions - total) // max_round_steps)
            tasks = [
                (snapshot.path, episodes, (seed, rounds_done + r, i))
                for r in range(rounds)
                for i, snapshot in enumerate(snapshots)
            ]
            for finished in run(_run_snapshot, tasks):
                collected += finished
                steps = sum(len(episode[1]) for episode in finished)
                total += steps
                advance(steps)
            rounds_done += rounds
    trajectories = as_trajectories(collected)
    return replace(trajectories, action=_reassign_actuators(trajectories.action, snapshots[0].spec, spec))


@contextmanager
def _pool(workers: int) -> Iterator[Any]:
    """Yields a ``map`` function that runs in ``workers`` processes, or in this process if there is only one."""
    if workers == 1:
        yield map
        return
    try:
        with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            yield pool.map
    except BrokenProcessPool as error:
        raise RuntimeError(f"a worker process of the snapshots ended unexpectedly; {MAIN_GUARD_HINT}") from error


def _run_snapshot(task: tuple[Path, int, tuple[int, ...]]) -> list[Episode]:
    """Runs episodes of a snapshot, given its path, the number of episodes and the key of its random streams."""
    path, episodes, key = task
    snapshot = Snapshot.read(path)
    env = VectorTeamEnv(snapshot.spec, episodes, workers=1)  # the snapshots already run in parallel
    try:
        behaviour = StochasticTeam(snapshot.actor(), snapshot.spec, keyed_generator("cpu", *key))
        with default_matmul():  # the contents must not depend on the caller's matrix library
            return run_episodes(env, behaviour, np.arange(episodes), np.random.default_rng(key))
    finally:
        env.close()


def _reassign_actuators(action: Tensor, old: TeamSpec, new: TeamSpec) -> Tensor:
    """Converts joint actions ``(N, A, U)`` from one assignment of a robot's actuators to another."""
    before, after = actuators_of(old), actuators_of(new)
    if before == after:
        return action
    return torch.from_numpy(split_action(merge_actions(action.numpy(), before), new, after))


class StochasticTeam:
    """A behaviour that samples actions from a team's policies, for one batch of episodes.

    Args:
        actor: the policies.
        spec: the team's specification.
        generator: random generator of the actions.
    """

    def __init__(self, actor: TeamActor, spec: TeamSpec, generator: torch.Generator) -> None:
        self._actor, self._shape = actor, (spec.n_agents, spec.action_size)
        self._team = TeamRunner(actor, generator)
        self._previous: Tensor | None = None

    def act(self, _episode: np.ndarray, state: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
        rows = len(state)
        first = self._previous is None
        previous = torch.zeros(rows, *self._shape) if self._previous is None else self._previous
        now = Sequence(torch.from_numpy(state)[None], previous[None], torch.full((1, rows), not first))
        self._previous = self._actor.clip(self._team.act(now).action)
        return self._previous.numpy()

    def settings(self) -> dict[str, Any]:
        return {"behaviour": "sampled"}
