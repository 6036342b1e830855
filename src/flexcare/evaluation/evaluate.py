"""How good is it? Every model on every task, with intervals, as plain JSON (SPEC 7 "Reported").

The result names everything it holds and carries no sample and no subject.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from flexcare.errors import UserError, unknown
from flexcare.evaluation.bootstrap import Value, interval, nothing, resample
from flexcare.evaluation.breakdown import (
    CLASSES,
    COMPARED,
    COUNTS,
    FEWEST,
    GROUP_RESAMPLES,
    Judged,
    copies_of,
    groups_of,
    subjects_of,
    under_served,
    value_of,
)
from flexcare.evaluation.calibration import calibrated
from flexcare.evaluation.conformal import describe
from flexcare.evaluation.curves import confusion, curves, reliability
from flexcare.evaluation.metrics import METRICS, Answers, Undefined, measure, metrics_of, reported
from flexcare.evaluation.predictions import Cases, cases
from flexcare.schema import TaskInfo


def evaluate_tables(
    tables: dict[str, pa.Table],
    tasks: dict[str, TaskInfo],
    resamples: int = 1000,
    seed: int = 0,
    tuning: dict[str, pa.Table] | None = None,
) -> dict[str, Any]:
    """Compare models on the samples of their predictions tables.

    Args:
        tables: by model, in the form of `schema.PREDICTIONS`; the first is compared with each
            other one.
        tasks: by name; a task without predictions is left out of that model.
        resamples: of the subjects, for the 95 % intervals.
        seed: of the resamples; the same subjects are drawn for every model.
        tuning: by model, its predictions of the tuning split, where calibration and conformal
            sets are to be fitted on them.

    Returns:
        JSON without NaN. By task: question, kind, metric, classes; `models`: by model samples,
        subjects, positives, `metrics` {value, low, high, resamples, reason}, `classes`,
        `subgroups`, `under_served`, `combinations`, `calibration`, `curves`, `confusion`, and
        `calibrated` and `conformal`, null without tuning predictions; `differences` of the first
        model and each other. A value that does not exist is null with its reason.

    Raises:
        UserError: a primary metric that does not suit its task, or a table that is not one.
    """
    for info in tasks.values():
        if info.metric not in metrics_of(info.kind):
            raise unknown(f"metric of task {info.name}", info.metric, metrics_of(info.kind))
    splits = {s for table in tables.values() for s in table["split"].unique().to_pylist()}
    return {
        "models": list(tables),
        "splits": sorted(splits),
        "interval": "95 % percentile interval, subjects drawn with replacement",
        "resamples": resamples,
        "group_resamples": min(GROUP_RESAMPLES, resamples),
        "fewest_samples": FEWEST,
        "seed": seed,
        "tasks": {
            name: _task(tables, tuning or {}, info, resamples, seed) for name, info in tasks.items()
        },
    }


def _judge(rows: Cases, info: TaskInfo, resamples: int, seed: int) -> Judged:
    copies = copies_of(rows.answers, info, resamples, seed)
    return Judged(rows, copies, resample(info.kind, rows.answers, copies))


def _task(
    tables: dict[str, pa.Table],
    tuning: dict[str, pa.Table],
    info: TaskInfo,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    found = {model: cases(table, info) for model, table in tables.items()}
    judged = {
        model: _judge(rows, info, resamples, seed)
        for model, rows in found.items()
        if len(rows.sample_ids)
    }
    tuned = {m: cases(tuning[m], info).answers if m in tuning else None for m in judged}
    first = next(iter(tables), "")
    others = [model for model in judged if model != first and first in judged]
    return {
        "question": info.question,
        "kind": info.kind,
        "metric": info.metric,
        "classes": list(info.classes),
        "models": {model: _model(one, info, tuned[model]) for model, one in judged.items()},
        "differences": [
            {"model": first, "against": other, "metric": info.metric}
            | _difference(*_paired(judged[first], judged[other], info, resamples, seed), info)
            for other in others
        ],
    }


def _model(judged: Judged, info: TaskInfo, tuning: Answers | None) -> dict[str, Any]:
    rows, drawn, copies = judged.rows, judged.drawn, judged.copies
    answers = rows.answers
    values = {n: value_of(n, info.kind, answers, drawn[n]) for n in reported(info)}
    better = sets = thresholds = None
    if tuning is not None:
        better = calibrated(info, tuning, answers, copies)
        sets, thresholds = describe(info, tuning, answers, copies[:GROUP_RESAMPLES])
    classes = CLASSES[info.kind](answers, info, drawn)
    one = COMPARED[info.kind]
    compared = [row[one] for row in classes] if info.kind == "multilabel" else [values[one]]
    whole = np.array([value["value"] for value in compared], np.float64)
    subgroups = {
        key: groups_of(judged, groups, info, whole, thresholds)
        for key, groups in sorted(rows.subgroups.items())
    }
    return {
        "samples": len(rows.sample_ids),
        "subjects": subjects_of(answers),
        "metrics": values,
        **COUNTS[info.kind](answers, info),
        "classes": classes,
        "subgroups": subgroups,
        "under_served": under_served(
            subgroups, info.kind, sets["coverage"]["value"] if sets else None
        ),
        "combinations": groups_of(judged, rows.modalities, info, whole, thresholds),
        "calibration": reliability(info.kind, answers, copies[:GROUP_RESAMPLES]),
        "calibrated": better,
        "conformal": sets,
        "curves": curves(info.kind, answers),
        "confusion": confusion(info.kind, answers),
    }


def _paired(
    first: Judged, other: Judged, info: TaskInfo, resamples: int, seed: int
) -> tuple[Judged, Judged]:
    """Both on the samples that both answered; nothing is drawn again where these are all."""
    if not np.array_equal(first.rows.sample_ids, other.rows.sample_ids):
        _, a, b = np.intersect1d(first.rows.sample_ids, other.rows.sample_ids, return_indices=True)
        first = _judge(first.rows.rows(a), info, resamples, seed)
        other = _judge(other.rows.rows(b), info, resamples, seed)
    one, two = first.rows.answers, other.rows.answers
    if not np.array_equal(one.labels, two.labels) or not np.array_equal(one.mask, two.mask):
        raise UserError(
            f"two models of task {info.name} were given different labels",
            found="the same sample with two answers",
            expected="predictions on one store",
            do="Predict again with both models on the same store.",
        )
    return first, other


def _difference(first: Judged, other: Judged, info: TaskInfo) -> dict[str, Any]:
    """Primary metric of the first minus the other's."""
    one, two = first.rows.answers, other.rows.answers
    result = {"samples": len(first.rows.sample_ids)}
    try:
        gap = measure(info.metric, info.kind, one) - measure(info.metric, info.kind, two)
    except Undefined as reason:
        return result | nothing(str(reason)) | {"reading": "unknown"}
    span = interval(first.drawn[info.metric] - other.drawn[info.metric])
    value = {"value": round(gap, 6) if np.isfinite(gap) else None, **span, "reason": ""}
    return result | value | {"reading": _reading(span, METRICS[info.metric].higher_is_better)}


def _reading(span: Value, higher_is_better: bool) -> str:
    """better or worse where the whole interval says so."""
    if span["low"] is None:
        return "unknown"
    if span["low"] <= 0 <= span["high"]:
        return "unclear"
    return "better" if (span["low"] > 0) == higher_is_better else "worse"
