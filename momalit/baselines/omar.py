"""OMAR with independent learners: conservative values, and policies regularised towards the best action of a search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from momalit.baselines.cql import ConservativeLearner
from momalit.baselines.value_learner import Minibatch
from momalit.core.checks import require_numbers
from momalit.core.errors import UserError
from momalit.core.team import TeamSpec
from momalit.functional.surrogate import masked_mean
from momalit.functional.value_learning import elite_moments, squared_distance
from momalit.nn.distributions import TeamDistribution
from momalit.training.hyperparameters import plain_arguments


class IOMARModule(ConservativeLearner):
    """Independent OMAR (Pan et al., 2022): the Q-networks of CQL, and deterministic policies.

    Gradient ascent on conservative values can end in local optima. Each policy is therefore also regularised towards
    the best action that the cross-entropy method (CEM) finds for its Q-network. Actions are in units of half their
    range. The regulariser and the targets of CQL use the policies' actions with Gaussian noise.

    Args:
        spec: the team (set from the dataset on the command line); continuous actions only.
        cql_alpha: α, weight of the regulariser.
        n_action_samples: number of actions sampled from each of the uniform distribution, π(o) and π(o').
        action_noise: standard deviation of the noise on the policies' actions.
        omar_coefficient: weight w of the regularisation, from 0 to 1; the Q-values have the weight 1 - w.
        cem_iterations: iterations of the search.
        cem_samples: actions sampled per iteration.
        cem_elites: number of best actions to which the next iteration's Gaussian is fitted.
        **kwargs: see ``ValueLearner``.
    """

    title, deterministic = "IOMAR", True

    def __init__(
        self,
        spec: TeamSpec | Mapping[str, Any],
        cql_alpha: float = 1.0,
        n_action_samples: int = 10,
        action_noise: float = 0.2,
        omar_coefficient: float = 0.7,
        cem_iterations: int = 2,
        cem_samples: int = 20,
        cem_elites: int = 5,
        **kwargs: Any,
    ) -> None:
        arguments = plain_arguments(locals())
        super().__init__(spec, cql_alpha, n_action_samples, initial_std=0.5, min_std=0.05, **kwargs)
        self.save_hyperparameters(arguments)
        self.require_continuous()
        require_numbers(
            "model.", {"cem_iterations": cem_iterations, "cem_samples": cem_samples, "cem_elites": cem_elites}, least=1
        )
        if cem_elites > cem_samples:
            raise UserError(f"model.cem_elites: found {cem_elites}, expected at most cem_samples = {cem_samples}")
        require_numbers("model.", {"omar_coefficient": omar_coefficient}, least=0, most=1)
        self.actor.set_std(action_noise, "action_noise")
        self.actor.raw_std.requires_grad_(False)

    def policy_loss(self, batch: Minibatch, policy: TeamDistribution, hidden_state: Tensor) -> dict[str, Tensor]:
        """Returns ``-(1 - w) Q_1(o, π(o)) + w (π(o) - â)²`` with the best action â found (Pan et al., eq. 5)."""
        action = self.actor.inputs.scaled(policy.mode)
        hidden_state = hidden_state[: self.team.n_agents]  # of the first Q-networks
        value = self.scale.value(self.q.action_values(hidden_state, action.unsqueeze(0), frozen=True)[0, 0])
        best = self.search(hidden_state, action.detach())
        regularisation = squared_distance(action, best, batch.valid, self.actor.mask)
        weight = self.hparams["omar_coefficient"]
        return {"policy": weight * regularisation - (1 - weight) * masked_mean(value, batch.valid)}

    @torch.no_grad()
    def search(self, hidden_state: Tensor, action: Tensor) -> Tensor:
        """Returns the best action found by the cross-entropy method, or ``action`` if that is better.

        Args:
            hidden_state: hidden states of the first Q-networks, ``(A, T, B, H)``.
            action: scaled actions of the policies, ``(T, B, A, U)``.

        Returns:
            scaled actions ``(T, B, A, U)``.
        """
        mean, std = torch.zeros_like(action), torch.ones_like(action)
        best, best_value = action, self.q.action_values(hidden_state, action.unsqueeze(0))[0, 0]
        for _ in range(self.hparams["cem_iterations"]):
            shape = (self.hparams["cem_samples"], *action.shape)
            samples = mean + std * torch.randn(shape, generator=self.noise, device=action.device)
            samples = samples.clamp(-1, 1) * self.actor.mask
            values = self.q.action_values(hidden_state, samples)[0]
            mean, std = elite_moments(samples, values, self.hparams["cem_elites"])
            value, index = values.max(0)
            candidate = samples.gather(0, index[None, ..., None].expand(1, *action.shape))[0]
            best = torch.where((value > best_value).unsqueeze(-1), candidate, best)
            best_value = torch.maximum(value, best_value)
        return best
