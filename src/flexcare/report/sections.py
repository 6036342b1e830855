"""What each section of the page shows, as texts and marks that the template only lays out."""

from typing import Any

from flexcare.evaluation.metrics import METRICS
from flexcare.report import figures, words
from flexcare.report.content import ALONE, TOGETHER, ReportContent, Value
from flexcare.report.questions import ABSENT, Context, judged
from flexcare.report.scale import domain, ends, heat, mark, place, shares


def opening(content: ReportContent) -> Context | None:
    """One question learned with others, alone, and from single modalities."""
    given = content.companions
    if given is None or not given.runs:
        return None
    guess = words.CHANCE.get(given.metric)
    values = [run.held_out.get(given.task, ABSENT) for run in given.runs]
    scale = domain(values, guess, 1.0)
    tints = {TOGETHER: figures.COLOURS[0], ALONE: figures.COLOURS[1]}
    lines = [(r.role, r.curve, tints[r.role]) for r in given.runs if r.role in tints and r.curve]
    label, drawn = METRICS[given.metric].label, given.curve_metric or given.metric
    return {
        "question": given.question,
        "sentence": words.companions_sentence(given),
        "metric": label,
        "meaning": METRICS[given.metric].meaning,
        "curves": figures.companions(lines, METRICS[drawn].label, words.CHANCE.get(drawn))
        if lines
        else "",
        "ends": ends(scale),
        "guess": place(guess, scale),
        "rows": [
            {
                "role": run.role,
                "text": words.decimal(value["value"]),
                "span": words.span(value),
                "mark": mark(value, scale, {TOGETHER: 0, ALONE: 1}.get(run.role, 2)),
            }
            for run, value in zip(given.runs, values, strict=True)
        ],
        "others": [
            {
                "task": words.spaced(task),
                "texts": [f"{run.role}: {words.with_span(value)}" for run, value in rows],
            }
            for task, rows in words.other_questions(given)
        ],
    }


_COUNTED = {"binary": "", "multilabel": "mean of labels", "multiclass": "largest class"}


def glance(content: ReportContent) -> list[Context]:
    """One row a question: every model on the primary metric, and who is better in words."""
    models = content.evaluation.get("models", [])
    rows = []
    for name, task in judged(content).items():
        metric, first = task["metric"], next(iter(task["models"].values()))
        values = [_metric(task["models"].get(m), metric) for m in models]
        guess = words.chance(metric, first)
        scale = domain(values, 0.0, 1.0)
        rows.append(
            {
                "anchor": name,
                "question": task["question"],
                "samples": words.count(first["samples"]),
                "how_often": words.percent(first.get("largest_class", first.get("prevalence"))),
                "of": _COUNTED[task["kind"]],
                "metric": METRICS[metric].label,
                "cells": [
                    {"model": m, "text": words.decimal(v["value"]), "span": words.span(v)}
                    for m, v in zip(models, values, strict=True)
                ],
                "marks": [mark(v, scale, k) for k, v in enumerate(values)],
                "guess": place(guess, scale),
                "verdicts": words.verdicts(task["differences"]),
            }
        )
    return rows


def _metric(model: dict[str, Any] | None, metric: str) -> Value:
    value: Value = (model or {}).get("metrics", {}).get(metric, ABSENT)
    return value


def missing(content: ReportContent) -> Context | None:
    """Share of samples without each modality, and the combinations by task."""
    if not content.missing and not content.combinations:
        return None
    columns = list(dict.fromkeys(c for row in content.combinations.values() for c in row))
    rows = [
        shares([float(row.get(c, 0)) for c in columns]) for row in content.combinations.values()
    ]
    names = [
        f"{words.spaced(task)} ({words.count(sum(row.values()))})"
        for task, row in content.combinations.items()
    ]
    return {
        "modalities": [
            {
                "name": name,
                "splits": [
                    {"name": words.spaced(s), "text": words.percent(v), "width": round(100 * v, 1)}
                    for s, v in splits.items()
                ],
            }
            for name, splits in content.missing.items()
        ],
        "combinations": heat(names, [c.replace("+", " + ") for c in columns], rows)
        if rows
        else None,
    }


def routing(content: ReportContent) -> Context | None:
    """Two tables of shares: task by expert, and combination by expert."""
    given = content.routing
    if given is None or not given.usage:
        return None
    by_task = [shares([sum(row) for row in usage]) for usage in given.usage.values()]
    mixed = [
        [sum(usage[e][c] for usage in given.usage.values()) for e in range(len(given.experts))]
        for c in range(len(given.combinations))
    ]
    return {
        "warnings": given.warnings,
        "tasks": heat([words.spaced(t) for t in given.usage], given.experts, by_task),
        "combinations": heat(given.combinations, given.experts, [shares(row) for row in mixed]),
    }


def flow(content: ReportContent) -> list[Context]:
    """Who was left out, step by step: bars of those who remain."""
    out = []
    for name, steps in content.cohort_flow.items():
        top = max((step.get("remaining") or 0 for step in steps), default=0) or 1
        rows = [
            {
                "step": words.spaced(str(step.get("step", ""))),
                "left_out": words.count(step.get("left_out")) if step.get("left_out") else "",
                "remaining": words.count(step.get("remaining")),
                "unit": step.get("unit", ""),
                "reason": "" if step.get("reason") == step.get("step") else step.get("reason", ""),
                "width": round(100 * (step.get("remaining") or 0) / top, 1),
            }
            for step in steps
        ]
        out.append({"name": words.spaced(name), "rows": rows})
    return out


def learning(content: ReportContent) -> list[Context]:
    """Losses by epoch for every task."""
    tasks: dict[str, list[tuple[float, float | None, float | None]]] = {}
    for row in content.training:
        if "task" in row and row.get("epoch") is not None:
            point = (row["epoch"], row.get("train_loss"), row.get("tuning_loss"))
            tasks.setdefault(row["task"], []).append(point)
    return [
        {"name": words.spaced(task), "svg": figures.learning(points)}
        for task, points in tasks.items()
    ]


def settings(values: dict[str, Any], title: str = "") -> list[Context]:
    """Nested tables as titled lists of (name, text)."""
    plain = [(key, _plain(v)) for key, v in values.items() if not (isinstance(v, dict) and v)]
    out = [{"title": title or "general", "rows": plain}] if plain else []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            out += settings(value, f"{title}.{key}" if title else key)
    return out


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None or value == {} else str(value)
