"""Policies along a training run, which ship as small files, and the episodes that they play.

The files lie in ``datamodules/policies/<task>``, one per snapshot and named in the order of training. The header of a
file says how the policy was made and what it scores.
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
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from datamodules.builders.actuators import actuators_of, put_together, shared_out
from datamodules.builders.play_episodes import Episode, as_trajectories, progress_bar, run_episodes
from momalit.core.records import Sequence
from momalit.core.team import TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.envs import VectorTeamEnv, make_env, team_spec
from momalit.envs.workers import GUARD
from momalit.nn.actors import TeamActor
from momalit.policies.rollout import TeamRunner
from momalit.training.batches import keyed_generator
from momalit.training.cpu import default_matmul

FOLDER = Path(__file__).parents[1] / "policies"
MOST_EPISODES = 4  # that one snapshot plays at a time; part of what makes a dataset reproducible
KINDS = ("medium", "medium-replay", "full-replay", "medium-expert", "expert")


@dataclass(frozen=True)
class Snapshot:
    """A policy on disk.

    Args:
        path: its file.
        facts: its header: ``env`` (name and settings it was trained in), ``network`` (arguments of ``TeamActor``),
            ``steps`` (environment steps of its training), ``return_sampled`` and ``return_deterministic``.
    """

    path: Path
    facts: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Snapshot:
        """Reads the header only."""
        with safe_open(path, "pt") as file:
            return cls(path, {key: json.loads(value) for key, value in file.metadata().items()})

    @cached_property
    def spec(self) -> TeamSpec:
        """The team that was trained."""
        settings = {key: value for key, value in self.facts["env"].items() if key != "name"}
        env = make_env(self.facts["env"]["name"], **settings)
        try:
            return team_spec(env, self.facts["env"]["name"], settings)
        finally:
            env.close()

    def actor(self) -> TeamActor:
        """The policies, on the CPU."""
        actor = TeamActor(self.spec, **self.facts["network"])
        actor.load_state_dict({name: _as(tensor, torch.float32) for name, tensor in load_file(self.path).items()})
        return actor.eval()

    def description(self) -> dict[str, Any]:
        """What a dataset records about it."""
        return {"file": self.path.name, **self.facts}


def save_snapshot(actor: TeamActor, path: Path, facts: Mapping[str, Any]) -> None:
    """Writes a policy, its weights in half precision; ``facts`` as in ``Snapshot``."""
    weights = {name for name, _ in actor.named_parameters()}
    tensors = {
        name: (_as(tensor, torch.float16) if name in weights else tensor).contiguous()
        for name, tensor in actor.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, {key: json.dumps(value) for key, value in facts.items()})


def _as(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.dtype in (torch.float16, torch.float32) else tensor


def mixture(task: str, kind: str) -> list[Snapshot]:
    """The snapshots behind a dataset, in the sense of D4RL (Fu et al., 2020); none if it is made otherwise.

    ``expert`` is the snapshot with the best return of sampled actions, ``medium`` the one nearest to half of that;
    ``medium-replay`` and ``full-replay`` are all snapshots up to the medium one and all there are.
    """
    members = [Snapshot.read(path) for path in sorted((FOLDER / task).glob("*.safetensors"))]
    if not members or kind not in KINDS:
        return []
    returns = np.array([member.facts["return_sampled"] for member in members])
    expert = int(returns.argmax())
    medium = int(np.abs(returns - returns[expert] / 2).argmin())
    return {
        "medium": [members[medium]],
        "medium-replay": members[: medium + 1],
        "full-replay": members,
        "medium-expert": [members[medium], members[expert]],
        "expert": [members[expert]],
    }[kind]


def play_mixture(
    spec: TeamSpec, members: list[Snapshot], transitions: int, seed: int, label: str, workers: int | None = None
) -> Trajectories:
    """Episodes of sampled actions, equally many of every snapshot, at least ``transitions`` steps in all.

    Every snapshot's turn has random streams of its own, so that the number of processes does not change the result.

    Args:
        spec: the team whose data it shall be; it may share out the same robot otherwise than the snapshots' team.
        members: the snapshots.
        transitions: least number of steps.
        seed: of environments and actions.
        label: what the progress bar says.
        workers: processes; None for one per core.
    """
    episodes = min(max(transitions // (len(members) * spec.horizon), 1), MOST_EPISODES)
    longest = len(members) * episodes * spec.horizon
    kept: list[Episode] = []
    total = turn = 0
    with progress_bar(label, transitions) as advance, _pool(workers or cpu_count() or 1) as run:
        while total < transitions:
            # As many rounds as are needed for sure; every round is one turn of every snapshot.
            rounds = -(-(transitions - total) // longest)
            turns = [
                (member.path, episodes, (seed, turn + r, i)) for r in range(rounds) for i, member in enumerate(members)
            ]
            for played in run(_take_turn, turns):
                kept += played
                steps = sum(len(episode[1]) for episode in played)
                total += steps
                advance(steps)
            turn += rounds
    found = as_trajectories(kept)
    return replace(found, action=_as_another_team(found.action, members[0].spec, spec))


@contextmanager
def _pool(workers: int) -> Iterator[Any]:
    if workers == 1:
        yield map
        return
    try:
        with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            yield pool.map
    except BrokenProcessPool as error:
        raise RuntimeError(f"a process that plays the snapshots ended unexpectedly; {GUARD}") from error


def _take_turn(turn: tuple[Path, int, tuple[int, ...]]) -> list[Episode]:
    path, episodes, key = turn
    snapshot = Snapshot.read(path)
    env = VectorTeamEnv(snapshot.spec, episodes, workers=1)  # every turn has a process already
    try:
        behaviour = SampledTeam(snapshot.actor(), snapshot.spec, keyed_generator("cpu", *key))
        with default_matmul():  # a dataset is the same whoever asked for it
            return run_episodes(env, behaviour, np.arange(episodes), np.random.default_rng(key))
    finally:
        env.close()


def _as_another_team(action: Tensor, old: TeamSpec, new: TeamSpec) -> Tensor:
    """Joint actions ``(N, A, U)`` of one sharing of a robot's actuators as those of another."""
    before, after = actuators_of(old), actuators_of(new)
    if before == after:
        return action
    return torch.from_numpy(shared_out(put_together(action.numpy(), before), new, after))


class SampledTeam:
    """A team that explores, as a behaviour for one batch of episodes.

    Args:
        actor: its policies.
        spec: the team.
        generator: source of its actions.
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
