"""Many copies of a real environment, stepped together with batched tensors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from momalit.core.errors import UserError
from momalit.core.records import Step
from momalit.core.team import STATE, TeamSpec
from momalit.envs.factory import make_env
from momalit.envs.spaces import flat
from momalit.envs.workers import Workers, worker_count


class VectorTeamEnv:
    """``n_rows`` copies of the environment that a specification names.

    An episode ends when no agent is left in it, and at ``spec.horizon`` at the latest. It terminated if all agents of
    the last step did, else it was truncated. The team's reward is the agents' sum over the number of agents in the
    team. All tensors are on the CPU, floats in float32.

    What happens in a row depends on its seed and actions alone, never on the number of workers. Workers pay where a
    step costs much (MuJoCo's robots, not small games) and cores are free.

    An environment whose agents share their reward and their end may offer ``step_joint(action) -> (reward, terminated,
    truncated)``, ``action`` being the agents' actions one after the other. It is used instead of ``step`` where the
    actions are continuous and ``state()`` is all that is read, and saves what observations and dictionaries cost. A
    class that overrides ``step`` alone, and a wrapper, are stepped by ``step``.

    Args:
        spec: the team; ``spec.env`` says how to make the environment.
        n_rows: number of copies B.
        autoreset: whether a row begins a new episode after its end. The call after the end then ignores the row's
            action, resets it with the next seed of its own stream and answers with ``valid`` False and ``began`` True.
        workers: among how many processes the rows are shared out, at most one each; 1 steps them here, one by one. None
            is what the environment variable ``MOMALIT_WORKERS`` says, else 1.

    Raises:
        UserError: the specification names no environment, or one of another team; a number is below 1.
    """

    def __init__(self, spec: TeamSpec, n_rows: int, autoreset: bool = False, workers: int | None = None) -> None:
        if spec.env is None:
            raise UserError(f"task {spec.task}: names no environment to run in, expected env.name")
        if n_rows < 1:
            raise UserError(f"n_rows: found {n_rows}, expected at least 1")
        self.spec, self.n_rows, self.autoreset = spec, n_rows, autoreset
        count = min(worker_count(workers), n_rows)
        self._workers: Workers | None = None
        self.envs = [make_env(**spec.env) for _ in range(n_rows if count == 1 else 1)]
        found = tuple(self.envs[0].possible_agents)
        if found != spec.names:
            raise UserError(f"env {spec.env['name']}: found agents {found}, expected {spec.names}")
        if count > 1:
            self.close()
            self.envs = []
            shares = [n_rows // count + (i < n_rows % count) for i in range(count)]
            self._workers = Workers(partial(VectorTeamEnv, spec, autoreset=autoreset, workers=1), shares)
            return
        self._low, self._high = spec.action_low().numpy(), spec.action_high().numpy()
        self._action_spaces = {agent: self.envs[0].action_space(agent) for agent in spec.names}
        self._observation_spaces = {agent: self.envs[0].observation_space(agent) for agent in spec.names}
        self._reads = _reads(spec)
        only_state = not spec.discrete and all(key == STATE for key, _ in spec.sources)
        self._joint = only_state and _offers_joint_steps(type(self.envs[0]))
        self._slots = spec.action_mask().bool().numpy()
        self._state = np.zeros((n_rows, spec.state_size), np.float32)
        self._time = np.zeros(n_rows, np.int64)
        self._over = np.ones(n_rows, bool)
        self._streams: list[np.random.Generator] = []

    def reset(self, seeds: Sequence[int]) -> Tensor:
        """Begins an episode in every row.

        Args:
            seeds: one per row.

        Returns:
            the first states ``(B, S)``.

        Raises:
            UserError: the number of seeds is not the number of rows.
        """
        if len(seeds) != self.n_rows:
            raise UserError(f"seeds: found {len(seeds)}, expected one for each of {self.n_rows} rows")
        if self._workers is not None:
            return self._workers.reset(seeds)
        self._streams = [np.random.default_rng(int(seed)) for seed in seeds]
        for row, seed in enumerate(seeds):
            self._begin(row, int(seed))
        return torch.from_numpy(self._state.copy())

    def step(self, action: Tensor) -> Step:
        """Applies a joint action to every row.

        Args:
            action: ``(B, A, U)``; continuous actions are clipped to their bounds, discrete ones are one-hot.

        Returns:
            what happened; rows that had ended repeat their state with reward 0 and ``valid`` False.
        """
        shape = (self.n_rows, self.spec.n_agents, self.spec.action_size)
        if tuple(action.shape) != shape:
            raise UserError(f"action: found shape {tuple(action.shape)}, expected {shape}")
        if self._workers is not None:
            return self._workers.step(action)
        actions = self._native(action)
        reward = np.zeros(self.n_rows, np.float32)
        terminated, truncated, valid, began = np.zeros((4, self.n_rows), bool)
        for row in range(self.n_rows):
            if not self._over[row]:
                valid[row] = True
                reward[row], terminated[row], truncated[row] = self._advance(row, actions[row])
            elif self.autoreset:
                began[row] = True
                self._begin(row, self._next_seed(row))
        tensors = (self._state.copy(), reward, terminated, truncated, valid, began, np.zeros(self.n_rows, bool))
        return Step(*(torch.from_numpy(array) for array in tensors))

    def replay(self, seeds: Sequence[int], episodes: Sequence[int], actions: Tensor, lengths: Sequence[int]) -> Tensor:
        """Takes every row to where certain episodes and actions led it.

        Args:
            seeds: those of ``reset``, one per row.
            episodes: how many episodes of its own stream of seeds each row has begun since.
            actions: ``(T, B, A, U)``, those of the current episodes, up to now.
            lengths: how many of the last of them each row has taken in its current episode.

        Returns:
            the states ``(B, S)``.
        """
        if self._workers is not None:
            return self._workers.replay(seeds, episodes, actions, lengths)
        self._streams = [np.random.default_rng(int(seed)) for seed in seeds]
        native = [self._native(action) for action in actions]
        for row, seed in enumerate(seeds):
            for _ in range(episodes[row]):
                seed = self._next_seed(row)
            self._begin(row, int(seed))
            for action in native[len(native) - lengths[row] :]:
                self._advance(row, action[row])
        return torch.from_numpy(self._state.copy())

    def close(self) -> None:
        """Closes all copies and ends the workers."""
        if self._workers is not None:
            self._workers.close()
        for env in self.envs:
            env.close()

    def _next_seed(self, row: int) -> int:
        # Evaluation's seeds lie in the lower half of the range, which no later episode may come upon.
        return int(self._streams[row].integers(2**30, 2**31))

    def _begin(self, row: int, seed: int) -> None:
        observations, _ = self.envs[row].reset(seed=seed)
        self._time[row], self._over[row] = 0, False
        self._read(row, observations)

    def _advance(self, row: int, action: Any) -> tuple[float, bool, bool]:
        env = self.envs[row]
        if self._joint:
            reward, terminated, truncated = env.step_joint(action)
            over, rewards = terminated or truncated, (reward,) * self.spec.n_agents
            self._read(row, {})
        else:
            if len(env.agents) < len(action):
                action = {agent: action[agent] for agent in env.agents}
            observations, by_agent, terminations, _, _ = env.step(action)
            over, rewards = not env.agents, tuple(by_agent.values())
            terminated = over and all(terminations.values())
            self._read(row, observations)
        self._time[row] += 1
        truncated = (over and not terminated) or (not over and self._time[row] >= self.spec.horizon)
        self._over[row] = terminated or truncated
        return sum(rewards) / self.spec.n_agents, terminated, truncated

    def _native(self, action: Tensor) -> Sequence[Any]:
        """The environment's own form of the actions, per row."""
        array = action.detach().cpu().numpy()
        names = self.spec.names
        if self.spec.discrete:
            start = np.array([int(getattr(self._action_spaces[agent], "start", 0)) for agent in names])
            return [dict(zip(names, choice, strict=True)) for choice in (array.argmax(-1) + start).tolist()]
        array = np.clip(array, self._low, self._high)
        if self._joint:
            return array[:, self._slots]
        columns = []
        for i, agent in enumerate(self.spec.agents):
            space = self._action_spaces[agent.name]
            assert isinstance(space, spaces.Box)
            part = array[:, i, : agent.action_size].astype(space.dtype)
            columns.append(part.reshape(self.n_rows, *space.shape))
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def _read(self, row: int, observations: dict[str, Any]) -> None:
        """Assembles the row's state; an agent that has left keeps its last columns."""
        state = self._state[row]
        for key, columns, sources in self._reads:
            if key == STATE:
                state[columns] = np.asarray(self.envs[row].state()).ravel()[sources]
            elif key in observations:
                state[columns] = flat(self._observation_spaces[key], observations[key])[sources]


def _reads(spec: TeamSpec) -> list[tuple[str, Any, Any]]:
    """For every source: which columns of the state it fills, and with which of its own."""
    reads: list[tuple[str, Any, Any]] = []
    for key in dict.fromkeys(key for key, _ in spec.sources):
        columns = [i for i, (source, _) in enumerate(spec.sources) if source == key]
        sources = [column for source, column in spec.sources if source == key]
        whole = columns == sources == list(range(spec.state_size))
        reads.append((key, slice(None), slice(None)) if whole else (key, np.array(columns), np.array(sources)))
    return reads


def _offers_joint_steps(kind: type) -> bool:
    """Whether the class that defines ``step`` defines ``step_joint`` with it."""
    both = {"step", "step_joint"}
    return next((both <= vars(base).keys() for base in kind.__mro__ if both & vars(base).keys()), False)
