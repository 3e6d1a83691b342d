"""Values of many actions in one situation, without keeping what led to each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _SampledActionValues(torch.autograd.Function):
    """``relu(known + a W) v`` for N actions a.

    Autograd would keep the hidden units of every action, 33 MB for 31 actions of 256 situations and 4 networks, and go
    over them a dozen times. One action at a time they stay in the cache, and the backward pass makes them again, which
    costs a product of a few columns. It needs to know only which units were active.
    """

    @staticmethod
    def forward(ctx: Any, known: Tensor, tried: Tensor, weight: Tensor, out: Tensor) -> Tensor:
        """Shapes: known (n, R, W), tried (N, n, R, U), weight (n, U, W), out (n, W, 1); gives (N, n, R, 1)."""
        result = known.new_empty(*tried.shape[:3], 1)
        hidden = torch.empty_like(known)
        for action, value in zip(tried.unbind(0), result.unbind(0), strict=True):
            torch.baddbmm(known, action, weight, out=hidden).relu_()
            torch.bmm(hidden, out, out=value)
        ctx.save_for_backward(known, tried, weight, out)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        known, tried, weight, out = ctx.saved_tensors
        # Gradients with respect to active units, before the factor v, summed over actions; and times the actions.
        total, by_action = torch.zeros_like(known), torch.zeros_like(weight)
        hidden, active = torch.empty_like(known), torch.empty_like(known)
        scaled = (weight * out.mT).mT
        d_tried = torch.empty_like(tried) if ctx.needs_input_grad[1] else None
        for i, (action, slope) in enumerate(zip(tried.unbind(0), grad.unbind(0), strict=True)):
            torch.baddbmm(known, action, weight, out=hidden)
            # The derivative of relu: the gradient where a unit is positive, 0 elsewhere.
            torch.ops.aten.threshold_backward.grad_input(slope.expand_as(hidden), hidden, 0, grad_input=active)
            total += active
            by_action.baddbmm_(action.mT, active)
            if d_tried is not None:
                torch.bmm(active, scaled, out=d_tried[i])
        # Σ relu(x) g = Σ x g over the active units, and x = known + a W.
        d_out = (known * total).sum(1, keepdim=True) + (weight * by_action).sum(1, keepdim=True)
        return total * out.mT, d_tried, by_action * out.mT, d_out.mT


def sampled_action_values(known: Tensor, tried: Tensor, weight: Tensor, out: Tensor) -> Tensor:
    """A hidden layer that adds what an action does to what is known, and a linear output.

    Args:
        known: ``(n, R, W)``, the part of the hidden layer's input that all actions share.
        tried: N actions in each of R situations, ``(N, n, R, U)``.
        weight: what actions do to the hidden layer, ``(n, U, W)``.
        out: of the output, ``(n, W, 1)``.

    Returns:
        ``(N, n, R, 1)``, in single precision, as all of it is computed.
    """
    return _SampledActionValues.apply(known.float(), tried.float(), weight.float(), out.float())
