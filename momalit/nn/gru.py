"""Stacked gated recurrent units (GRUs) with hand-written passes over whole sequences.

Autograd over the same loop in plain PyTorch makes a policy iteration of the shipped configurations 1.2 (``icg.yaml``),
1.3 (``ant.yaml``) and 1.6 times (``reacher.yaml``) as slow on one core of a CPU with AVX-512.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from momalit.nn.stacked import StackedLinear

# The kernels that autograd uses: gradients of tanh and σ, computed from their outputs in one pass over memory.
tanh_gradient = torch.ops.aten.tanh_backward.default
sigmoid_gradient = torch.ops.aten.sigmoid_backward.grad_input


class _GRUSequence(torch.autograd.Function):
    """One pass over time of n GRUs with gates r, z, n as in Cho et al. (2014) and PyTorch's ``nn.GRU``.

    Autograd would record about ten operations per time step. Here a step is one batched product and four or five
    element-wise operations on preallocated memory. One product over all steps gives the recurrent weights' gradient.
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, bias: Tensor, keep: Tensor, *gates: Tensor) -> tuple[Tensor, ...]:
        """Shapes: h (n, B, H), weight (n, H, 3H), bias (n, 1, 3H), keep (T, B, 1), each of gates (n / G, T, B, 3H)."""
        n, rows, size = h.shape
        stack_size, time = gates[0].shape[:2]
        hidden, previous, candidate = h.new_empty(3, n, time, rows, size)
        gated = h.new_empty(n, time, rows, 3 * size)
        # Each step's product is added to this. The first two thirds become r and z; the last one is scaled by r.
        gated[..., 2 * size :] = bias[..., 2 * size :].unsqueeze(1)
        for first, stack_gates in zip(range(0, n, stack_size), gates, strict=True):
            stack = slice(first, first + stack_size)
            stack_bias = bias[stack].unsqueeze(1)
            torch.add(stack_gates[..., : 2 * size], stack_bias[..., : 2 * size], out=gated[stack, ..., : 2 * size])
            candidate[stack] = stack_gates[..., 2 * size :]
        # The views are made once: in the loop they would cost as much as the arithmetic of a small batch.
        products, r_and_z, keeps = gated.unbind(1), gated[..., : 2 * size].unbind(1), keep.unbind(0)
        r, z, recurrent = (gate.unbind(1) for gate in gated.split(size, -1))
        states, starts, candidates = (value.unbind(1) for value in (hidden, previous, candidate))
        for t in range(time):
            torch.mul(h, keeps[t], out=starts[t])
            products[t].baddbmm_(starts[t], weight)
            r_and_z[t].sigmoid_()
            candidates[t].addcmul_(r[t], recurrent[t]).tanh_()
            h = torch.lerp(candidates[t], starts[t], z[t], out=states[t])
        ctx.save_for_backward(previous, candidate, gated, weight, keep)
        return hidden.split(stack_size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        previous, candidate, gated, weight, keep = ctx.saved_tensors
        n, time, rows, size = previous.shape
        # Starts as each state's direct gradient; the loop adds the gradient that arrives through later states.
        d_state, d_h = torch.cat(grads), previous.new_empty(n, rows, size)
        d_gates = torch.empty_like(gated)
        r, z, recurrent = gated.split(size, -1)
        d_r, d_z, d_recurrent = d_gates.split(size, -1)
        # Local derivatives of the new state with respect to r, z and the recurrent part, for all steps at once.
        d_candidate = tanh_gradient(1 - z, candidate)
        torch.mul(d_candidate, r, out=d_recurrent)
        sigmoid_gradient(previous - candidate, z, grad_input=d_z)
        sigmoid_gradient(d_candidate * recurrent, r, grad_input=d_r)
        changes, all_gates = d_gates.unbind(1), d_gates.unflatten(-1, (3, size)).unbind(1)
        states, through, keeps, transposed = d_state.unbind(1), z.unbind(1), keep.unbind(0), weight.transpose(1, 2)
        for t in range(time - 1, -1, -1):
            all_gates[t].mul_(states[t].unsqueeze(2))
            start = torch.mul(states[t], through[t]).baddbmm_(changes[t], transposed)
            if t:
                states[t - 1].addcmul_(start, keeps[t])
        torch.mul(start, keeps[0], out=d_h)
        flat = d_gates.flatten(1, 2)
        d_weight = torch.bmm(previous.flatten(1, 2).transpose(1, 2), flat)
        d_bias = flat.sum(1, keepdim=True)
        # The input's part of the candidate is not scaled by r.
        torch.mul(d_candidate, d_state, out=d_recurrent)
        return d_h, d_weight, d_bias, None, *d_gates.split(n // len(grads))


class StackedGRU(nn.Module):
    """n GRUs of one shape.

    Args:
        n: number of networks.
        n_in: input features.
        size: size of the hidden state.
    """

    def __init__(self, n: int, n_in: int, size: int) -> None:
        super().__init__()
        self.n, self.size = n, size
        self.input = StackedLinear(n, n_in, 3 * size, gain=1.0)
        self.hidden = StackedLinear(n, size, 3 * size, gain=1.0)

    def initial(self, rows: int) -> Tensor:
        """The initial hidden state, zeros ``(n, rows, size)``."""
        return self.hidden.weight.new_zeros(self.n, rows, self.size)

    def forward(self, x: Tensor, keep: Tensor, h: Tensor | None = None) -> Tensor:
        """Runs over a sequence.

        Args:
            x: inputs ``(n, T, B, n_in)``.
            keep: ``(T, B)``, 0 where the hidden state is reset before the step.
            h: hidden state before the first step ``(n, B, size)``; None for zeros.

        Returns:
            the hidden state after every step, ``(n, T, B, size)``.
        """
        return run_grus([self], [self.input(x)], keep, h)[0]


def run_grus(
    grus: Sequence[StackedGRU], gates: Sequence[Tensor], keep: Tensor, h: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Runs several stacks of one size as one, with a single loop over time.

    Args:
        grus: G stacks, with n networks in all.
        gates: the outputs of each stack's input layer, ``(n / G, T, B, 3 size)``.
        keep: ``(T, B)``, 0 where the hidden state is reset before the step.
        h: hidden state before the first step ``(n, B, size)``; None for zeros.

    Returns:
        the hidden state of each stack after every step, ``(n / G, T, B, size)``.
    """
    dtype = gates[0].dtype
    weight = _join([gru.hidden.weight for gru in grus]).to(dtype)
    bias = _join([gru.hidden.bias for gru in grus]).to(dtype)
    rows = gates[0].shape[2]
    h = weight.new_zeros(len(weight), rows, grus[0].size) if h is None else h.to(dtype)
    return _GRUSequence.apply(h, weight, bias, keep.unsqueeze(-1).to(dtype), *gates)


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
