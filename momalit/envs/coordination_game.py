"""Iterated Coordination Game: the team is rewarded when its agents choose the same action."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from momalit.core.checks import require_choice, require_integers
from momalit.core.errors import UserError
from momalit.core.symmetries import Parts, Symmetry
from momalit.core.team import STATE
from momalit.envs.repeated_game import RepeatedGame

PAYOFFS = ("all", "pairs")


class CoordinationGame(RepeatedGame):
    """A matrix game: ``n_agents`` agents simultaneously choose one of ``n_actions`` in each of ``horizon`` steps.

    The state is the one-hot encoding of all agents' previous actions, ``(n_agents * n_actions,)``; initially zero.

    Args:
        n_agents: number of agents, at least 2.
        n_actions: number of actions K, each a possible convention, at least 2.
        horizon: steps per episode.
        payoff: ``all`` rewards if all agents choose the same action, ``pairs`` rewards the fraction of matching pairs.
        convention_payoff: reward for agreement on each of the K actions; 1 each by default.
        observability: with ``all`` every agent observes the state, with ``own`` only its own previous action.

    Raises:
        UserError: a setting is invalid.
    """

    metadata: ClassVar[dict[str, Any]] = {**RepeatedGame.metadata, "name": "icg"}

    def __init__(
        self,
        n_agents: int = 2,
        n_actions: int = 2,
        horizon: int = 10,
        payoff: str = "all",
        convention_payoff: Sequence[float] | None = None,
        observability: str = "all",
    ) -> None:
        require_integers("env.", {"n_agents": n_agents, "n_actions": n_actions}, 2)
        require_integers("env.", {"horizon": horizon}, 1)
        require_choice("env.payoff", payoff, PAYOFFS)
        if convention_payoff is not None and len(convention_payoff) != n_actions:
            raise UserError(
                f"env.convention_payoff: found {len(convention_payoff)} values, expected n_actions = {n_actions}"
            )
        choices: list[spaces.Space[Any]] = [spaces.Discrete(n_actions) for _ in range(n_agents)]
        super().__init__(choices, n_actions, 0.0, horizon, observability)
        self.n_actions, self.payoff = n_actions, payoff
        self.convention_payoff = np.asarray(convention_payoff or [1.0] * n_actions, dtype=np.float64)
        self._n_pairs = n_agents * (n_agents - 1) / 2
        self._offsets = np.arange(n_agents) * n_actions
        first: dict[
            float, int
        ] = {}  # conventions that pay the same are alike: each is exchanged with the first of them
        pairs = [(first.setdefault(payoff, k), k) for k, payoff in enumerate(self.convention_payoff.tolist())]
        self.symmetries = (
            *(self._neighbours_exchanged(i) for i in range(n_agents - 1)),
            *(self._conventions_exchanged(j, k) for j, k in pairs if j != k),
        )

    def encode(self, actions: list[int]) -> np.ndarray:
        state = np.zeros_like(self._state)
        state[self._offsets + np.array(actions)] = 1.0
        return state

    def reward(self, actions: list[int]) -> float:
        choices = np.array(actions)
        if self.payoff == "all":
            first = choices[0]
            return float(self.convention_payoff[first]) if (choices == first).all() else 0.0
        count = np.bincount(choices, minlength=self.n_actions)
        return float((self.convention_payoff * (count * (count - 1) / 2)).sum() / self._n_pairs)

    def _conventions_exchanged(self, j: int, k: int) -> Symmetry:
        order = list(range(self.n_actions))
        order[j], order[k] = k, j

        def exchanged(observations: Parts, actions: Parts) -> tuple[Parts, Parts]:
            state = observations[STATE].reshape(-1, self.n_actions)[:, order].ravel()
            return {STATE: state}, {agent: action[order] for agent, action in actions.items()}

        return exchanged

    def references(self) -> dict[str, float]:
        """Returns the exact expected returns of uniformly random actions and of the optimum.

        All n agents choose action k with probability K^-n, and a given pair does with probability K^-2.
        """
        n_matching = len(self.possible_agents) if self.payoff == "all" else 2
        random = self.convention_payoff.sum() * float(self.n_actions) ** -n_matching
        return {"random": float(self.horizon * random), "expert": float(self.horizon * self.convention_payoff.max())}
