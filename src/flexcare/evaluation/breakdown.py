"""One model on one task, taken apart: values with reasons, classes, subgroups, combinations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from flexcare.evaluation.bootstrap import (
    Copies,
    Value,
    mean_of_known,
    nothing,
    resample,
    subject_copies,
    told,
)
from flexcare.evaluation.conformal import TARGET, covered
from flexcare.evaluation.metrics import (
    Answers,
    Floats,
    Undefined,
    calibrated_pairs,
    column,
    defined_outputs,
    measure,
    one_answer,
    rarer,
    refuse_degenerate,
)
from flexcare.evaluation.predictions import Cases, Texts
from flexcare.schema import Kind, TaskInfo

GROUP_RESAMPLES = 200  # of subgroups, combinations and calibration
FEWEST = 20  # samples of a group that gets a number
FEWEST_SUBJECTS = 10  # an hourly task has many samples of one subject
WARN_SUBJECTS = 50  # from which on a group can be called under-served
# Shown beside the primary metric where there is room for two. Groups are compared by it: average
# precision falls with the rarity of the outcome, and would accuse whoever is seldom ill.
SECOND: dict[Kind, str] = {"binary": "auroc", "multilabel": "macro_auroc", "multiclass": "accuracy"}
# The same as it is drawn: with multilabel tasks each label's, so that a group in which a label
# never holds is compared on the others alone.
COMPARED: dict[Kind, str] = {"binary": "auroc", "multilabel": "auroc", "multiclass": "accuracy"}
Row = dict[str, Any]


@dataclass(frozen=True)
class Judged:
    """One model's samples of one task, and its metrics on every resample of the subjects."""

    rows: Cases
    copies: Copies
    drawn: dict[str, Floats]


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


def groups_of(
    judged: Judged, groups: Texts, info: TaskInfo, whole: Floats, thresholds: Floats | None
) -> list[Row]:
    """What is known of each group; small ones have their size only.

    Args:
        groups: (N,) the group of each sample.
        whole: `COMPARED` of all samples, (1,), or (labels,) of a multilabel task.
        thresholds: of the conformal sets; None: there are none.

    Returns:
        By group: samples, subjects, too_few (why it has no numbers), the primary and the second
        metric (`SECOND`), `difference` of the second from that of all, drawn together; with
        thresholds `coverage` and `set_size`.
    """
    every, out = judged.rows.answers, []
    for name in sorted(set(groups)):
        part = every.rows(groups == name)
        row: dict[str, Any] = {"group": name, "samples": len(part.labels)}
        row |= {"subjects": subjects_of(part), "too_few": _too_few(info.kind, part)}
        row |= {"metrics": {}}
        if not row["too_few"]:
            copies = judged.copies[:GROUP_RESAMPLES, np.unique(every.subjects[groups == name])]
            every_drawn = judged.drawn[COMPARED[info.kind]].reshape(len(judged.copies), -1)
            row |= _numbers(part, copies, info, np.vstack([whole, every_drawn[: len(copies)]]))
            row |= {} if thresholds is None else covered(info.kind, part, thresholds, copies)
        out.append(row)
    return out


def _numbers(part: Answers, copies: Copies, info: TaskInfo, whole: Floats) -> dict[str, Any]:
    """Metrics and difference of a group; `whole` (1 + R, labels): of all, then of each resample."""
    # One copy of everybody is the value itself: there are many groups, and this is quicker.
    drawn = resample(info.kind, part, np.vstack([np.ones_like(copies[:1]), copies]))
    names = dict.fromkeys([info.metric, SECOND[info.kind]])
    metrics = {name: told(float(drawn[name][0]), drawn[name][1:]) for name in names}
    reason = _cannot_warn(info.kind, part)
    gap = mean_of_known(drawn[COMPARED[info.kind]].reshape(whole.shape) - whole)
    difference = nothing(reason) if reason else told(float(gap[0]), gap[1:])
    return {"metrics": metrics, "difference": difference}


def _cannot_warn(kind: Kind, part: Answers) -> str:
    """Why a group is too small for its interval to be trusted; "" if it is not."""
    if subjects_of(part) < WARN_SUBJECTS:
        return f"fewer than {WARN_SUBJECTS} subjects"
    if kind != "multiclass" and rarer(calibrated_pairs(kind, part)) < FEWEST_SUBJECTS:
        return f"fewer than {FEWEST_SUBJECTS} subjects with the rarer answer"
    return ""


def under_served(subgroups: dict[str, list[Row]], kind: Kind, coverage: float | None) -> list[Row]:
    """The subgroups that get worse answers, with the number that says so (docs/evaluation.md).

    Args:
        coverage: of all samples.

    Returns:
        key (sex), group (F), number, and its value with the interval: the difference in the second
        metric, whose interval lies below 0; or the coverage, whose interval lies below `TARGET`
        and below that of all.
    """
    promised = TARGET if coverage is None else min(TARGET, coverage)
    rules = [("difference", SECOND[kind], 0.0), ("coverage", "coverage", promised)]
    return [
        {"key": key, "group": row["group"], "number": number, **row[of]}
        for key, rows in subgroups.items()
        for row in rows
        for of, number, limit in rules
        if row["subjects"] >= WARN_SUBJECTS and row.get(of, {}).get("high") is not None
        if row[of]["high"] < limit
    ]


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
