"""Stacked gated recurrent units with a forward and a backward pass written for whole sequences."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from momalit.nn.stacked import StackedLinear


class _GRUSequence(torch.autograd.Function):
    """One GRU pass over time, with gates r, z, n as in Cho et al. (2014) and PyTorch's ``nn.GRU``.

    Autograd would record some ten operations per time step. Written out, a step costs one batched product and six
    element-wise operations into memory laid out beforehand, and the gradient of the recurrent weights is a single
    product over all times at the end. Inside, time leads, so that every step's slice is contiguous.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, h: Tensor, weight: Tensor, bias: Tensor, keep: Tensor) -> Tensor:
        """Shapes: gates (n, T, B, 3H), h (n, B, H), weight (n, H, 3H), bias (n, 1, 3H), keep (T, B, 1)."""
        n, time, rows, _ = gates.shape
        size = h.shape[-1]
        # The initial state takes slot 0, so that slot t is what step t starts from.
        hidden = gates.new_empty(time + 1, n, rows, size)
        before, candidate = gates.new_empty(2, time, n, rows, size)
        product = gates.new_empty(time, n, rows, 3 * size)
        reset_update = gates.new_empty(time, n, rows, 2 * size)
        hidden[0] = h
        # All views are made here, once: in the loop they would cost as much as the arithmetic of a small batch.
        into_rz, into_c = gates[..., : 2 * size].unbind(1), gates[..., 2 * size :].unbind(1)
        product_rz, product_c = product[..., : 2 * size].unbind(0), product[..., 2 * size :].unbind(0)
        r, z = reset_update[..., :size].unbind(0), reset_update[..., size:].unbind(0)
        states, starts, candidates = hidden.unbind(0), before.unbind(0), candidate.unbind(0)
        both, products, kept = reset_update.unbind(0), product.unbind(0), keep.unbind(0)
        for t in range(time):
            torch.mul(states[t], kept[t], out=starts[t])
            torch.baddbmm(bias, starts[t], weight, out=products[t])
            torch.add(into_rz[t], product_rz[t], out=both[t]).sigmoid_()
            torch.addcmul(into_c[t], r[t], product_c[t], out=candidates[t]).tanh_()
            torch.lerp(candidates[t], starts[t], z[t], out=states[t + 1])
        ctx.save_for_backward(before, reset_update, candidate, product, weight, keep)
        return hidden[1:].transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        before, reset_update, candidate, product, weight, keep = ctx.saved_tensors
        time, n, rows, size = before.shape
        r, z = reset_update.split(size, -1)
        # Everything that does not depend on the running gradient, for all times at once.
        slope_z = ((before - candidate) * z * (1 - z)).unbind(0)
        slope_c = ((1 - z) * (1 - candidate * candidate)).unbind(0)
        slope_r = (product[..., 2 * size :] * r * (1 - r)).unbind(0)
        d_candidate = torch.empty_like(before)
        d_product = torch.empty_like(product)
        parts = d_product.view(time, n, rows, 3, size).unbind(3)
        d_r, d_z, d_c = (part.unbind(0) for part in parts)
        d_candidates, d_products = d_candidate.unbind(0), d_product.unbind(0)
        grads, resets, updates, kept = grad.unbind(1), r.unbind(0), z.unbind(0), keep.unbind(0)
        transposed = weight.transpose(1, 2)
        dh = torch.zeros_like(before[0])
        for t in range(time - 1, -1, -1):
            dh = dh + grads[t]
            torch.mul(dh, slope_c[t], out=d_candidates[t])
            torch.mul(d_candidates[t], slope_r[t], out=d_r[t])
            torch.mul(dh, slope_z[t], out=d_z[t])
            torch.mul(d_candidates[t], resets[t], out=d_c[t])
            dh = torch.baddbmm(dh.mul_(updates[t]), d_products[t], transposed).mul_(kept[t])
        d_gates = torch.cat([d_product[..., : 2 * size], d_candidate], -1).transpose(0, 1)
        flat = d_product.transpose(0, 1).reshape(n, time * rows, 3 * size)
        starts = before.transpose(0, 1).reshape(n, time * rows, size)
        return d_gates, dh, starts.transpose(1, 2) @ flat, flat.sum(1, keepdim=True), None


class StackedGRU(nn.Module):
    """n GRUs of one shape.

    Args:
        n: number of networks.
        n_in: input features.
        size: size of the memory.
    """

    def __init__(self, n: int, n_in: int, size: int) -> None:
        super().__init__()
        self.n, self.size = n, size
        self.input = StackedLinear(n, n_in, 3 * size, gain=1.0)
        self.hidden = StackedLinear(n, size, 3 * size, gain=1.0)

    def initial(self, rows: int) -> Tensor:
        """An empty memory, ``(n, rows, size)``."""
        return self.hidden.weight.new_zeros(self.n, rows, self.size)

    def forward(self, x: Tensor, keep: Tensor, h: Tensor | None = None) -> Tensor:
        """Runs over a sequence.

        Args:
            x: inputs ``(n, T, B, n_in)``.
            keep: ``(T, B)``, 0 where the memory is cleared before the step.
            h: memory before the first step ``(n, B, size)``, empty if None.

        Returns:
            the memory after every step, ``(n, T, B, size)``.
        """
        gates = self.input(x)
        h = gates.new_zeros(self.n, x.shape[2], self.size) if h is None else h.to(gates.dtype)
        weight, bias = self.hidden.weight.to(gates.dtype), self.hidden.bias.to(gates.dtype)
        return _GRUSequence.apply(gates, h, weight, bias, keep.unsqueeze(-1).to(gates.dtype))
