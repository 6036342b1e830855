"""Each question's part of the page: sentences, pictures, measures, labels, groups."""

from typing import Any

from flexcare.evaluation.breakdown import SECOND
from flexcare.evaluation.metrics import METRICS
from flexcare.report import figures, words
from flexcare.report.content import ReportContent, Value
from flexcare.report.scale import Domain, domain, ends, heat, mark, place, shares

Context = dict[str, Any]
ABSENT: Value = {"value": None, "low": None, "high": None}


def judged(content: ReportContent) -> dict[str, dict[str, Any]]:
    """The tasks that some model answered, in the order of the page."""
    found = content.evaluation.get("tasks", {})
    order = [*content.tasks, *(name for name in found if name not in content.tasks)]
    return {name: found[name] for name in order if found.get(name, {}).get("models")}


def questions(content: ReportContent) -> list[Context]:
    """One part of the page for each task."""
    return [_question(content, name, task) for name, task in judged(content).items()]


def _question(content: ReportContent, name: str, task: dict[str, Any]) -> Context:
    models, kind = task["models"], task["kind"]
    first_name, first = next(iter(models.items()))
    sentences = [
        words.kinds_of_sizes(task, first),
        words.result_sentence(task, first_name, first),
        words.calibration_sentence(kind, first_name, first["calibration"]),
        words.calibrated_sentence(first_name, first),
    ]
    return {
        "anchor": name,
        "name": words.spaced(name),
        "question": task["question"],
        "sentences": [sentence for sentence in sentences if sentence],
        "verdicts": words.verdicts(task["differences"]),
        "models": list(models),
        "primary": METRICS[task["metric"]].label,
        "second": METRICS[SECOND[kind]].label,
        "figures": _figures(task),
        "metrics": _metric_rows(models, kind),
        "labels": _labels(task) if kind == "multilabel" else None,
        "confusion": _confusion(task, first),
        "undefined": _undefined(kind, first),
        "groups": _groups(task),
        "under_served": _under_served(first),
        "sets": _sets(first),
    }


_AFTER = "the same, once the probabilities are corrected by the tuning patients' outcomes"
_ROC_NOTE = "How many are found, against false alarms. Grey: a guess."
_PR_NOTE = "How many alarms are true, against how many are found. Grey: a guess."
# What a measure averages over, where that depends on the kind of task.
_OVER = {
    ("brier", "multiclass"): "; summed over classes",
    ("brier", "multilabel"): "; all labels pooled",
    ("calibration_error", "multiclass"): "; of the likeliest class",
    ("calibration_error", "multilabel"): "; all labels pooled",
}


def _figures(task: dict[str, Any]) -> list[Context]:
    """ROC and precision-recall where they exist, and calibration."""
    models, out = task["models"], []
    curves = {name: model["curves"] for name, model in models.items() if model["curves"]}
    if curves:
        prevalence = next(iter(models.values()))["prevalence"]
        drawn = figures.roc({name: given["roc"] for name, given in curves.items()})
        out.append({"title": "ROC curve", "note": _ROC_NOTE, "svg": drawn})
        drawn = figures.precision_recall(
            {name: given["pr"] for name, given in curves.items()}, prevalence
        )
        out.append({"title": "Precision and recall", "note": _PR_NOTE, "svg": drawn})
    groups = {name: model["calibration"] for name, model in models.items() if model["calibration"]}
    if groups:
        note = "Tenths of the predictions; on the grey line what was said is what happened."
        first_name, first = next(iter(models.items()))
        after = (first.get("calibrated") or {}).get("calibration", [])
        note += f" Rings: {first_name} after calibration." if after else ""
        drawn = figures.calibration(groups, after)
        out.append({"title": "Calibration", "note": note, "svg": drawn})
    return out


def _metric_rows(models: dict[str, dict[str, Any]], kind: str) -> list[Context]:
    rows = _rows_of(list(models.values()), kind)
    calibrated = [model.get("calibrated") or {"metrics": {}} for model in models.values()]
    return rows + [
        row | {"label": f"{row['label']} after calibration", "meaning": _AFTER}
        for row in _rows_of(calibrated, kind)
    ]


def _rows_of(models: list[dict[str, Any]], kind: str) -> list[Context]:
    return [
        {
            "label": METRICS[name].label,
            "meaning": METRICS[name].meaning + _OVER.get((name, kind), ""),
            "cells": [_told(model["metrics"].get(name, ABSENT)) for model in models],
        }
        for name in models[0]["metrics"]
    ]


def _told(value: Value) -> Context:
    """A number and its interval, or why there is none."""
    return {
        "text": words.decimal(value["value"]),
        "span": words.span(value) or value.get("reason", ""),
    }


