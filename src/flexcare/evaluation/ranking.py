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

from flexcare.evaluation.metrics import Floats, Pairs

# How often each of S subjects is drawn in each of R resamples: (S, R), in the precision that
# holds all sums of copies.
Drawn = npt.NDArray[np.floating[Any]]
STRETCH = 256  # ties at a time: their sums stay in the processor's cache
LEVEL = 16  # ties of a group of a running sum; a divisor of STRETCH


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

    def areas(self, drawn: Drawn) -> dict[str, Floats]:
        """(R,) values by metric; NaN where a resample has one answer only."""
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
            # The smaller of true / positives and true / called.
            smaller = np.divide(true, np.maximum(called, positives), dtype=np.float64)
            balance = np.maximum(balance, smaller.max(0))
        with np.errstate(divide="ignore", invalid="ignore"):
            values = {
                "average_precision": precise / positives,
                "auroc": 1 - lost / (positives * negatives),
                "min_se_ppv": balance,
            }
        one_answer = (positives == 0) | (negatives == 0)
        return {name: np.where(one_answer, np.nan, value) for name, value in values.items()}


def _running(values: Drawn, before: Drawn) -> Drawn:
    """(G, R) added up along the first axis, on top of `before` (R,); G is a multiple of LEVEL.

    First within groups of rows, then from group to group: numpy adds many rows at once several
    times faster than it makes running sums along this axis.
    """
    out = values.reshape(-1, LEVEL, values.shape[1]).copy()
    out[0, 0] += before
    for row in range(1, LEVEL):
        out[:, row] += out[:, row - 1]
    for group, following in pairwise(out):
        following += group[-1]
    return out.reshape(values.shape)


def rank(pairs: Pairs, people: int) -> Ranking:
    """Sort once; `people` is S."""
    order = np.argsort(-pairs.probability, kind="stable")
    scores, positive = pairs.probability[order], pairs.outcome[order] == 1
    tie = np.cumsum(np.diff(scores, prepend=scores[:1]) != 0)
    with_positive, hit = np.unique(tie[positive], return_inverse=True)
    ties, subject = len(with_positive), pairs.subjects[order]
    padded = -(-ties // LEVEL) * LEVEL  # ties without anything change no sum
    # A negative counts from the first tie on that is as unlikely as it; the last ones never do.
    miss = np.searchsorted(with_positive, tie[~positive])
    counted = miss < ties
    within = counted.copy()
    within[counted] = with_positive[miss[counted]] == tie[~positive][counted]
    missed = subject[~positive]
    shape = (padded, people)
    hits = _counts(hit, subject[positive], shape)
    misses = _counts(miss[counted], missed[counted], shape)
    tied = _counts(miss[within], missed[within], shape)
    spans = [slice(first, first + STRETCH) for first in range(0, ties, STRETCH)]
    stretches = [(hits[span], misses[span], tied[span]) for span in spans]
    totals = _counts((~positive).astype(np.int64), subject, (2, people))
    return Ranking(stretches, totals)


def _counts(rows: Any, columns: Any, shape: tuple[int, int]) -> Any:
    return sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)
