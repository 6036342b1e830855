"""Sums over the processes of a distributed step; alone, a sum is itself."""

from typing import Any

import torch
from torch import Tensor, distributed


def together() -> bool:
    """Whether several processes share the work."""
    return distributed.is_available() and distributed.is_initialized()


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        out = value.clone()
        distributed.all_reduce(out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        # Every process computes the same loss from the sum, and gradients are averaged over
        # processes afterwards: the factor undoes that average.
        return gradient * distributed.get_world_size()


def total(value: Tensor) -> Tensor:
    """The sum of `value` over all processes, differentiable.

    A loss made of such sums is the loss of the whole step on every process.
    """
    if not together():
        return value
    out: Tensor = _Total.apply(value)  # type: ignore[no-untyped-call]
    return out
