"""Intervals: subjects are drawn again and again, with all their samples (SPEC 7).

A resample is a whole number of copies per subject, never a copy of rows. Predictions are sorted
once; every area under a curve is then a running sum of copies, and every other metric follows from
sums over subjects. The values equal scikit-learn's on rows that are really duplicated.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from flexcare.evaluation.metrics import (
    BINS,
    Answers,
    Floats,
    Ints,
    Pairs,
    bin_of,
    column,
    defined_outputs,
    pooled,
    squared_errors,
    top_class,
)
from flexcare.schema import Kind

Copies = npt.NDArray[np.int16]
Resampled = Callable[[Copies], dict[str, Floats]]  # (R, S) copies -> by metric (R,) or (R, outputs)
CELLS = 100_000  # samples x resamples at a time: stays in the processor's cache
TOGETHER = 100  # resamples at a time
INTERVAL = (2.5, 97.5)  # percentiles


def subject_copies(subjects: int, resamples: int, generator: np.random.Generator) -> Copies:
    """(resamples, subjects): how often each subject is drawn; every row sums to `subjects`."""
    out = np.empty((resamples, subjects), np.int16)
    for row in range(resamples):
        out[row] = np.bincount(generator.integers(subjects, size=subjects), minlength=subjects)
    return out


@dataclass(frozen=True)
class Ranking:
    """Predictions of one output sorted from likely to unlikely, ties kept together.

    Attributes:
        subjects: (N,) of the sorted rows.
        hits: (P,) subjects of the positive rows, in that order.
        starts, ends: (G,) first row, and the row after the last, of each tie with a positive.
        hit_ends: (G,) positives up to the end of each such tie.
    """

    subjects: Ints
    hits: Ints
    starts: Ints
    ends: Ints
    hit_ends: Ints

    def areas(self, copies: Copies) -> dict[str, Floats]:
        """(R,) values by metric; NaN where a resample has one answer only."""
        parts = []
        step = max(1, CELLS // max(1, len(self.subjects)))
        for start in range(0, len(copies), step):
            parts.append(self._areas(copies[start : start + step]))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _areas(self, copies: Copies) -> dict[str, Floats]:
        if not len(self.starts) or len(self.hits) == len(self.subjects):
            nothing = np.full(len(copies), np.nan)
            return {"average_precision": nothing, "auroc": nothing, "min_se_ppv": nothing}
        running = _running(copies, self.subjects)
        true = _running(copies, self.hits)[:, self.hit_ends]
        called, called_before = running[:, self.ends], running[:, self.starts]
        gained = np.diff(true, axis=1, prepend=0)
        positives = true[:, -1]
        negatives = running[:, -1] - positives
        false = called - true
        false_before = called_before - (true - gained)
        precision = true / np.maximum(called, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            ap = (gained * precision).sum(1) / positives
            # Half of the negatives in the same tie count as ranked below.
            below = negatives[:, None] - (false + false_before) / 2
            auroc = (gained * below).sum(1) / (positives * negatives)
            balance = np.minimum(true / positives[:, None], precision).max(1)
        one_answer = (positives == 0) | (negatives == 0)
        values = {"average_precision": ap, "auroc": auroc, "min_se_ppv": balance}
        return {name: np.where(one_answer, np.nan, value) for name, value in values.items()}


def _running(copies: Copies, subjects: Ints) -> Ints:
    """(R, N + 1): copies of the first 0, 1, ... N rows; whole numbers add up six times faster."""
    out = np.zeros((len(copies), len(subjects) + 1), np.int64)
    np.cumsum(np.take(copies, subjects, axis=1), axis=1, out=out[:, 1:])
    return out


def rank(pairs: Pairs) -> Ranking:
    """Sort once."""
    order = np.argsort(-pairs.probability, kind="stable")
    scores, positive = pairs.probability[order], pairs.outcome[order] == 1
    edges = np.flatnonzero(np.diff(scores)) + 1
    starts = np.concatenate([[0], edges]).astype(np.int64)
    ends = np.concatenate([edges, [len(scores)]]).astype(np.int64)
    hits_so_far = np.concatenate([[0], np.cumsum(positive)])
    useful = hits_so_far[ends] > hits_so_far[starts]
    subjects = pairs.subjects[order]
    return Ranking(
        subjects, subjects[positive], starts[useful], ends[useful], hits_so_far[ends[useful]]
    )


def _sums(copies: Copies, subjects: Ints, columns: Ints, values: Floats, width: int) -> Floats:
    """(R, width): sums of `values` by column, every value times its subject's copies."""
    shape = (copies.shape[1], width)
    per_subject = sparse.csr_matrix((values, (subjects, columns)), shape=shape)
    return np.asarray((per_subject.T @ copies.T.astype(np.float64)).T)


def _ranked(answers: Answers) -> Resampled:
    return rank(column(answers, 0)).areas


