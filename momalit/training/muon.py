"""Muon: gradient descent whose steps change a weight matrix by the same amount in all directions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
STEPS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic polynomial, as published by Jordan et al.
SCALE = 0.2  # root mean square of an AdamW step, in units of its learning rate (Liu et al., 2025)
SMALL = 32  # matrices below this size are multiplied one by one: bits of batched products would depend on the batch
_MATRICES = "matrices"


class Muon(torch.optim.AdamW):
    """AdamW, except for the groups marked ``matrices: True``, whose steps are orthogonalised (Jordan et al., 2024).

    A gradient of a weight matrix is dominated by few directions. Muon replaces the singular values of its momentum by
    about 1, so that rare directions are learned as fast as frequent ones. Its steps have the size of AdamW's (Liu et
    al., 2025), so both have one learning rate. First and last layers, biases and norms are not for it.

    Args:
        groups: groups of parameters; those of a group with ``matrices: True`` are stacks of matrices ``(n, a, b)`` of
            one shape.
        lr: learning rate.
        weight_decay: decoupled weight decay.
        products: number format of the products that orthogonalise.
        fused: as in AdamW.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        weight_decay: float = 0.0,
        products: torch.dtype = torch.float32,
        fused: bool | None = None,
    ) -> None:
        super().__init__(groups, lr, weight_decay=weight_decay, fused=fused)
        self.products = products

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes a step; ``closure`` as in every optimiser."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()  # sees all groups, e.g. to set their gradients to zero
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group.get(_MATRICES)]
        try:
            super().step()
        finally:
            self.param_groups = groups
        for group in groups:
            if group.get(_MATRICES):
                self._step_matrices(group)
        return loss

    def _step_matrices(self, group: dict[str, Any]) -> None:
        weights = [weight for weight in group["params"] if weight.grad is not None]
        if not weights:
            return
        gradients = [weight.grad for weight in weights]
        for weight in weights:
            state = self.state[weight]
            if not state:
                state.update(step=torch.zeros(()), momentum=torch.zeros_like(weight))
            state["step"] += 1
        momenta = [self.state[weight]["momentum"] for weight in weights]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        ahead = torch.cat(torch._foreach_lerp(gradients, momenta, MOMENTUM))
        steps = orthogonalised(ahead.to(self.products)).to(weights[0].dtype)
        # A frozen member has no gradient, but its momentum would keep its direction, and so the size of its step.
        norms = torch.cat([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients])
        steps = steps * (norms > 0).view(-1, 1, 1)
        rate = group["lr"] * SCALE * max(weights[0].shape[1:]) ** 0.5
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(weights, steps.split([len(weight) for weight in weights]), alpha=-rate)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Returns ``(n, a, b)`` with the same singular vectors and singular values of about 1 (0.7 to 1.2; 0 stays 0).

    Five steps of a quintic Newton-Schulz iteration, which needs products only.
    """
    if len(matrices) > 1 and max(matrices.shape[1:]) < SMALL:
        return torch.cat([orthogonalised(matrix) for matrix in matrices.split(1)])
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / torch.linalg.vector_norm(x.flatten(1), dim=1).clamp(min=1e-7).view(-1, 1, 1)
    first, third, fifth = COEFFICIENTS
    for _ in range(STEPS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=third, alpha=fifth), x, beta=first)
    return x.mT if tall else x
