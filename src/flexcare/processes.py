"""What the processes of a distributed run share: sums, and the gradients of a step.

Alone, a sum is itself. Every process has to ask for the same sums in the same order.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed, nn


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
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # The loss made of the sum is the same on every process, and each one's gradient is what
        # its own share contributes: `add_gradients` makes them the whole.
        return gradient


def first() -> bool:
    """Whether this is the process that writes."""
    return not together() or distributed.get_rank() == 0


def total(value: Tensor) -> Tensor:
    """The sum of `value` over all processes, differentiable.

    A loss made of such sums is the loss of the whole step on every process.
    """
    if not together():
        return value
    out: Tensor = _Total.apply(value)  # type: ignore[no-untyped-call]
    return out


def mean(amount: Tensor, count: Tensor) -> Tensor:
    """Amount / count of all processes together, both without dimension; 0 where nothing counts."""
    amount, count = total(torch.stack([amount, count.to(amount.dtype)]))
    return amount / count.clamp(min=1)


def anyone(flag: bool, device: torch.device) -> bool:
    """Whether the flag is up on any process."""
    return bool(total(torch.tensor(float(flag), device=device)))


def add_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give every process the sum of all processes' gradients; all zeros become None.

    A modality may be absent from one process's rows alone. So what a step leaves out is told by
    the summed gradient, and is the same however its rows are shared out. The gradient None keeps
    the momentum of earlier steps from moving it.
    """
    every = list(parameters)
    if together():
        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in every]
        summed = torch.cat([gradient.flatten() for gradient in own])
        distributed.all_reduce(summed)
        parts = torch.split(summed, [p.numel() for p in every])
        for parameter, part in zip(every, parts, strict=True):
            parameter.grad = part.view_as(parameter)
    leave_untouched(every)


def leave_untouched(parameters: Iterable[nn.Parameter]) -> None:
    """Make a gradient of all zeros None."""
    given = [(p, p.grad.any()) for p in parameters if p.grad is not None]
    if not given:
        return
    touched = torch.stack([some for _, some in given]).tolist()
    for (parameter, _), some in zip(given, touched, strict=True):
        if not some:
            parameter.grad = None
