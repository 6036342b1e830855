"""Sets of answers that hold the true one as often as promised (split conformal prediction).

An answer's score is 1 - its probability; a set holds the answers whose score is at most a threshold
(LAC: Sadinle, Lei, Wasserman 2019, doi:10.1080/01621459.2017.1395341), a quantile of the scores of
true answers in the tuning split. A yes-or-no output is a question of its own with the answers no
and yes; the classes of a multiclass task are the answers to one question.

Subjects are exchangeable, samples of one subject are not. So every subject weighs the same in the
quantile, shared among its samples, and the mass of one more subject lies at infinity (Lee, Barber,
Willett 2023, arXiv:2306.06342). Then a random sample of a new subject is covered at least as often
as promised, and coverage is measured in the same way: each subject counts once.
"""

from typing import Any

import numpy as np
from scipy import sparse

from flexcare.evaluation.bootstrap import Copies, Value, nothing, told
from flexcare.evaluation.metrics import Answers, Floats, Ints
from flexcare.schema import Kind, TaskInfo

TARGET = 0.9
NO, YES = 0, 1


def threshold(scores: Floats, subjects: Ints, target: float = TARGET) -> float:
    """The score up to which answers belong to the set; infinity where subjects are too few.

    Args:
        scores: (n,) of true answers; subjects: (n,) whose they are.
    """
    _, number, count = np.unique(subjects, return_inverse=True, return_counts=True)
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(1 / (count[number] * (len(count) + 1))[order]) >= target - 1e-9
    return float(scores[order][reached.argmax()]) if reached.any() else np.inf


def scored(kind: Kind, answers: Answers) -> tuple[Floats, Ints]:
    """(N, questions, answers) the scores, and (N, questions) the number of the true answer."""
    p = answers.probabilities
    scores = 1 - p[:, None] if kind == "multiclass" else np.stack([p, 1 - p], axis=2)
    return scores, answers.labels.astype(np.int64)


def fit(kind: Kind, tuning: Answers, each: bool = False) -> Floats:
    """(questions, answers) thresholds; infinity where subjects are too few.

    Args:
        each: a threshold for each answer, from the samples of which it is true. Then those with
            the outcome are covered as often as promised, however rare they are.
    """
    scores, true = scored(kind, tuning)
    out = np.empty(scores.shape[1:])
    found = np.take_along_axis(scores, true[..., None], axis=2)[..., 0]
    for question, answer in np.ndindex(out.shape) if each else ((q, ...) for q in range(len(out))):
        chosen = tuning.mask[:, question]
        if each:
            chosen = chosen & (true[:, question] == answer)
        out[question, answer] = threshold(found[chosen, question], tuning.subjects[chosen])
    return out


def coverage(
    kind: Kind, answers: Answers, thresholds: Floats, copies: Copies, only: int | None = None
) -> tuple[Floats, Floats]:
    """How often the set holds the true answer, and how many answers it holds.

    Both are means over each subject's samples, then over subjects, then over the questions that
    have thresholds.

    Args:
        copies: (R, S) how often each subject is drawn.
        only: of the samples with this answer.

    Returns:
        two of (1 + R,): everybody once, then each resample; NaN where there is nobody.
    """
    scores, true = scored(kind, answers)
    held = scores <= thresholds
    right = np.take_along_axis(held, true[..., None], axis=2)[..., 0]
    asked = answers.mask & np.isfinite(thresholds).all(1)
    if only is not None:
        asked = asked & (true == only)
    rows, people = np.arange(len(asked)), copies.shape[1]
    whose = sparse.csr_matrix((np.ones(len(rows)), (answers.subjects, rows)), (people, len(rows)))
    count = whose @ asked.astype(np.float64)
    drawn = np.vstack([np.ones_like(copies[:1]), copies]).astype(np.float64)
    subjects = drawn @ (count > 0)
    questions = (subjects > 0).sum(1)

    def mean(values: Any) -> Floats:
        each = (whose @ np.where(asked, values, 0)) / np.maximum(count, 1)
        total = (drawn @ each / np.maximum(subjects, 1)).sum(1)
        return np.where(questions > 0, total / np.maximum(questions, 1), np.nan)

    return mean(right), mean(held.sum(2))


def covered(
    kind: Kind, answers: Answers, thresholds: Floats, copies: Copies, only: int | None = None
) -> dict[str, Value]:
    """`coverage` and `set_size` with their intervals."""
    found = coverage(kind, answers, thresholds, copies, only)
    values = [told(float(one[0]), one[1:], "no such sample") for one in found]
    return dict(zip(("coverage", "set_size"), values, strict=True))


def describe(
    info: TaskInfo, tuning: Answers, answers: Answers, copies: Copies
) -> tuple[dict[str, Any], Floats | None]:
    """The sets of one task as JSON, and their thresholds; None where there are none.

    Returns:
        target, tuning_subjects, `left_out` labels without a threshold, coverage,
        set_size; of yes-or-no outputs `outcomes`, the coverage of samples with and without the
        outcome, and `each`, the same with a threshold for each answer, and its set_size.
    """
    kind, thresholds = info.kind, fit(info.kind, tuning)
    usable = np.isfinite(thresholds).all(1)
    people = len(np.unique(tuning.subjects))
    out: dict[str, Any] = {"target": TARGET, "tuning_subjects": people, "left_out": []}
    out |= {"outcomes": {}, "each": {}}
    if not usable.any():
        none = nothing(f"{people} tuning subjects are too few to promise {TARGET:.0%}")
        return out | {"coverage": none, "set_size": none}, None
    out |= covered(kind, answers, thresholds, copies)
    if kind != "multiclass":
        out["left_out"] = [info.classes[k] for k in np.flatnonzero(~usable)]
        out["outcomes"] = _outcomes(kind, answers, thresholds, copies)
        each = fit(kind, tuning, each=True)
        if np.isfinite(each).all(1).any():
            size = covered(kind, answers, each, copies)["set_size"]
            out["each"] = _outcomes(kind, answers, each, copies) | {"set_size": size}
    return out, thresholds


def _outcomes(kind: Kind, answers: Answers, thresholds: Floats, copies: Copies) -> dict[str, Value]:
    return {
        name: covered(kind, answers, thresholds, copies, answer)["coverage"]
        for name, answer in (("with", YES), ("without", NO))
    }
