"""Intervals: subjects are drawn again and again, with all their samples (SPEC 7).

A resample is a whole number of copies per subject, never a copy of rows. Areas under curves come
from `ranking`, every other metric from sums over subjects. The values equal scikit-learn's on rows
that are really duplicated.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from flexcare.evaluation.metrics import (
    BINS,
    Answers,
    Floats,
    Pairs,
    bin_of,
    column,
    defined_outputs,
    pooled,
    squared_errors,
    top_class,
)
from flexcare.evaluation.ranking import Drawn, rank
from flexcare.schema import Kind

Copies = npt.NDArray[np.int16]
Value = dict[str, Any]  # value, low, high, resamples, reason
Resampled = Callable[[Drawn], dict[str, Floats]]  # (S, R) copies -> by metric (R,) or (R, outputs)
Family = Callable[[Answers, int], Resampled]  # takes the number of subjects, too
TOGETHER = 500  # resamples at a time
EXACT = 2**23  # up to here halves are exact in single precision
INTERVAL = (2.5, 97.5)  # percentiles


def subject_copies(subjects: int, resamples: int, generator: np.random.Generator) -> Copies:
    """(resamples, subjects): how often each subject is drawn; every row sums to `subjects`."""
    out = np.empty((resamples, subjects), np.int16)
    for row in range(resamples):
        out[row] = np.bincount(generator.integers(subjects, size=subjects), minlength=subjects)
    return out


def mean_of_known(values: Floats) -> Floats:
    """(R,) mean of each row of (R, K) over those that exist; NaN where none does."""
    found = np.isfinite(values).sum(1)
    return np.where(found > 0, np.nansum(values, axis=1) / np.maximum(found, 1), np.nan)


def _sums(table: Any, drawn: Drawn) -> Floats:
    """(R, width): the rows of a sparse (S, width) table, each times its subject's copies."""
    return np.asarray((table.T @ drawn).T)


def _ranked(answers: Answers, people: int) -> Resampled:
    ranking = rank(column(answers, 0), people)
    return lambda drawn: ranking.areas(drawn, balance_point=True)


def _ranked_labels(answers: Answers, people: int) -> Resampled:
    """Each label by itself (R, outputs), and the mean over those with both answers (R,)."""
    outputs = answers.mask.shape[1]
    rankings = {k: rank(column(answers, k), people) for k in defined_outputs(answers)}

    def values(drawn: Drawn) -> dict[str, Floats]:
        out: dict[str, Floats] = {}
        areas = {k: ranking.areas(drawn) for k, ranking in rankings.items()}
        for name in ("average_precision", "auroc"):
            each = np.full((drawn.shape[1], outputs), np.nan)
            for k, area in areas.items():
                each[:, k] = area[name]
            out[name] = each
            out[f"macro_{name}"] = mean_of_known(each)
        return out

    return values


def _ranked_pooled(answers: Answers, people: int) -> Resampled:
    ranking = rank(pooled(answers), people)

    def values(drawn: Drawn) -> dict[str, Floats]:
        areas = ranking.areas(drawn)
        return {f"micro_{name}": areas[name] for name in ("average_precision", "auroc")}

    return values


def _calibrated(pairs: Pairs, squares: Floats, people: int) -> Resampled:
    """Brier score and calibration error from each subject's rows, squares and bins' excess."""
    subjects, excess = pairs.subjects, pairs.probability - pairs.outcome
    bins = np.bincount(subjects * BINS + bin_of(pairs.probability), excess, people * BINS)
    sizes = [np.bincount(subjects, of, people) for of in (np.ones_like(squares), squares)]
    table = sparse.csr_matrix(np.column_stack([*sizes, bins.reshape(people, BINS)]))

    def values(drawn: Drawn) -> dict[str, Floats]:
        sums = _sums(table, drawn)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.abs(sums[:, 2:]).sum(1) / sums[:, 0]
            return {"brier": sums[:, 1] / sums[:, 0], "calibration_error": error}

    return values


def _calibrated_outputs(answers: Answers, people: int) -> Resampled:
    pairs = pooled(answers)
    return _calibrated(pairs, np.square(pairs.probability - pairs.outcome), people)


def _calibrated_classes(answers: Answers, people: int) -> Resampled:
    return _calibrated(top_class(answers), squared_errors(answers), people)


