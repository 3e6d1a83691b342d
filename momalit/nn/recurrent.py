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
    product over all times at the end.
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, bias: Tensor, keep: Tensor, *gates: Tensor) -> tuple[Tensor, ...]:
        """Shapes: h (n, B, H), weight (n, H, 3H), bias (n, 1, 3H), keep (T, B, 1), each of gates (n / G, T, B, 3H)."""
        n, rows, size = h.shape
        each, time = gates[0].shape[:2]
        hidden, before, candidate = h.new_empty(3, n, time, rows, size)
        # What a step's product is added to. Its r and z are final then; its third part is still to be reset by r.
        gated = h.new_empty(n, time, rows, 3 * size)
        gated[..., 2 * size :] = bias[..., 2 * size :].unsqueeze(1)
        whole = zip(gates, gated.split(each), candidate.split(each), bias.unsqueeze(1).split(each), strict=True)
        for given, both, into, own in whole:
            torch.add(given[..., : 2 * size], own[..., : 2 * size], out=both[..., : 2 * size])
            into.copy_(given[..., 2 * size :])
        for part in _pieces(gated):
            # All views are made here, once: in the loop they would cost as much as the arithmetic of a small batch.
            products = gated[part].unbind(1)
            both = gated[part, ..., : 2 * size].unbind(1)
            r, z, remembered = (gate.unbind(1) for gate in gated[part].split(size, -1))
            states, starts = hidden[part].unbind(1), before[part].unbind(1)
            candidates, kept, own = candidate[part].unbind(1), keep.unbind(0), weight[part]
            state = h[part]
            for t in range(time):
                torch.mul(state, kept[t], out=starts[t])
                products[t].baddbmm_(starts[t], own)
                both[t].sigmoid_()
                candidates[t].addcmul_(r[t], remembered[t]).tanh_()
                state = torch.lerp(candidates[t], starts[t], z[t], out=states[t])
        ctx.save_for_backward(before, candidate, gated, weight, keep)
        return hidden.split(each)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        before, candidate, gated, weight, keep = ctx.saved_tensors
        n, time, rows, size = before.shape
        d_h, d_state = before.new_empty(n, rows, size), torch.cat(grads)
        d_product, d_gates = torch.empty_like(gated), torch.empty_like(gated)
        transposed = weight.transpose(1, 2)
        for part in _pieces(gated):
            r, z, remembered = gated[part].split(size, -1)
            # How r, z, the remembered part and the candidate answer to the new state, for all times at once.
            shut = 1 - z
            slope_candidate = torch.addcmul(shut, shut * candidate[part], candidate[part], value=-1)
            slope = gated.new_empty(*shut.shape[:-1], 3, size)
            torch.mul(slope_candidate, r, out=slope[..., 2, :])
            torch.mul((before[part] - candidate[part]).mul_(z), shut, out=slope[..., 1, :])
            torch.mul(slope[..., 2, :] * remembered, 1 - r, out=slope[..., 0, :])
            through, own, slopes = z.unbind(1), transposed[part], slope.unbind(1)
            changes, products = d_product[part].unflatten(-1, (3, size)).unbind(1), d_product[part].unbind(1)
            # What a state does to its own time's loss is there; what it does to later ones is added on the way.
            states, kept = d_state[part].unbind(1), keep.unbind(0)
            for t in range(time - 1, -1, -1):
                torch.mul(slopes[t], states[t].unsqueeze(2), out=changes[t])
                start = torch.mul(states[t], through[t]).baddbmm_(products[t], own)
                if t:
                    states[t - 1].addcmul_(start, kept[t])
            torch.mul(start, kept[0], out=d_h[part])
            d_gates[part, ..., : 2 * size] = d_product[part, ..., : 2 * size]
            torch.mul(slope_candidate, d_state[part], out=d_gates[part, ..., 2 * size :])
        flat = d_product.flatten(1, 2)
        d_weight = before.flatten(1, 2).transpose(1, 2) @ flat
        return d_h, d_weight, flat.sum(1, keepdim=True), None, *d_gates.split(n // len(grads))


def _pieces(gated: Tensor) -> list[slice]:
    """On a processor, as many networks as its cache can hold at a time: that halves the time of a hundred of them."""
    n = gated.shape[0]
    size = n
    if gated.device.type == "cpu":
        size = -(-n // -(-gated.numel() // (3 * CACHED)))
    return [slice(begin, begin + size) for begin in range(0, n, size)]


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
        return recur([self], [self.input(x)], keep, h)[0]


def recur(
    grus: Sequence[StackedGRU], gates: Sequence[Tensor], keep: Tensor, h: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Runs several stacks of one size as if they were one, which costs the loop over time once.

    Args:
        grus: G stacks, with n networks in all.
        gates: what the input layer of each gave, ``(n / G, T, B, 3 size)``.
        keep: ``(T, B)``, 0 where the memory is cleared before the step.
        h: memory before the first step ``(n, B, size)``, empty if None.

    Returns:
        the memory of each stack after every step, ``(n / G, T, B, size)``.
    """
    dtype = gates[0].dtype
    weight = _join([gru.hidden.weight for gru in grus]).to(dtype)
    bias = _join([gru.hidden.bias for gru in grus]).to(dtype)
    rows = gates[0].shape[2]
    h = weight.new_zeros(len(weight), rows, grus[0].size) if h is None else h.to(dtype)
    return _GRUSequence.apply(h, weight, bias, keep.unsqueeze(-1).to(dtype), *gates)


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
