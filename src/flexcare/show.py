"""Explains any artefact on the screen: what it is, from what, how much, what to do next."""

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flexcare.errors import UserError
from flexcare.files import read_json

WIDTH = 130


def explain(path: Path) -> str:
    """A page of text about the artefact at `path`.

    Raises:
        UserError: nothing there, or nothing that flexcare wrote.
    """
    for test, tell in KINDS:
        if (path / test).is_file() if test else path.suffix == ".parquet" and path.is_file():
            return tell(path)
    raise UserError(
        f"{path} is nothing that flexcare wrote",
        found="a folder" if path.is_dir() else "a file" if path.exists() else "nothing there",
        expected="a store, a run, a bundle, or a predictions table",
    )


def _store(path: Path) -> str:
    from flexcare.store import Store

    manifest = Store(path).manifest
    table = _table("task", "question", "train", "tuning", "held out")
    for name, task in manifest["tasks"].items():
        counts = manifest["counts"]["samples"].get(name, {})
        numbers = [f"{counts.get(split, 0):,}" for split in ("train", "tuning", "held_out")]
        table.add_row(name, task["question"], *numbers)
    modalities = ", ".join(
        f"{name} ({info['kind']}, width {info['width']})"
        for name, info in manifest["modalities"].items()
    )
    flow = _table("what", "why", "left out", "remaining")
    for step in manifest["cohort_flow"]:
        flow.add_row(
            step["unit"], step["reason"], f"{step['left_out']:,}", f"{step['remaining']:,}"
        )
    dropped = _table("left out while reading", "count")
    for reason, count in manifest["dropped"].items():
        dropped.add_row(reason, f"{count:,}")
    head = (
        f"store {path}: {manifest['source']}, preset {manifest['preset']}, "
        f"flexcare {manifest['flexcare']}\nmodalities: {modalities}"
    )
    return _text(head, table, flow, dropped, f"next: flexcare train {path} --out RUN")


def _run(path: Path) -> str:
    import json

    config = read_json(path / "config.json", "a run")
    chosen = config["config"]
    head = (
        f"run {path} on store {config['store']}\n"
        f"tasks: {', '.join(chosen['tasks'])}\nmodalities: {', '.join(chosen['modalities'])}\n"
        f"network {chosen.get('network', 'flexcare')}, {config['parameters']:,} parameters, "
        f"schedule {chosen['training']['schedule']}, "
        f"seed {chosen['training']['seed']}"
    )
    lines = path / "metrics.jsonl"
    table = _table("epoch", *chosen["tasks"], "mean")
    for line in lines.read_text().splitlines() if lines.is_file() else ():
        found = json.loads(line)
        values = [found["tuning"][task]["primary"] for task in chosen["tasks"]]
        table.add_row(str(found["epoch"] + 1), *map(_number, [*values, found["mean"]]))
    pieces: list[Any] = [head, "primary metric on the tuning split", table]
    if (path / "forgetting.json").is_file():
        pieces.append(_forgetting(read_json(path / "forgetting.json", "an extension's look back")))
    for judged in sorted((path / "evaluation").glob("*.json")):
        pieces.append(table_of(read_json(judged, "an evaluation")))
    return _text(*pieces, f"next: flexcare evaluate {path}, then flexcare report {path}")


def _bundle(path: Path) -> str:
    from flexcare.models.ensemble import Ensemble
    from flexcare.serving.bundle import load_bundle

    bundle = load_bundle(path)
    tasks = _table("task", "question", "outputs")
    for info in bundle.tasks:
        tasks.add_row(info.name, info.question, str(info.outputs))
    modalities = ", ".join(f"{m.name} ({m.kind}, width {m.width})" for m in bundle.modalities)
    count = sum(p.numel() for p in bundle.model.parameters())
    name = bundle.model.name
    if isinstance(bundle.model, Ensemble):
        name = f"mean of {len(bundle.model.members)} {bundle.model.network} networks"
    head = f"bundle {path}: {name}, {count:,} parameters\nmodalities: {modalities}"
    origin = bundle.provenance.get("store", bundle.provenance)
    told = f"from: {origin.get('source', '?')}, preset {origin.get('preset', '?')}"
    return _text(head, told, tasks, f"next: flexcare predict {path} STORE --out FILE.parquet")


def _predictions(path: Path) -> str:
    from flexcare.evaluation.predictions import read_predictions

    found = read_predictions(path)
    grouped = found.group_by(["model", "task", "split"]).aggregate(
        [("sample_id", "count"), ("subject_id", "count_distinct")]
    )
    table = _table("model", "task", "split", "samples", "subjects")
    for row in grouped.to_pylist():
        numbers = (f"{row['sample_id_count']:,}", f"{row['subject_id_count_distinct']:,}")
        table.add_row(row["model"], row["task"], row["split"], *numbers)
    return _text(f"predictions {path}: {len(found):,} rows", table)


def table_of(result: dict[str, Any]) -> str:
    """An evaluation as a table: each task's primary metric by model, with its interval."""
    table = _table("task", "metric", "samples", *result["models"])
    for name, task in result["tasks"].items():
        cells, samples = [], "0"
        for model in result["models"]:
            found = task["models"].get(model)
            cells.append(_interval(found["metrics"][task["metric"]]) if found else "-")
            samples = f"{found['samples']:,}" if found else samples
        table.add_row(name, task["metric"], samples, *cells)
    return _text(f"on {', '.join(result['splits'])}; {result['interval']}", table)


def _forgetting(found: dict[str, Any]) -> str:
    """What an extension made of the old tasks' held-out answers."""
    if not found["tasks"]:
        return "the store asks no old task: nothing to look back at"
    table = _table("old task", "metric", "samples", "before", "after")
    for name, one in found["tasks"].items():
        numbers = (f"{one['samples']:,}", _number(one["before"]), _number(one["after"]))
        table.add_row(name, one["metric"], *numbers)
    told = "the same to the bit" if found["identical"] else "not what they were"
    return _text(f"old answers without what is new: {told}", table)


def plain_table(header: list[str], rows: list[list[str]]) -> str:
    """A table as text."""
    table = _table(*header)
    for row in rows:
        table.add_row(*row)
    return _text(table)


def _interval(value: dict[str, Any]) -> str:
    if value["value"] is None:
        return "none"
    if value.get("low") is None:
        return _number(value["value"])
    return f"{value['value']:.3f} ({value['low']:.3f}-{value['high']:.3f})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, name in enumerate(columns):
        table.add_column(name, overflow="fold", no_wrap=place == 0)
    return table


def _text(*parts: Any) -> str:
    """Parts as plain text, one under the other."""
    out = StringIO()
    console = Console(file=out, width=WIDTH, no_color=True, highlight=False)
    for part in parts:
        console.print(part, markup=False)
    return out.getvalue().rstrip()


KINDS: tuple[tuple[str, Callable[[Path], str]], ...] = (
    ("manifest.json", _store),
    ("bundle.json", _bundle),
    ("config.json", _run),
    ("", _predictions),
)