def _agreement(answers: Answers, people: int) -> Resampled:
    """Kappa from moments: the expected squared distance of independent classes needs only these."""
    true, said = answers.labels[:, 0], answers.probabilities.argmax(1).astype(np.float64)
    distance = said - true
    moments = [np.ones_like(true), true, true**2, said, said**2, distance**2]
    moments += [np.abs(distance), (distance == 0).astype(np.float64)]
    sums = [np.bincount(answers.subjects, moment, people) for moment in moments]
    table = sparse.csr_matrix(np.column_stack(sums))

    def values(drawn: Drawn) -> dict[str, Floats]:
        n, t, tt, s, ss, apart, error, right = _sums(table, drawn).T
        with np.errstate(divide="ignore", invalid="ignore"):
            by_chance = tt + ss - 2 * t * s / n
            # Rounding leaves a crumb where every class, true and said, is the same.
            kappa = np.where(by_chance > 1e-9 * n, 1 - apart / by_chance, np.nan)
            return {"quadratic_kappa": kappa, "accuracy": right / n, "class_error": error / n}

    return values


def _f1(answers: Answers, people: int) -> Resampled:
    """Columns: hits, then true, then said, of each class."""
    classes = answers.probabilities.shape[1]
    true, said = answers.labels[:, 0].astype(np.int64), answers.probabilities.argmax(1)
    hit = true == said
    columns = np.concatenate([true[hit], true + classes, said + 2 * classes])
    subjects = np.concatenate([answers.subjects[hit], answers.subjects, answers.subjects])
    shape = (people, 3 * classes)
    table = sparse.csr_matrix((np.ones(len(columns)), (subjects, columns)), shape=shape)

    def values(drawn: Drawn) -> dict[str, Floats]:
        hits, trues, saids = np.split(_sums(table, drawn), 3, axis=1)
        either = trues + saids
        each = 2 * hits / np.maximum(either, 1)
        seen = (either > 0).sum(1)
        return {"macro_f1": each.sum(1) / np.maximum(seen, 1)}

    return values


# Brier score and calibration error, which a change of the probabilities' scale moves.
CALIBRATION: dict[Kind, Family] = {
    "binary": _calibrated_outputs,
    "multilabel": _calibrated_outputs,
    "multiclass": _calibrated_classes,
}
# Metrics of each kind of task by the work they share. With multilabel tasks, "average_precision"
# and "auroc" are those of each label.
FAMILIES: dict[Kind, tuple[Family, ...]] = {
    "binary": (_ranked, CALIBRATION["binary"]),
    "multilabel": (_ranked_labels, _ranked_pooled, CALIBRATION["multilabel"]),
    "multiclass": (_agreement, _f1, CALIBRATION["multiclass"]),
}


def resample(
    kind: Kind, answers: Answers, copies: Copies, families: Sequence[Family] = ()
) -> dict[str, Floats]:
    """Metrics of a kind on every resample.

    Args:
        copies: (R, S) of `subject_copies`.
        families: which metrics; none: all of `FAMILIES`.

    Returns:
        By metric (R,); by label (R, outputs). NaN where a resample leaves it without a value.
    """
    people = copies.shape[1]
    chosen = [family(answers, people) for family in families or FAMILIES[kind]]
    entries = np.bincount(answers.subjects, answers.mask.sum(1), people)
    precision = np.dtype("f4" if (copies @ entries).max(initial=0) < EXACT else "f8")

    def part(first: int) -> dict[str, Floats]:
        drawn = copies[first : first + TOGETHER].T.astype(precision, order="C")
        return {name: value for values in chosen for name, value in values(drawn).items()}

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        parts = list(threads.map(part, range(0, len(copies), TOGETHER)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def interval(values: Floats) -> dict[str, Any]:
    """95 % percentile interval of (R,) values; none where fewer than half of them exist."""
    known = values[np.isfinite(values)]
    if len(known) * 2 < len(values) or not len(known):
        return {"low": None, "high": None, "resamples": len(known)}
    low, high = np.percentile(known, INTERVAL)
    return {"low": round(float(low), 6), "high": round(float(high), 6), "resamples": len(known)}


def told(
    value: float, drawn: Floats, reason: str = "every sample has and gets the same class"
) -> Value:
    """A value with the interval of its (R,) resampled ones; `reason` where it does not exist."""
    if not np.isfinite(value):
        return nothing(reason)
    return {"value": round(value, 6), **interval(drawn), "reason": ""}


def nothing(reason: str) -> Value:
    """What stands in place of a value that does not exist."""
    return {"value": None, "low": None, "high": None, "resamples": 0, "reason": reason}
