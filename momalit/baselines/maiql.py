"""Implicit Q-learning by a team: values per agent, mixed, and decentralised policies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from momalit.baselines.iql import ImplicitQLearner
from momalit.core.team import TeamSpec
from momalit.training.hyperparameters import plain_arguments


class MAIQLModule(ImplicitQLearner):
    """Multi-agent implicit Q-learning: centralised training, decentralised execution (Barde et al., 2024).

    Every agent has its own Q and V on its own history, which two mixers for the twin Qs and one for V, conditioned on
    the state, make the team's. All policies are fitted to the log by the team's advantage.

    Args:
        spec: the team (the command line links it to the data).
        expectile: τ, which part of the distribution of values V aims at.
        temperature: β of the weights exp(β (Q - V)); 0 clones the log.
        max_weight: upper bound of the weights.
        mixer: ``qmix``, ``vdn``, ``linear``, or ``none`` for independent learners.
        **kwargs: see ``ValueLearner``.
    """

    title = "MAIQL"

    def __init__(
        self,
        spec: TeamSpec | Mapping[str, Any],
        expectile: float = 0.7,
        temperature: float = 3.0,
        max_weight: float = 100.0,
        mixer: str = "qmix",
        **kwargs: Any,
    ) -> None:
        arguments = plain_arguments(locals())
        super().__init__(spec, expectile, temperature, max_weight, mixer, **kwargs)
        self.save_hyperparameters(arguments)