def _ranked_labels(answers: Answers) -> Resampled:
    """Each label by itself (R, outputs), and the mean over those with both answers (R,)."""
    outputs = answers.mask.shape[1]
    rankings = {k: rank(column(answers, k)) for k in defined_outputs(answers)}

    def values(copies: Copies) -> dict[str, Floats]:
        out: dict[str, Floats] = {}
        areas = {k: ranking.areas(copies) for k, ranking in rankings.items()}
        for name in ("average_precision", "auroc"):
            each = np.full((len(copies), outputs), np.nan)
            for k, area in areas.items():
                each[:, k] = area[name]
            out[name] = each
            found = np.isfinite(each).sum(1)
            total = np.nansum(each, axis=1)
            out[f"macro_{name}"] = np.where(found > 0, total / np.maximum(found, 1), np.nan)
        return out

    return values


def _ranked_pooled(answers: Answers) -> Resampled:
    ranking = rank(pooled(answers))

    def values(copies: Copies) -> dict[str, Floats]:
        areas = ranking.areas(copies)
        return {f"micro_{name}": areas[name] for name in ("average_precision", "auroc")}

    return values


def _calibrated(pairs: Pairs, squares: Floats) -> Resampled:
    """Brier score and calibration error; column 0 counts, 1 squares, then the bins' excess."""
    n = len(pairs.outcome)
    columns = np.concatenate([np.zeros(n), np.ones(n), bin_of(pairs.probability) + 2])
    numbers = np.concatenate([np.ones(n), squares, pairs.probability - pairs.outcome])
    subjects = np.tile(pairs.subjects, 3)

    def values(copies: Copies) -> dict[str, Floats]:
        sums = _sums(copies, subjects, columns.astype(np.int64), numbers, BINS + 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.abs(sums[:, 2:]).sum(1) / sums[:, 0]
            return {"brier": sums[:, 1] / sums[:, 0], "calibration_error": error}

    return values


def _calibrated_outputs(answers: Answers) -> Resampled:
    pairs = pooled(answers)
    return _calibrated(pairs, np.square(pairs.probability - pairs.outcome))


def _calibrated_classes(answers: Answers) -> Resampled:
    return _calibrated(top_class(answers), squared_errors(answers))


def _agreement(answers: Answers) -> Resampled:
    """Kappa from moments: the expected squared distance of independent classes needs only these."""
    true, said = answers.labels[:, 0], answers.probabilities.argmax(1).astype(np.float64)
    distance = said - true
    moments = [np.ones_like(true), true, true**2, said, said**2, distance**2]
    moments += [np.abs(distance), (distance == 0).astype(np.float64)]
    columns = np.repeat(np.arange(len(moments)), len(true))
    subjects = np.tile(answers.subjects, len(moments))

    def values(copies: Copies) -> dict[str, Floats]:
        sums = _sums(copies, subjects, columns, np.concatenate(moments), len(moments))
        n, t, tt, s, ss, apart, error, right = sums.T
        with np.errstate(divide="ignore", invalid="ignore"):
            by_chance = tt + ss - 2 * t * s / n
            # Rounding leaves a crumb where every class, true and said, is the same.
            kappa = np.where(by_chance > 1e-9 * n, 1 - apart / by_chance, np.nan)
            return {"quadratic_kappa": kappa, "accuracy": right / n, "class_error": error / n}

    return values


def _f1(answers: Answers) -> Resampled:
    """Columns: hits, then true, then said, of each class."""
    classes = answers.probabilities.shape[1]
    true, said = answers.labels[:, 0].astype(np.int64), answers.probabilities.argmax(1)
    hit = true == said
    columns = np.concatenate([true[hit], true + classes, said + 2 * classes])
    subjects = np.concatenate([answers.subjects[hit], answers.subjects, answers.subjects])

    def values(copies: Copies) -> dict[str, Floats]:
        sums = _sums(copies, subjects, columns, np.ones(len(columns)), 3 * classes)
        hits, trues, saids = np.split(sums, 3, axis=1)
        either = trues + saids
        each = 2 * hits / np.maximum(either, 1)
        seen = (either > 0).sum(1)
        return {"macro_f1": each.sum(1) / np.maximum(seen, 1)}

    return values


# Metrics of each kind of task by the work they share. With multilabel tasks, "average_precision"
# and "auroc" are those of each label.
FAMILIES: dict[Kind, tuple[Callable[[Answers], Resampled], ...]] = {
    "binary": (_ranked, _calibrated_outputs),
    "multilabel": (_ranked_labels, _ranked_pooled, _calibrated_outputs),
    "multiclass": (_agreement, _f1, _calibrated_classes),
}


def resample(kind: Kind, answers: Answers, copies: Copies) -> dict[str, Floats]:
    """Every metric of a kind on every resample.

    Args:
        copies: (R, S) of `subject_copies`.

    Returns:
        By metric (R,); by label (R, outputs). NaN where a resample leaves it without a value.
    """
    families = [family(answers) for family in FAMILIES[kind]]
    parts: list[dict[str, Floats]] = []
    for start in range(0, len(copies), TOGETHER):
        part: dict[str, Floats] = {}
        for values in families:
            part.update(values(copies[start : start + TOGETHER]))
        parts.append(part)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def interval(values: Floats) -> dict[str, Any]:
    """95 % percentile interval of (R,) values; none where fewer than half of them exist."""
    known = values[np.isfinite(values)]
    if len(known) * 2 < len(values) or not len(known):
        return {"low": None, "high": None, "resamples": len(known)}
    low, high = np.percentile(known, INTERVAL)
    return {"low": round(float(low), 6), "high": round(float(high), 6), "resamples": len(known)}
