"""The outcome of a protocol: results.json, one object a value, and results.md, one table a task."""

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from flexcare.config import Config
from flexcare.errors import UserError
from flexcare.evaluation.compare import AREAS, MEAN, OWN, UTILITY, Score, Scores
from flexcare.evaluation.metrics import METRICS
from flexcare.files import read_json, whole, write_json
from flexcare.reproduce.growth import draw_growth, growth_curves
from flexcare.reproduce.protocol import Protocol
from flexcare.reproduce.tuning import Tuned, in_words
from flexcare.schema import TaskInfo

TABLE, PAGE = "results.json", "results.md"
PACKAGES = ("flexcare", "torch", "lightgbm", "scikit-learn", "numpy", "duckdb")
HEAD = """# Results

Written by `flexcare reproduce`, from raw data on; a section is made anew by its command. DATA is
the folder that holds the data sets (docs/data.md). Intervals are 95 % percentile intervals:
subjects are drawn with replacement, with all their samples, the same for every model and task.
"""
TURNED = "each with other subjects for tuning"  # where held-out samples are answered
NAMES = {OWN: "each task's own metric", UTILITY: "utility"}


@dataclass(frozen=True)
class Outcome:
    """Everything that is told of a protocol.

    Attributes:
        name: of the protocol; path: of its file, as a reader of the page would give it.
        tuned: where its models' settings come from, beside the file.
        split: which was judged.
        samples: by task, labelled ones; subjects: of all tasks.
        scores: by model; subsets: of the first model, by the modalities it was given.
        thresholds: by model, of the utility.
        minutes: by model, from raw data to its predictions on this machine.
    """

    name: str
    path: str
    protocol: Protocol
    tuned: Tuned
    split: str
    tasks: dict[str, TaskInfo]
    samples: dict[str, int]
    subjects: int
    scores: dict[str, Scores]
    subsets: dict[str, Scores]
    thresholds: dict[str, float]
    minutes: dict[str, float]

    @property
    def command(self) -> str:
        """That repeats it."""
        return f"flexcare reproduce {self.path} --data DATA"

    @property
    def first(self) -> str:
        return self.protocol.first

    def differences(self, model: str) -> Scores:
        """The first model's scores minus those of another one, where both have them."""
        one, two = self.scores.get(self.first, {}), self.scores[model]
        return {key: one[key] - two[key] for key in one if key in two and model != self.first}

    def lines(self) -> list[tuple[str, Scores, list[str]]]:
        """What results.json calls it, everything that has scores, and of which models it is."""
        first = self.first
        others = [name for name in self.scores if name != first]
        return [
            *((name, found, [name]) for name, found in self.scores.items()),
            *((f"{first} minus {n}", self.differences(n), [first, n]) for n in others),
            *((f"{first}, {n}", found, [first]) for n, found in self.subsets.items()),
        ]

    def entries(self) -> list[dict[str, Any]]:
        """What stands in results.json."""
        return [
            {
                "protocol": self.name,
                "task": task,
                "model": line,
                "metric": metric,
                **score.to_dict(),
                "n": self.samples.get(task, self.subjects),
                "command": f"{self.command} --models {','.join(models)}",
                "date": date.today().isoformat(),
                "minutes": round(sum(self.minutes[name] for name in models), 1),
            }
            for line, scores, models in self.lines()
            for (task, metric), score in scores.items()
        ]


def publish(outcome: Outcome, folder: Path) -> Path:
    """Put an outcome in place of the same protocol's earlier one; gives the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    path, page = folder / TABLE, folder / PAGE
    known = read_json(path, "a list of results") if path.exists() else []
    if not isinstance(known, list):
        raise UserError(f"{path} is not a list of results", do="Choose another --results.")
    sections = _sections(page.read_text()) if page.exists() else {}
    sections[outcome.name] = section(outcome)
    entries = outcome.entries()
    if curves := growth_curves(outcome.protocol):
        picture = f"growth-{outcome.name}.png"
        draw_growth(curves, entries, folder / picture)
        sections[outcome.name] += f"\n![Metrics by the share of the training patients]({picture})\n"
    write_json(path, [one for one in known if one["protocol"] != outcome.name] + entries)
    with whole(page) as temporary:
        temporary.write_text("\n".join([HEAD, *(sections[name] for name in sorted(sections))]))
    return page


def _sections(page: str) -> dict[str, str]:
    """The protocols' parts of a page, by name."""
    parts = page.split("\n## ")[1:]
    return {part.partition("\n")[0]: f"## {part}" for part in parts}


