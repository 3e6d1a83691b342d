"""VectorTeamEnv: copies of a real environment that are stepped together with batched tensors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from momalit.core.checks import require_numbers
from momalit.core.errors import UserError
from momalit.core.records import Step
from momalit.core.team import PRESENT, STATE, TeamSpec
from momalit.envs.factory import make_env
from momalit.envs.spaces import choices_of, flatten_observation
from momalit.envs.workers import Workers, worker_count


class VectorTeamEnv:
    """``n_rows`` copies ("rows") of the environment in a team's specification.

    An episode ends when no agent is left, and at ``spec.horizon`` at the latest. It counts as terminated if all agents
    of the last step terminated, else as truncated. The team reward is the sum of the agents' rewards divided by the
    number of agents in the team. All tensors are on the CPU, floats in float32.

    A row depends only on its seed and actions, never on the number of workers. Workers help if a step is expensive
    (MuJoCo robots, not small games) and cores are free.

    An environment whose agents share reward and end of episode may define ``step_joint(action) -> (reward, terminated,
    truncated)``, where ``action`` is the concatenation of the agents' actions. It replaces ``step`` if actions are
    continuous and the specification reads only ``state()``, which avoids the cost of observations and dictionaries.
    Wrappers and classes that override only ``step`` are stepped with ``step``.

    Args:
        spec: the team; ``spec.env`` is the name and the settings of the environment.
        n_rows: number of copies B.
        autoreset: whether a row starts a new episode after an end. The next call then ignores the row's action, resets
            it with the next seed of its random stream and returns ``valid`` False and ``began`` True.
        workers: number of processes that share the rows, at most one per row. With 1 the rows are stepped one by one in
            this process. None reads the environment variable ``MOMALIT_WORKERS``, with default 1.

    Raises:
        UserError: the specification has no environment or that of another team, or a number is below 1.
    """

    def __init__(self, spec: TeamSpec, n_rows: int, autoreset: bool = False, workers: int | None = None) -> None:
        if spec.env is None:
            raise UserError(f"task {spec.task}: found no environment in the specification, expected env.name")
        require_numbers("", {"n_rows": n_rows}, least=1)
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
            row_counts = [n_rows // count + (i < n_rows % count) for i in range(count)]
            self._workers = Workers(partial(VectorTeamEnv, spec, autoreset=autoreset, workers=1), row_counts)
            return
        self._low, self._high = spec.action_low().numpy(), spec.action_high().numpy()
        self._action_spaces = {agent: self.envs[0].action_space(agent) for agent in spec.names}
        choices = {agent: choices_of(agent, space) for agent, space in self._action_spaces.items()}
        self._choices = {agent: own for agent, own in choices.items() if own is not None}
        self._observation_spaces = {agent: self.envs[0].observation_space(agent) for agent in spec.names}
        self._column_map = _column_map(spec)
        state_only = not self._choices and all(key == STATE for key, _ in spec.sources)
        self._use_step_joint = state_only and _supports_step_joint(type(self.envs[0]))
        self._slots = spec.action_mask().bool().numpy()
        self._state = np.zeros((n_rows, spec.state_size), np.float32)
        self._time = np.zeros(n_rows, np.int64)
        self._ended = np.ones(n_rows, bool)
        self._streams: list[np.random.Generator] = []

    def reset(self, seeds: Sequence[int]) -> Tensor:
        """Starts an episode in every row.

        Args:
            seeds: one per row.

        Returns:
            the initial states ``(B, S)``.

        Raises:
            UserError: the number of seeds is not the number of rows.
        """
        if len(seeds) != self.n_rows:
            raise UserError(f"seeds: found {len(seeds)}, expected one for each of {self.n_rows} rows")
        if self._workers is not None:
            return self._workers.reset(seeds)
        self._streams = [np.random.default_rng(int(seed)) for seed in seeds]
        for row, seed in enumerate(seeds):
            self._reset_row(row, int(seed))
        return torch.from_numpy(self._state.copy())

    def step(self, action: Tensor) -> Step:
        """Applies a joint action to every row.

        Args:
            action: ``(B, A, U)``; continuous actions are clipped to their bounds, discrete ones are one-hot.

        Returns:
            the result. Rows that had already ended repeat their state with reward 0 and ``valid`` False.
        """
        shape = (self.n_rows, self.spec.n_agents, self.spec.action_size)
        if tuple(action.shape) != shape:
            raise UserError(f"action: found shape {tuple(action.shape)}, expected {shape}")
        if self._workers is not None:
            return self._workers.step(action)
        actions = self._native_actions(action)
        reward = np.zeros(self.n_rows, np.float32)
        terminated, truncated, valid, began = np.zeros((4, self.n_rows), bool)
        for row in range(self.n_rows):
            if not self._ended[row]:
                valid[row] = True
                reward[row], terminated[row], truncated[row] = self._step_row(row, actions[row])
            elif self.autoreset:
                began[row] = True
                self._reset_row(row, self._next_seed(row))
        tensors = (self._state.copy(), reward, terminated, truncated, valid, began, np.zeros(self.n_rows, bool))
        return Step(*(torch.from_numpy(array) for array in tensors))

    def replay(self, seeds: Sequence[int], episodes: Sequence[int], actions: Tensor, lengths: Sequence[int]) -> Tensor:
        """Restores the state of every row by repeating the actions of its current episode.

        Args:
            seeds: the seeds of ``reset``, one per row.
            episodes: number of automatic resets of each row since then.
            actions: the most recent joint actions, ``(T, B, A, U)``.
            lengths: number of steps in the current episode of each row, which are the last ones of ``actions``.

        Returns:
            the states ``(B, S)``.
        """
        if self._workers is not None:
            return self._workers.replay(seeds, episodes, actions, lengths)
        self._streams = [np.random.default_rng(int(seed)) for seed in seeds]
        native_actions = [self._native_actions(action) for action in actions]
        for row, seed in enumerate(seeds):
            for _ in range(episodes[row]):
                seed = self._next_seed(row)
            self._reset_row(row, int(seed))
            for action in native_actions[len(native_actions) - lengths[row] :]:
                self._step_row(row, action[row])
        return torch.from_numpy(self._state.copy())

    def close(self) -> None:
        """Closes all copies and stops the workers."""
        if self._workers is not None:
            self._workers.close()
        for env in self.envs:
            env.close()

    def _next_seed(self, row: int) -> int:
        # Evaluation seeds are in the lower half of the range; automatic resets must not use them.
        return int(self._streams[row].integers(2**30, 2**31))

    def _reset_row(self, row: int, seed: int) -> None:
        observations, _ = self.envs[row].reset(seed=seed)
        self._time[row], self._ended[row] = 0, False
        self._state[row] = 0  # what an agent observed that is absent now belongs to another episode
        self._update_state(row, observations)

    def _step_row(self, row: int, action: Any) -> tuple[float, bool, bool]:
        env = self.envs[row]
        if self._use_step_joint:
            reward, terminated, truncated = env.step_joint(action)
            ended, rewards = terminated or truncated, (reward,) * self.spec.n_agents
            self._update_state(row, {})
        else:
            if len(env.agents) < len(action):
                action = {agent: action[agent] for agent in env.agents}
            observations, by_agent, terminations, _, _ = env.step(action)
            ended, rewards = not env.agents, tuple(by_agent.values())
            terminated = ended and all(terminations.values())
            self._update_state(row, observations)
        self._time[row] += 1
        truncated = (ended and not terminated) or (not ended and self._time[row] >= self.spec.horizon)
        self._ended[row] = terminated or truncated
        return sum(rewards) / self.spec.n_agents, terminated, truncated

    def _native_actions(self, action: Tensor) -> Sequence[Any]:
        """Returns the actions of each row in the format of the environment."""
        array = action.detach().cpu().numpy()
        names = self.spec.names
        array = np.clip(array, self._low, self._high)
        if self._use_step_joint:
            return array[:, self._slots]
        columns: list[Sequence[Any]] = []
        for i, agent in enumerate(self.spec.agents):
            if agent.discrete:
                choices = self._choices[agent.name]
                columns.append([choices.action(number) for number in array[:, i].argmax(-1).tolist()])
                continue
            space = self._action_spaces[agent.name]
            assert isinstance(space, spaces.Box)
            part = array[:, i, : agent.action_size].astype(space.dtype)
            columns.append(part.reshape(self.n_rows, *space.shape))
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def _update_state(self, row: int, observations: dict[str, Any]) -> None:
        """Updates the row's state. The columns of an agent that has left keep their last values.

        At the end of an episode everybody leaves, which says nothing, so that presence stays as it was.
        """
        state = self._state[row]
        live = self.envs[row].agents
        for key, columns, sources in self._column_map:
            if key == STATE:
                state[columns] = np.asarray(self.envs[row].state()).ravel()[sources]
            elif key == PRESENT:
                if live:
                    state[columns] = [self.spec.names[i] in live for i in sources]
            elif key in observations:
                state[columns] = flatten_observation(self._observation_spaces[key], observations[key])[sources]


def _column_map(spec: TeamSpec) -> list[tuple[str, Any, Any]]:
    """Returns each source with the state columns that it fills and the corresponding columns of the source."""
    mapping: list[tuple[str, Any, Any]] = []
    for key in dict.fromkeys(key for key, _ in spec.sources):
        columns = [i for i, (source, _) in enumerate(spec.sources) if source == key]
        sources = [column for source, column in spec.sources if source == key]
        identical = columns == sources == list(range(spec.state_size))
        mapping.append((key, slice(None), slice(None)) if identical else (key, np.array(columns), np.array(sources)))
    return mapping


def _supports_step_joint(kind: type) -> bool:
    """Returns whether the class that defines ``step`` also defines ``step_joint``."""
    both = {"step", "step_joint"}
    return next((both <= vars(base).keys() for base in kind.__mro__ if both & vars(base).keys()), False)
