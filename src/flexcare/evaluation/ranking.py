"""Areas under curves of many resamples at once: predictions are sorted once, copies are counted.

Only ties that hold a positive matter. What each adds is a sum over few subjects, a sparse product
for all resamples together; running sums of these give every area.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from flexcare.evaluation.metrics import Floats, Ints, Pairs

# How often each of S subjects is drawn in each of R resamples: (S, R), in the precision that
# holds all sums of copies.
Drawn = npt.NDArray[np.floating[Any]]
STRETCH = 512  # ties at a time: their sums stay in the processor's cache
LEVEL = 32  # ties of a group of a running sum; a divisor of STRETCH


@dataclass(frozen=True)
class Ranking:
    """Predictions of one output from likely to unlikely, as counts of rows by tie and subject.

    Attributes:
        stretches: one after the other, (ties, S) counts of the positives, of the negatives since
            the tie before, and of those negatives that lie within the tie.
        totals: (2, S) positives and negatives of each subject.
    """

    stretches: list[tuple[Any, Any, Any]]
    totals: Any

    def areas(self, drawn: Drawn, balance_point: bool = False) -> dict[str, Floats]:
        """(R,) values by metric; NaN where a resample has one answer only.

        Args:
            balance_point: give `min_se_ppv`, too.
        """
        positives, negatives = (self.totals @ drawn).astype(np.float64)
        precise, lost, balance = np.zeros((3, drawn.shape[1]))
        true_before = false_before = np.zeros(drawn.shape[1], drawn.dtype)
        for hits, misses, tied in self.stretches:
            gained = hits @ drawn
            true, false = _running(gained, true_before), _running(misses @ drawn, false_before)
            true_before, false_before = true[-1], false[-1]
            called = np.maximum(true + false, 1)
            precision = np.divide(true, called, dtype=np.float64)
            precise += np.einsum("gr,gr->r", gained, precision)
            # Half of the negatives in the same tie count as ranked below.
            above = false - (tied @ drawn) / 2 if tied.nnz else false
            lost += np.einsum("gr,gr->r", gained, above, dtype=np.float64)
            if balance_point:
                # The smaller of true / positives and true / called.
                smaller = np.divide(true, np.maximum(called, positives), dtype=np.float64)
                balance = np.maximum(balance, smaller.max(0))
        with np.errstate(divide="ignore", invalid="ignore"):
            values = {
                "average_precision": precise / positives,
                "auroc": 1 - lost / (positives * negatives),
            }
        if balance_point:
            values["min_se_ppv"] = balance
        one_answer = (positives == 0) | (negatives == 0)
        return {name: np.where(one_answer, np.nan, value) for name, value in values.items()}


def _running(values: Drawn, before: Drawn) -> Drawn:
    """(G, R) added up from tie to tie, on top of `before` (R,); the ties lie as `_steps` says.

    First all groups at once, step by step, then from group to group: numpy adds large blocks
    several times faster than it makes running sums along this axis.
    """
    out = values.reshape(LEVEL, -1, values.shape[1]).copy()
    for step, following in pairwise(out):
        following += step
    out += np.cumsum(np.vstack([before, out[-1, :-1]]), axis=0)
    return out.reshape(values.shape)


def _steps(first: int, last: int) -> Ints:
    """Ties of a stretch by step: the first of every group of LEVEL, then the second of each, ..."""
    return np.arange(first, last).reshape(-1, LEVEL).T.ravel()


def rank(pairs: Pairs, people: int) -> Ranking:
    """Sort once; `people` is S."""
    order = np.argsort(-pairs.probability)
    scores, positive = pairs.probability[order], pairs.outcome[order] == 1
    subject = pairs.subjects[order]
    tie = np.cumsum(np.diff(scores, prepend=scores[:1]) != 0)
    holds = np.bincount(tie, positive) > 0  # a positive
    ties = int(holds.sum())
    # A negative counts from the first tie on that is as unlikely as it; the last ones never do.
    row: Ints = (np.cumsum(holds) - holds)[tie]
    missed = ~positive & (row < ties)
    shape = (-(-ties // LEVEL) * LEVEL, people)  # ties without anything change no sum
    hits, misses, tied = (
        _counts(row[of], subject[of], shape) for of in (positive, missed, missed & holds[tie])
    )
    starts = range(0, shape[0], STRETCH)
    spans = [_steps(first, min(first + STRETCH, shape[0])) for first in starts]
    stretches = [(hits[span], misses[span], tied[span]) for span in spans]
    totals = np.stack([np.bincount(subject[of], minlength=people) for of in (positive, ~positive)])
    return Ranking(stretches, sparse.csr_matrix(totals.astype(np.float32)))


def _counts(rows: Ints, columns: Ints, shape: tuple[int, int]) -> Any:
    """Ones at these places, added up; the rows are in order."""
    starts = np.searchsorted(rows, np.arange(shape[0] + 1))
    ones = np.ones(len(rows), np.float32)
    return sparse.csr_matrix((ones, columns, starts), shape=shape)
