"""One answer of one task as a number that can be taken apart: the logarithm of its odds."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from flexcare.batch import Batch, Tokens
from flexcare.models.experts import Experts
from flexcare.models.network import Network, Output
from flexcare.schema import TaskInfo

ROWS = 16  # of a batch, each of which may hold a whole film and note
READERS = 2**22  # about how many entries the table of who sees whom may have in a batch
FAR = -1e9  # added to an expert's logit, it is never chosen


class Question:
    """What is explained.

    Args:
        model: float64, in eval mode, without gradients of its own.
        answer: number of the output.

    Attributes:
        rows: how many rows to ask about at once.
    """

    def __init__(self, model: Network, info: TaskInfo, answer: int) -> None:
        self.model, self.info, self.answer = model, info, answer
        networks = [m for m in model.modules() if isinstance(m, Network)]
        readers = 1 + max((len(network.combinations) for network in networks), default=0)
        self.rows = max(1, min(ROWS, READERS // readers**2))

    def output(self, size: int, inputs: Mapping[str, Tokens]) -> Output:
        """What the network makes of `size` rows that are asked this task alone."""
        found: Output = self.model(Batch(size, dict(inputs), (self.info.name,)))
        return found

    def __call__(self, size: int, inputs: Mapping[str, Tokens]) -> Tensor:
        """(size,) log-odds."""
        return log_odds(self.info, self.output(size, inputs).logits[self.info.name], self.answer)

    @contextmanager
    def same_experts(self, ask: Callable[[], Any]) -> Iterator[None]:
        """Within, every mixture uses the experts that it chose when `ask` was called.

        Choosing others is a jump, which no gradient shows.
        """
        mixtures = [m for m in self.model.modules() if isinstance(m, Experts)]
        chosen: dict[nn.Module, Tensor] = {}

        def note(mixture: nn.Module, given: Any, routed: Any) -> None:
            chosen[mixture] = routed.gates > 0  # (1, 1, S, E)

        hooks = [mixture.register_forward_hook(note) for mixture in mixtures]
        ask()
        _remove(hooks)

        def keep(mixture: Experts) -> Any:
            return lambda gate, given, logits: logits.masked_fill(~chosen[mixture], FAR)

        hooks = [mixture.gate.register_forward_hook(keep(mixture)) for mixture in mixtures]
        try:
            yield
        finally:
            _remove(hooks)


def log_odds(info: TaskInfo, logits: Tensor, answer: int) -> Tensor:
    """(B, outputs) logits -> (B,): of a class its odds against all others together."""
    own = logits[:, answer]
    if info.kind != "multiclass" or info.outputs == 1:
        return own
    others = torch.cat([logits[:, :answer], logits[:, answer + 1 :]], 1)
    return own - others.logsumexp(1)


def _remove(hooks: list[Any]) -> None:
    for hook in hooks:
        hook.remove()