def section(outcome: Outcome) -> str:
    """The part of results.md that tells of one protocol."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    tables = [_of_task(outcome, name) for name in outcome.tasks]
    if any((MEAN, OWN) in scores for scores in outcome.scores.values()):
        tables.append(
            _table(outcome, MEAN, f"{MEAN} ({outcome.subjects:,} subjects)", [OWN, AREAS])
        )
    tables += _of_subsets(outcome) if outcome.subsets else []
    head = (
        f"## {outcome.name}\n"
        f"{outcome.protocol.about}\n\n    {outcome.command}\n\n"
        f"{date.today().isoformat()}, on {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {versions}. {_splits(outcome)} "
        f"One row alone: `--models` and the names of its models.{_tuned(outcome)}\n\n"
        f"{_models(outcome)}"
    )
    return "\n".join([head, *tables])


def _splits(outcome: Outcome) -> str:
    data = outcome.protocol.data
    folds = data.preparation.folds
    held = f"{folds} folds of the subjects, pooled" if folds else f"split {outcome.split}"
    repeats = f", {data.repeats} times" if data.repeats > 1 else ""
    return f"Judged on: {held}{repeats}{f' ({outcome.split})' if folds else ''}."


def _tuned(outcome: Outcome) -> str:
    """Which settings were found, and how; the command above takes them from their file."""
    tuned = outcome.tuned
    if not tuned.best:
        return ""
    file = f"{tuned.path.parent.name}/{tuned.path.name}"
    models = ", ".join(f"{name} (the best of {tuned.trials[name]} trials)" for name in tuned.best)
    command = (
        f"flexcare tune {outcome.path} --data DATA --models {','.join(tuned.best)}"
        f" --trials {tuned.asked}"
    )
    return f" Settings of {models} by the tuning split, `{command}`, from its {file}."


def _models(outcome: Outcome) -> str:
    """How each model was made, and how long that took."""
    rows = []
    for name, model in outcome.protocol.models.items():
        settings = model.settings
        kind = settings.network if isinstance(settings, Config) else ""
        told = [f"{model.kind} {kind}".strip(), "one for each task" if model.alone else ""]
        if name in outcome.tuned.best:
            told.append(f"tuned: {in_words(outcome.tuned.best[name])}")
        if len(model.seeds) > 1:
            told += [
                "mean of the seeds' probabilities",
                TURNED if outcome.split == "held_out" else "",
            ]
        if name in outcome.thresholds:
            at = outcome.thresholds[name]
            when = f"warns from {at:.4f} on" if np.isfinite(at) else "never warns"
            told.append(f"{when}, by the tuning split")
        seeds = ", ".join(map(str, model.seeds))
        rows.append([name, ", ".join(filter(None, told)), seeds, f"{outcome.minutes[name]}"])
    return _markdown(["model", "is", "seeds", "minutes"], rows)


def _of_task(outcome: Outcome, name: str) -> str:
    found = [key for scores in outcome.scores.values() for key in scores]
    metrics = list(dict.fromkeys(metric for task, metric in found if task == name))
    title = f"{name}: {outcome.tasks[name].question} ({outcome.samples[name]:,} samples)"
    return _table(outcome, name, title, metrics)


def _table(outcome: Outcome, task: str, title: str, metrics: list[str]) -> str:
    """All models on one task; of the first two metrics the paired differences, too."""
    compared = metrics[:2] + [metric for metric in metrics[2:] if metric == UTILITY]
    gaps = [f"{outcome.first} minus it: {_label(metric)}" for metric in compared]
    rows = []
    for model, scores in outcome.scores.items():
        if any(of == task for of, _ in scores):
            cells = [_cell(scores.get((task, metric))) for metric in metrics]
            less = outcome.differences(model)
            cells += [_cell(less.get((task, metric)), "+") for metric in compared]
            rows.append([model, *cells])
    return f"### {title}\n{_markdown(['model', *map(_label, metrics), *gaps], rows)}"


def _of_subsets(outcome: Outcome) -> list[str]:
    """The first model's own metrics with each set of modalities."""
    own = {name: info.metric for name, info in outcome.tasks.items()}
    own |= {MEAN: OWN} if (MEAN, OWN) in outcome.scores[outcome.first] else {}
    lines = outcome.subsets | {"all": outcome.scores[outcome.first]}
    rows = [[n, *(_cell(s.get(key)) for key in own.items())] for n, s in lines.items()]
    header = ["modalities", *(f"{task}: {_label(metric)}" for task, metric in own.items())]
    title = f"### {outcome.first} with some modalities only, the others taken away when predicting"
    return [f"{title}\n{_markdown(header, rows)}"]


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cell(score: Score | None, sign: str = "") -> str:
    found = score.to_dict() if score else {"value": None}
    if found["value"] is None:
        return "-"
    value = f"{found['value']:{sign}.3f}"
    return (
        value
        if found["low"] is None
        else f"{value} ({found['low']:{sign}.3f} to {found['high']:{sign}.3f})"
    )


def _label(metric: str) -> str:
    return METRICS[metric].label if metric in METRICS else NAMES[metric]
