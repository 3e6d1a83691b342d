"""Stacked gated recurrent units with a forward and a backward pass written for whole sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from momalit.nn.stacked import StackedLinear

# What autograd itself uses: gradients of tanh and σ from their results, in a single pass over memory.
through_tanh = torch.ops.aten.tanh_backward.default
through_sigmoid = torch.ops.aten.sigmoid_backward.grad_input
COPIED = 16  # steps from which a copy of the transposed weights pays for itself: products read it faster than a view
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
        gated = h.new_empty(n, time, rows, 3 * size)
        kept = keep.unbind(0)
        # Acting keeps PyTorch's tanh to the last digit, so that datasets that networks play stay the same.
        squash = torch.tanh_ if time == 1 else _tanh_
        for part in _pieces(gated):
            # What a step's product is added to. Its r and z are final then; its third part is still to be reset by r.
            gated[part, ..., 2 * size :] = bias[part, ..., 2 * size :].unsqueeze(1)
            for first, given in zip(range(0, n, each), gates, strict=True):
                mine = slice(max(part.start, first), min(part.stop, first + each))
                if mine.start < mine.stop:
                    given, own = given[mine.start - first : mine.stop - first], bias[mine].unsqueeze(1)
                    torch.add(given[..., : 2 * size], own[..., : 2 * size], out=gated[mine, ..., : 2 * size])
                    candidate[mine] = given[..., 2 * size :]
            # All views are made here, once: in the loop they would cost as much as the arithmetic of a small batch.
            products, both = gated[part].unbind(1), gated[part, ..., : 2 * size].unbind(1)
            r, z, remembered = (gate.unbind(1) for gate in gated[part].split(size, -1))
            states, starts, candidates = (value[part].unbind(1) for value in (hidden, before, candidate))
            state, recurrent = h[part], weight[part]
            for t in range(time):
                torch.mul(state, kept[t], out=starts[t])
                products[t].baddbmm_(starts[t], recurrent)
                both[t].sigmoid_()
                squash(candidates[t].addcmul_(r[t], remembered[t]))
                state = torch.lerp(candidates[t], starts[t], z[t], out=states[t])
        ctx.save_for_backward(before, candidate, gated, weight, keep)
        return hidden.split(each)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        before, candidate, gated, weight, keep = ctx.saved_tensors
        n, time, rows, size = before.shape
        # What a state does to the loss of its own time is there; what it does to later times is added on the way.
        d_state, d_h = torch.cat(grads), before.new_empty(n, rows, size)
        change, d_weight = torch.empty_like(gated), torch.empty_like(weight)
        d_bias = weight.new_empty(n, 1, 3 * size)
        transposed, kept = weight.transpose(1, 2), keep.unbind(0)
        if time > COPIED:
            transposed = transposed.contiguous()
        for part in _pieces(gated):
            r, z, remembered = gated[part].split(size, -1)
            # How r, z and the remembered part answer to the new state, for all times at once.
            of_r, of_z, of_remembered = change[part].split(size, -1)
            of_candidate = through_tanh(1 - z, candidate[part])
            torch.mul(of_candidate, r, out=of_remembered)
            through_sigmoid(before[part] - candidate[part], z, grad_input=of_z)
            through_sigmoid(of_candidate * remembered, r, grad_input=of_r)
            changes, all_three = change[part].unbind(1), change[part].unflatten(-1, (3, size)).unbind(1)
            states, through, recurrent = d_state[part].unbind(1), z.unbind(1), transposed[part]
            for t in range(time - 1, -1, -1):
                all_three[t].mul_(states[t].unsqueeze(2))
                start = torch.mul(states[t], through[t]).baddbmm_(changes[t], recurrent)
                if t:
                    states[t - 1].addcmul_(start, kept[t])
            torch.mul(start, kept[0], out=d_h[part])
            flat = change[part].flatten(1, 2)
            torch.bmm(before[part].flatten(1, 2).transpose(1, 2), flat, out=d_weight[part])
            torch.sum(flat, 1, keepdim=True, out=d_bias[part])
            # The input's part of the candidate is not reset.
            torch.mul(of_candidate, d_state[part], out=of_remembered)
        return d_h, d_weight, d_bias, None, *change.split(n // len(grads))


def _tanh_(values: Tensor) -> None:
    """Replaces x by tanh x = 2 σ(2x) - 1; PyTorch's own tanh costs a processor ten times its σ.

    Formats of 16 bits keep theirs: around 0 there would be few digits left.
    """
    if values.device.type != "cpu" or values.dtype.itemsize < 4:
        values.tanh_()
    else:
        values.add_(values).sigmoid_().mul_(2).sub_(1)


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