def _labels(task: dict[str, Any]) -> Context:
    """Multilabel: every label with its average precision (first two models) and AUROC."""
    models = list(task["models"].values())[:2]
    tables = [model["classes"] for model in models]
    scale = domain((row["average_precision"] for table in tables for row in table), 0.0)
    rows = [
        {
            "name": row[0]["name"],
            "size": f"{words.count(row[0]['positives'])} of {words.count(row[0]['samples'])}",
            **_told(row[0]["average_precision"]),
            "auroc": words.with_span(row[0]["auroc"]),
            "marks": [mark(one["average_precision"], scale, k) for k, one in enumerate(row)],
        }
        for row in zip(*tables, strict=True)
    ]
    return {"rows": rows, "ends": ends(scale), "models": list(task["models"])[:2]}


def _confusion(task: dict[str, Any], model: dict[str, Any]) -> Context | None:
    """Multiclass: rows of true classes, as shares."""
    if not model["confusion"]:
        return None
    counts = [[float(cell) for cell in row] for row in model["confusion"]]
    names = [
        f"{name} ({words.count(sum(row))})"
        for name, row in zip(task["classes"], counts, strict=True)
    ]
    return heat(names, task["classes"], [shares(row) for row in counts])


def _undefined(kind: str, model: dict[str, Any]) -> str:
    names = model.get("undefined_classes", [])
    if not names:
        return ""
    why = {
        "multilabel": "Without a value, because all their labels are the same",
        "multiclass": "Classes that no sample has",
    }
    return f"{why[kind]}: {words.listed(names[:20])}{' and others' if len(names) > 20 else ''}."


def _groups(task: dict[str, Any]) -> list[Context]:
    """Subgroups, then combinations present: the first model's marks with the second's beside."""
    models = list(task["models"].values())[:2]
    keys = [
        (words.spaced(key), [m["subgroups"].get(key, []) for m in models])
        for key in models[0]["subgroups"]
    ]
    keys.append(("present", [model["combinations"] for model in models]))
    every = [row for _, tables in keys for table in tables for row in table]
    scale = domain(row["metrics"].get(task["metric"], ABSENT) for row in every)
    return [
        {"title": title, "ends": ends(scale), "rows": _group_rows(task, tables, scale)}
        for title, tables in keys
    ]


def _group_rows(
    task: dict[str, Any], tables: list[list[dict[str, Any]]], scale: Domain
) -> list[Context]:
    second = SECOND[task["kind"]]
    others = {row["group"]: row for row in (tables[1] if len(tables) > 1 else [])}
    rows = []
    for row in tables[0]:
        both = [row["metrics"], others.get(row["group"], {}).get("metrics", {})]
        values = [metrics.get(task["metric"], ABSENT) for metrics in both]
        rows.append(
            {
                "group": _group_name(row["group"]),
                "size": words.count(row["samples"]),
                "too_few": row["too_few"],
                **_told(values[0]),
                "second": words.with_span(row["metrics"].get(second, ABSENT)),
                "marks": [mark(value, scale, k) for k, value in enumerate(values)],
            }
        )
    return rows


def _under_served(model: dict[str, Any]) -> list[str]:
    sets = model.get("conformal")
    return [words.under_served(found, sets) for found in model.get("under_served", [])]


def _sets(model: dict[str, Any]) -> Context | None:
    """Conformal sets: of all samples, then of each group that is large enough."""
    given = model.get("conformal")
    if not given:
        return None
    everybody = {"group": "all", "subjects": model["subjects"], **given}
    tables = {"": [everybody], **model["subgroups"], "present": model["combinations"]}
    known = {
        key: [row for row in rows if row.get("coverage", ABSENT)["value"] is not None]
        for key, rows in tables.items()
    }
    every = [row["coverage"] for rows in known.values() for row in rows]
    scale = domain(every, given["target"], 1.0)
    return {
        "sentences": words.sets_sentences(given),
        "target": place(given["target"], scale),
        "ends": ends(scale),
        "groups": [
            {"title": words.spaced(key), "rows": [_set_row(row, scale) for row in rows]}
            for key, rows in known.items()
            if rows
        ],
    }


def _set_row(row: dict[str, Any], scale: Domain) -> Context:
    return {
        "group": _group_name(row["group"]),
        "size": words.count(row["subjects"]),
        "marks": [mark(row["coverage"], scale)],
        **_told(row["coverage"]),
        "answers": words.with_span(row["set_size"]),
    }


def _group_name(name: str) -> str:
    """film+note as people write it; an age band may end in a plus."""
    return name.replace("+", " + ") if "+" in name[:-1] else name
