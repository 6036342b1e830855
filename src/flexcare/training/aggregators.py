"""One gradient out of several tasks', where these disagree: TorchJD's aggregators by name.

Those that weigh the rows by numbers that sum to 1 give a shorter gradient than the sum of the
tasks'; Adam does not mind. Each is used with the settings of its paper, or TorchJD's own, on rows
that together have length 1: some of its thresholds are absolute.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flexcare.errors import UserError

CAUTION = 0.5  # CAGrad's c, of its paper
# Added to the diagonal of UPGrad's Gramian; of TorchJD's own 1e-4 a task that is 100 times louder
# than another takes its advantage.
SLACK = 1e-6


@dataclass(frozen=True)
class Rule:
    """How TorchJD is asked.

    Attributes:
        make: its aggregator, of the module and the number of rows.
        memory: what it remembers at first, for so many tasks: a number a task, or a pair of tasks.
        give, take: puts what it remembers of the rows' tasks into it, and gets it back.
    """

    make: Callable[[Any, int], Any]
    memory: Callable[[int], Tensor] = lambda tasks: torch.zeros(0)
    give: Callable[[Any, Tensor], None] = lambda made, own: None
    take: Callable[[Any], Any] = lambda made: None


def _nash(made: Any, own: Tensor) -> None:
    """Nash-MTL begins its search at the weights that it found last."""
    made.weighting.prvs_alpha = own.numpy()


def _vaccine(made: Any, own: Tensor) -> None:
    """GradVac wants cosines at least as large as their running mean."""
    made.gramian_weighting._phi_t = own
    made.gramian_weighting._state_key = (len(own), own.dtype)


def _upgrad(jd: Any, rows: int) -> Any:
    from torchjd.linalg import QuadprogProjector

    return jd.UPGrad(projector=QuadprogProjector(reg_eps=SLACK))


RULES: dict[str, Rule] = {
    "mean": Rule(lambda jd, rows: jd.Mean()),
    "upgrad": Rule(_upgrad),
    "pcgrad": Rule(lambda jd, rows: jd.PCGrad()),
    "gradvac": Rule(
        lambda jd, rows: jd.GradVac(),
        lambda tasks: torch.zeros(tasks, tasks),
        _vaccine,
        lambda made: made.gramian_weighting._phi_t,
    ),
    "cagrad": Rule(lambda jd, rows: jd.CAGrad(CAUTION)),
    "mgda": Rule(lambda jd, rows: jd.MGDA()),
    "imtl_g": Rule(lambda jd, rows: jd.IMTLG()),
    "aligned_mtl": Rule(lambda jd, rows: jd.AlignedMTL()),
    "config": Rule(lambda jd, rows: jd.ConFIG()),
    "nash_mtl": Rule(
        lambda jd, rows: jd.NashMTL(rows),
        lambda tasks: torch.ones(tasks, dtype=torch.float64),
        _nash,
        lambda made: torch.as_tensor(made.weighting.prvs_alpha),
    ),
}


class Aggregator:
    """One rule, and what it remembers of each task.

    Raises:
        UserError: TorchJD, or a solver that the rule needs, is not installed.
    """

    def __init__(self, name: str, tasks: Sequence[str]) -> None:
        try:
            from torchjd import aggregation

            RULES[name].make(aggregation, 2)
        except ImportError as error:
            raise UserError(
                f"training.aggregator = {name!r} needs TorchJD and its solvers",
                found=str(error),
                expected="the extra `gradients`",
                do="pip install 'flexcare[gradients]'",
            ) from None
        self.rule, self.module, self.tasks = RULES[name], aggregation, tuple(tasks)
        self.memory = self.rule.memory(len(tasks))

    def __call__(self, tasks: Sequence[str], rows: Tensor) -> Tensor:
        """(T, n) gradients of some tasks -> (n,).

        A gradient of zeros has no say. Nothing is to be aggregated of one task, nor of numbers
        that are not finite, which the loop refuses.
        """
        some = rows.any(1).nonzero()[:, 0]
        if len(some) < 2 or not rows.isfinite().all():
            return rows.sum(0)
        made = self.rule.make(self.module, len(some))
        own = torch.tensor([self.tasks.index(tasks[place]) for place in some.tolist()])
        at = (own,) if self.memory.ndim == 1 else (own[:, None], own)
        if len(self.memory):
            self.rule.give(made, self.memory[at])
        length = rows.norm()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a solver's, about its speed
            vector: Tensor = made(rows[some] / length) * length
        if len(self.memory):
            self.memory[at] = self.rule.take(made)
        return vector
