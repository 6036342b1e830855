"""What was lost when modalities were taken away: a table of sets, and a figure of shares."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from flexcare.evaluation.metrics import METRICS
from flexcare.evaluation.subsets import clear
from flexcare.files import read_json, whole
from flexcare.report import figures, words
from flexcare.report.questions import Context

OTHERS = {"own_metric": "each question's own"}  # measures that no single question has


def read(run: Path, split: str) -> dict[str, Any]:
    """What `flexcare missing` left in a run for a split: subsets and grid; {} if nothing."""
    paths = {part: run / "missing" / f"{part}.json" for part in ("subsets", "grid")}
    if not all(path.is_file() for path in paths.values()):
        return {}
    found = {part: read_json(path, "what `flexcare missing` wrote") for part, path in paths.items()}
    return found if all(one["split"] == split for one in found.values()) else {}


def section(found: dict[str, Any]) -> Context | None:
    """A row a set of modalities, with the measure of each question; and the figure."""
    if not found:
        return None
    own = found["subsets"]["metrics"]
    return {
        "columns": [(words.spaced(task), _label(metric)) for task, metric in own.items()],
        "rows": [
            {
                "subset": row["subset"],
                "cells": [
                    _cell(row["scores"][task][metric], metric) for task, metric in own.items()
                ],
            }
            for row in found["subsets"]["subsets"]
        ],
        "resamples": found["subsets"]["resamples"],
        "severity": found["grid"]["severity"],
        "svg": figure(found["grid"]),
    }


def _cell(value: dict[str, Any], metric: str) -> Context:
    """A measure, and whether it is clearly worse or better than with everything."""
    higher = metric not in METRICS or METRICS[metric].higher_is_better
    rose = (value["difference"]["value"] or 0) > 0
    reading = ("better" if rose == higher else "worse") if clear(value) else ""
    return {"text": words.decimal(value["value"]), "span": words.span(value), "reading": reading}


def figure(grid: dict[str, Any]) -> Markup:
    """Each question's measure while each modality is taken away from more and more patients."""
    own = grid["metrics"]
    panels: dict[str, dict[str, dict[str, list[tuple[float, float]]]]] = {}
    for task, metric in own.items():
        lines = panels.setdefault(words.spaced(task), {})
        for row in grid["grid"]:
            value = row["scores"][task][metric]
            if value["value"] is not None and value["difference"]["value"] is not None:
                start = [(0.0, value["value"] - value["difference"]["value"])]
                points = lines.setdefault(row["modality"], {}).setdefault(row["how"], start)
                points.append((row["rate"], value["value"]))
    labels = {words.spaced(task): _label(metric) for task, metric in own.items()}
    return figures.taken_away(panels, labels)


def write_figure(path: Path, grid: dict[str, Any]) -> Path:
    """Write the figure as a file of its own, whole or not at all."""
    text = figure(grid)
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _label(metric: str) -> str:
    return METRICS[metric].label if metric in METRICS else OTHERS[metric]
