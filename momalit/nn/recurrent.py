"""Stacked gated recurrent units with a forward and a backward pass written for whole sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from momalit.nn.stacked import StackedLinear

CACHED = 2**19  # numbers of one kind (states, gates) that a processor's cache can hold through a pass over time


class _GRUSequence(torch.autograd.Function):
    """One GRU pass over time, with gates r, z, n as in Cho et al. (2014) and PyTorch's ``nn.GRU``.

    Autograd would record some ten operations per time step. Written out, a step costs one batched product and four or
    five element-wise operations into memory laid out beforehand, and the gradient of the recurrent weights is a single
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
        hidden[0] = h
        # What a step's product is added to. Its r and z are final then; its third part is still to be reset by r.
        gated = bias.expand(time, n, rows, -1).clone()
        gated[..., : 2 * size] += gates[..., : 2 * size].transpose(0, 1)
        # All views are made here, once: in the loop they would cost as much as the arithmetic of a small batch.
        into = gates[..., 2 * size :].unbind(1)
        r, z, remembered = (part.unbind(0) for part in gated.split(size, -1))
        both = gated[..., : 2 * size].unbind(0)
        states, starts, candidates = hidden.unbind(0), before.unbind(0), candidate.unbind(0)
        products, kept = gated.unbind(0), keep.unbind(0)
        for t in range(time):
            torch.mul(states[t], kept[t], out=starts[t])
            products[t].baddbmm_(starts[t], weight)
            both[t].sigmoid_()
            torch.addcmul(into[t], r[t], remembered[t], out=candidates[t]).tanh_()
            torch.lerp(candidates[t], starts[t], z[t], out=states[t + 1])
        ctx.save_for_backward(before, candidate, gated, weight, keep)
        return hidden[1:].transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        before, candidate, gated, weight, keep = ctx.saved_tensors
        time, n, rows, size = before.shape
        r, z, remembered = gated.split(size, -1)
        # How r, z, the remembered part and the candidate answer to the new state, for all times at once.
        slope = gated.new_empty(time, n, rows, 4, size)
        slope_c = torch.mul(1 - z, 1 - candidate * candidate, out=slope[..., 3, :])
        torch.mul(slope_c, r, out=slope[..., 2, :])
        torch.mul((before - candidate) * z, 1 - z, out=slope[..., 1, :])
        torch.mul(slope[..., 2, :] * remembered, 1 - r, out=slope[..., 0, :])
        change = torch.empty_like(slope)
        through, transposed = z.unbind(0), weight.transpose(1, 2)
        slopes, changes, kept = slope.unbind(0), change.unbind(0), keep.unbind(0)
        d_products = change.flatten(3)[..., : 3 * size]
        products, grads = d_products.unbind(0), grad.unbind(1)
        dh = grads[-1]
        for t in range(time - 1, -1, -1):
            torch.mul(slopes[t], dh.unsqueeze(2), out=changes[t])
            start = torch.mul(dh, through[t]).baddbmm_(products[t], transposed)
            dh = torch.addcmul(grads[t - 1], start, kept[t]) if t else start.mul_(kept[t])
        d_gates = torch.cat([d_products[..., : 2 * size], change[..., 3, :]], -1).transpose(0, 1)
        flat = d_products.transpose(0, 1).reshape(n, time * rows, 3 * size)
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
        return recur([self], self.input(x), keep, h)


def recur(grus: Sequence[StackedGRU], gates: Tensor, keep: Tensor, h: Tensor | None = None) -> Tensor:
    """Runs several stacks of one size as if they were one, which costs the loop over time once.

    On a processor, more networks than its cache holds run in several goes: that halves the time of a hundred of them.

    Args:
        grus: the stacks, with n networks in all.
        gates: what their input layers gave, ``(n, T, B, 3 size)``.
        keep: ``(T, B)``, 0 where the memory is cleared before the step.
        h: memory before the first step ``(n, B, size)``, empty if None.

    Returns:
        the memory after every step, ``(n, T, B, size)``.
    """
    weight = _join([gru.hidden.weight for gru in grus]).to(gates.dtype)
    bias = _join([gru.hidden.bias for gru in grus]).to(gates.dtype)
    n, _, rows, _ = gates.shape
    h = gates.new_zeros(n, rows, grus[0].size) if h is None else h.to(gates.dtype)
    keep = keep.unsqueeze(-1).to(gates.dtype)
    pieces = -(-gates.numel() // (3 * CACHED)) if gates.device.type == "cpu" else 1
    parts = [value.tensor_split(min(pieces, n)) for value in (gates, h, weight, bias)]
    return _join([_GRUSequence.apply(*part, keep) for part in zip(*parts, strict=True)])


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
