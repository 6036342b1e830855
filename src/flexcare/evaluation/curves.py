"""What the report draws: curves, calibration groups, the confusion of classes, as plain lists."""

from itertools import pairwise
from typing import Any

import numpy as np
from sklearn import metrics as sk

from flexcare.evaluation.bootstrap import Copies
from flexcare.evaluation.metrics import Answers, Floats, Pairs, calibrated_pairs, column
from flexcare.schema import Kind

POINTS = 200  # of a curve, at most
GROUPS = 10  # of the calibration picture
CONFUSION_CLASSES = 20  # at most; beyond, a picture shows nothing


def curves(kind: Kind, answers: Answers) -> dict[str, list[list[float]]]:
    """Points of the ROC (1 - specificity, sensitivity) and precision (recall, precision) curves.

    Binary tasks with both answers only; other kinds have a table of classes instead.
    """
    if kind != "binary" or not (pairs := column(answers, 0)).both:
        return {}
    false, true, _ = sk.roc_curve(pairs.outcome, pairs.probability)
    precision, recall, _ = sk.precision_recall_curve(pairs.outcome, pairs.probability)
    precision[-1] = precision[-2]  # scikit-learn ends at a precision of 1 that nobody reached
    return {"roc": _thin(false, true), "pr": _thin(recall[::-1], precision[::-1])}


def _thin(x: Floats, y: Floats) -> list[list[float]]:
    """At most POINTS points at equal steps along the curve, the ends kept."""
    points = np.column_stack([x, y])
    if len(points) > POINTS:
        length = np.concatenate([[0], np.abs(np.diff(points, axis=0)).sum(1).cumsum()])
        steps = np.linspace(0, length[-1], POINTS)
        points = points[np.unique(np.searchsorted(length, steps).clip(max=len(points) - 1))]
    return [[round(float(a), 5), round(float(b), 5)] for a, b in points]


def reliability(kind: Kind, answers: Answers, copies: Copies) -> list[dict[str, Any]]:
    """Groups of about equal size by predicted probability; equal predictions stay together.

    Each with n, mean prediction, observed frequency and its 95 % interval over `copies` (R, S).
    """
    pairs = calibrated_pairs(kind, answers)
    order = np.argsort(pairs.probability, kind="stable")
    scores = pairs.probability[order]
    cuts = np.searchsorted(scores, scores[np.arange(1, GROUPS) * len(scores) // GROUPS])
    edges = np.unique(np.concatenate([[0], cuts, [len(scores)]]))
    return [_reliability_group(pairs, order[low:high], copies) for low, high in pairwise(edges)]


def _reliability_group(pairs: Pairs, rows: Any, copies: Copies) -> dict[str, Any]:
    subjects, outcome = pairs.subjects[rows], pairs.outcome[rows]
    width = copies.shape[1]
    count = np.bincount(subjects, minlength=width).astype(float)
    events = np.bincount(subjects, outcome, width)
    with np.errstate(invalid="ignore"):
        observed = (copies @ events) / (copies @ count)
    low, high = np.nanpercentile(observed, (2.5, 97.5)) if np.isfinite(observed).any() else (0, 1)
    return {
        "samples": len(rows),
        "predicted": round(float(pairs.probability[rows].mean()), 5),
        "observed": round(float(outcome.mean()), 5),
        "low": round(float(low), 5),
        "high": round(float(high), 5),
    }


def confusion(kind: Kind, answers: Answers) -> list[list[int]] | None:
    """Samples by true class (row) and predicted class (column); None where it does not suit."""
    classes = answers.probabilities.shape[1]
    if kind != "multiclass" or classes > CONFUSION_CLASSES:
        return None
    true, said = answers.labels[:, 0].astype(np.int64), answers.probabilities.argmax(1)
    flat = np.bincount(true * classes + said, minlength=classes * classes)
    return [[int(n) for n in row] for row in flat.reshape(classes, classes)]
