"""One model on one task, taken apart: values with reasons, classes, subgroups, combinations."""

from collections.abc import Callable
from typing import Any

import numpy as np

from flexcare.evaluation.bootstrap import Copies, interval, resample, subject_copies
from flexcare.evaluation.metrics import (
    Answers,
    Floats,
    Undefined,
    column,
    defined_outputs,
    measure,
    one_answer,
    refuse_degenerate,
)
from flexcare.evaluation.predictions import Cases
from flexcare.schema import Kind, TaskInfo

GROUP_RESAMPLES = 200  # of subgroups, combinations and calibration
FEWEST = 20  # samples of a group that gets a number
FEWEST_SUBJECTS = 10  # an hourly task has many samples of one subject
# Shown beside the primary metric where there is room for two.
SECOND: dict[Kind, str] = {"binary": "auroc", "multilabel": "macro_auroc", "multiclass": "accuracy"}
Value = dict[str, Any]
Row = dict[str, Any]


def copies_of(answers: Answers, info: TaskInfo, resamples: int, seed: int) -> Copies:
    """The same for every model that answers for the same subjects."""
    generator = np.random.default_rng([seed, *info.name.encode()])
    return subject_copies(subjects_of(answers), resamples, generator)


def subjects_of(answers: Answers) -> int:
    return int(answers.subjects.max()) + 1 if len(answers.subjects) else 0


def value_of(name: str, kind: Kind, answers: Answers, drawn: Floats) -> Value:
    """One metric with its interval, or the reason why it has none."""
    try:
        value = measure(name, kind, answers)
    except Undefined as reason:
        return nothing(str(reason))
    return told(value, drawn)


def told(value: float, drawn: Floats) -> Value:
    """A value with the interval of its (R,) resampled ones."""
    if not np.isfinite(value):
        return nothing("every sample has and gets the same class")
    return {"value": round(value, 6), **interval(drawn), "reason": ""}


def nothing(reason: str) -> Value:
    return {"value": None, "low": None, "high": None, "resamples": 0, "reason": reason}


def groups_of(rows: Cases, groups: Any, info: TaskInfo, resamples: int, seed: int) -> list[Row]:
    """The primary metric and a second one in each group; small ones have their size only."""
    out = []
    for name in sorted(set(groups)):
        part = rows.rows(groups == name).answers
        row: dict[str, Any] = {"group": name, "samples": len(part.labels)}
        row |= {"subjects": subjects_of(part), "too_few": _too_few(info.kind, part)}
        row["metrics"] = {} if row["too_few"] else _two(part, info, resamples, seed)
        out.append(row)
    return out


def _two(answers: Answers, info: TaskInfo, resamples: int, seed: int) -> dict[str, Value]:
    copies = copies_of(answers, info, min(GROUP_RESAMPLES, resamples), seed)
    # One copy of everybody is the value itself: there are many groups, and this is quicker.
    drawn = resample(info.kind, answers, np.vstack([np.ones_like(copies[:1]), copies]))
    names = dict.fromkeys([info.metric, SECOND[info.kind]])
    return {name: told(float(drawn[name][0]), drawn[name][1:]) for name in names}


def _too_few(kind: Kind, answers: Answers) -> str:
    if len(answers.labels) < FEWEST:
        return f"fewer than {FEWEST} samples"
    if subjects_of(answers) < FEWEST_SUBJECTS:
        return f"fewer than {FEWEST_SUBJECTS} subjects"
    try:
        refuse_degenerate(kind, answers)
    except Undefined as reason:
        return str(reason)
    return ""


def _share(answers: Answers, output: int) -> dict[str, Any]:
    outcome = column(answers, output).outcome
    share = round(float(outcome.mean()), 6) if len(outcome) else None
    return {"samples": len(outcome), "positives": int(outcome.sum()), "prevalence": share}


def _binary_counts(answers: Answers, info: TaskInfo) -> dict[str, Any]:
    counts = _share(answers, 0)
    return {"positives": counts["positives"], "prevalence": counts["prevalence"]}


def _label_counts(answers: Answers, info: TaskInfo) -> dict[str, Any]:
    """Labels with one answer only have no area under a curve: listed, never counted as 0.5."""
    known = set(defined_outputs(answers))
    missing = [name for k, name in enumerate(info.classes) if k not in known]
    shares = [_share(answers, k)["prevalence"] for k in known]
    mean = round(float(np.mean(shares)), 6) if shares else None
    return {"undefined_classes": missing, "prevalence": mean}


def _class_counts(answers: Answers, info: TaskInfo) -> dict[str, Any]:
    seen = {int(k) for k in np.unique(answers.labels)}
    largest = np.bincount(answers.labels[:, 0].astype(np.int64)).max() / len(answers.labels)
    missing = [name for k, name in enumerate(info.classes) if k not in seen]
    return {"undefined_classes": missing, "largest_class": round(float(largest), 6)}


def _label_table(answers: Answers, info: TaskInfo, drawn: dict[str, Floats]) -> list[Row]:
    """By label: how often, and both areas with their intervals."""
    out = []
    for k, name in enumerate(info.classes):
        pairs, known = column(answers, k), answers.mask[:, k]
        one = Answers(
            answers.labels[known, k : k + 1],
            answers.mask[known, k : k + 1],
            answers.probabilities[known, k : k + 1],
            pairs.subjects,
        )
        row: dict[str, Any] = {"name": name} | _share(answers, k)
        for metric in ("average_precision", "auroc"):
            value = value_of(metric, "binary", one, drawn[metric][:, k])
            row[metric] = value if pairs.both else nothing(one_answer(pairs.outcome))
        out.append(row)
    return out


def _class_table(answers: Answers, info: TaskInfo, drawn: dict[str, Floats]) -> list[Row]:
    """By class: how many there are, were predicted, and were predicted rightly."""
    true, said = answers.labels[:, 0].astype(np.int64), answers.probabilities.argmax(1)
    counts = [np.bincount(of, minlength=info.outputs) for of in (true, said, true[true == said])]
    return [
        {"name": name, "samples": int(t), "predicted": int(s), "right": int(r)}
        for name, t, s, r in zip(info.classes, *counts, strict=True)
    ]


def _no_table(answers: Answers, info: TaskInfo, drawn: dict[str, Floats]) -> list[Row]:
    return []


COUNTS: dict[Kind, Callable[[Answers, TaskInfo], Row]] = {
    "binary": _binary_counts,
    "multilabel": _label_counts,
    "multiclass": _class_counts,
}
CLASSES: dict[Kind, Callable[[Answers, TaskInfo, dict[str, Floats]], list[Row]]] = {
    "binary": _no_table,
    "multilabel": _label_table,
    "multiclass": _class_table,
}
