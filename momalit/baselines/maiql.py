"""Multi-agent implicit Q-learning: agents' values are mixed into team values, and policies are decentralised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from momalit.baselines.iql import ImplicitQLearner
from momalit.core.team import TeamSpec
from momalit.training.hyperparameters import plain_arguments


class MAIQLModule(ImplicitQLearner):
    """Multi-agent implicit Q-learning: centralised training, decentralised execution (Barde et al., 2024).

    Each agent has its own Q and V, which depend on its own history. Mixers conditioned on the state combine the agents'
    values into team values: one mixer for each of the twin Q-networks, and one for V. All policies are trained on the
    dataset's actions, weighted by the team's advantage.

    Args:
        spec: the team (set from the dataset on the command line).
        expectile: τ; V is the τ-expectile of the Q-values of the dataset's actions.
        temperature: β of the weights exp(β (Q - V)); 0 is behaviour cloning.
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
