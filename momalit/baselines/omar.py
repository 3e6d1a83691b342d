"""OMAR by independent learners: conservative values, and policies pulled to the best action that a search finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from momalit.baselines.cql import ConservativeLearner
from momalit.baselines.offline_learner import require_at_least
from momalit.baselines.value_learner import Minibatch
from momalit.core.errors import UserError
from momalit.core.team import TeamSpec
from momalit.functional.surrogate import masked_mean
from momalit.functional.value_learning import elite_moments, squared_distance
from momalit.nn.distributions import TeamDistribution
from momalit.training.hyperparameters import plain_arguments


class IOMARModule(ConservativeLearner):
    """Independent OMAR (Pan et al., 2022): the Qs of CQL, and deterministic policies.

    Gradients of conservative values lead policies into local optima; so each policy is also pulled towards the best
    action of a cross-entropy search over its Q. Actions are measured in units of half their range, and the actions that
    the regulariser and the targets look at are the policies' with Gaussian noise.

    Args:
        spec: the team (the command line links it to the data); continuous actions only.
        cql_alpha: α, weight of the regulariser.
        n_action_samples: actions drawn from each of the uniform distribution, π(o) and π(o').
        initial_noise: deviation of that noise.
        omar_coefficient: weight of the pull, from 0 to 1; the Q's has the rest.
        cem_iterations: of the search.
        cem_samples: actions per iteration.
        cem_elites: best of them that the next iteration is drawn around.
        **kwargs: see ``ValueLearner``.
    """

    title, deterministic = "IOMAR", True

    def __init__(
        self,
        spec: TeamSpec | Mapping[str, Any],
        cql_alpha: float = 1.0,
        n_action_samples: int = 10,
        initial_noise: float = 0.2,
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
        require_at_least(1, cem_iterations=cem_iterations, cem_samples=cem_samples, cem_elites=cem_elites)
        if cem_elites > cem_samples:
            raise UserError(f"model.cem_elites: found {cem_elites}, expected at most cem_samples = {cem_samples}")
        if not 0 <= omar_coefficient <= 1:
            raise UserError(f"model.omar_coefficient: found {omar_coefficient}, expected a number from 0 to 1")
        self.actor.set_std(initial_noise, "initial_noise")
        self.actor.raw_std.requires_grad_(False)

    def policy_loss(self, batch: Minibatch, policy: TeamDistribution, hidden_state: Tensor) -> dict[str, Tensor]:
        """``-(1 - w) Q_1(o, π(o)) + w (π(o) - â)²`` with the action â that the search found (there, eq. 5)."""
        action = self.actor.inputs.scaled(policy.mode)
        first = hidden_state[: self.team.n_agents]
        value = self.scale.value(self.q.actions(first, action.unsqueeze(0), frozen=True)[0, 0])
        best = self.search(first, action.detach())
        pull = squared_distance(action, best, batch.valid, self.actor.mask)
        weight = self.hparams["omar_coefficient"]
        return {"policy": weight * pull - (1 - weight) * masked_mean(value, batch.valid)}

    @torch.no_grad()
    def search(self, hidden_state: Tensor, action: Tensor) -> Tensor:
        """The best action seen by the cross-entropy method, at least as good as ``action``.

        Args:
            memory: what the first Qs know, ``(A, T, B, H)``.
            action: the policies', scaled, ``(T, B, A, U)``.

        Returns:
            ``(T, B, A, U)``, scaled.
        """
        mean, deviation = torch.zeros_like(action), torch.ones_like(action)
        best, worth = action, self.q.actions(hidden_state, action.unsqueeze(0))[0, 0]
        for _ in range(self.hparams["cem_iterations"]):
            shape = (self.hparams["cem_samples"], *action.shape)
            drawn = mean + deviation * torch.randn(shape, generator=self.noise, device=action.device)
            drawn = drawn.clamp(-1, 1) * self.actor.mask
            values = self.q.actions(hidden_state, drawn)[0]
            mean, deviation = elite_moments(drawn, values, self.hparams["cem_elites"])
            value, index = values.max(0)
            found = drawn.gather(0, index[None, ..., None].expand(1, *action.shape))[0]
            best = torch.where((value > worth).unsqueeze(-1), found, best)
            worth = torch.maximum(value, worth)
        return best
