"""Puts the report together: what a run folder and its store hold -> report.html."""

import json
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from flexcare.errors import UserError, unknown
from flexcare.evaluation.routing import ALIKE, DEAD, distance
from flexcare.files import read_json
from flexcare.report import taken
from flexcare.report.content import (
    ALONE,
    TOGETHER,
    CompanionRun,
    Companions,
    ReportContent,
    Routing,
)
from flexcare.report.page import write_report
from flexcare.schema import TaskInfo
from flexcare.store import Store

MODELS = {
    "flexcare": "the network, one for all questions",
    "gru_d": "a recurrent network whose values and state fade with time, for all questions",
    "early_fusion": "one plain transformer over all tokens, for all questions",
    "medfuse": "a vector a modality, read one after the other by an LSTM, for all questions",
    "modality_dropout": "a vector a modality, some left out while learning, for all questions",
    "flex_moe": "learned vectors for what is missing, and experts by what is there",
    "moe_health": "one expert for each set of modalities",
    "m3h": "one trunk, and attention across the questions",
    "logistic": "logistic regression on summaries, one for each output",
    "trees": "boosted trees on summaries, one for each output",
    "majority": "the same answer for everybody: how often it was so in training",
}


def report(
    run: str | Path,
    split: str = "held_out",
    *,
    beside: list[Path] | None = None,
    question: str | None = None,
) -> Path:
    """Write report.html into a run folder.

    Args:
        run: a run that was evaluated on `split`.
        beside: other evaluated runs for the opening picture.
        question: the task that the picture is about; by default the one task of a run beside
            that has just one.

    Returns:
        The path of the page.

    Raises:
        UserError: not evaluated yet, or a question that a run does not have.
    """
    run = Path(run)
    config, result = _run(run, split)
    store = Store(Path(config["store"]))
    lines = _metrics(run)
    chosen = config["config"]
    manifest = store.manifest
    content = ReportContent(
        title=f"{manifest['source']}: {len(result['tasks'])} questions, one network",
        generated=f"{datetime.now():%Y-%m-%d %H:%M}, flexcare {config['versions']['flexcare']}",
        evaluation={k: v for k, v in result.items() if k != "routing"},
        tasks={name: store.tasks[name] for name in chosen["tasks"]},
        models=MODELS,
        companions=_companions(run, split, beside or [], question, store.tasks),
        cohort_flow=_flow(manifest["cohort_flow"]),
        missing=_missing(manifest),
        combinations=_combinations(result, _network(chosen)),
        routing=_routing(result["routing"]) if result["routing"] else None,
        taken=taken.read(run, split),
        training=[_row(line, task) for line in lines for task in line["tuning"]],
        settings={"training": chosen, "preparation": manifest["settings"]},
        provenance=_provenance(config, manifest, lines),
    )
    path = run / "report.html"
    write_report(path, content)
    return path


def _run(run: Path, split: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """config.json and the evaluation of a run."""
    config: dict[str, Any] = read_json(run / "config.json", "a run that `flexcare train` wrote")
    judged = run / "evaluation" / f"{split}.json"
    if not judged.is_file():
        raise UserError(
            f"run {run} has not been evaluated on {split}",
            found=f"no {judged.name} in {judged.parent}",
            expected="an evaluation",
            do=f"flexcare evaluate {run} --split {split}",
        )
    return config, read_json(judged, "an evaluation")


def _metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _row(line: dict[str, Any], task: str) -> dict[str, Any]:
    return {
        "epoch": line["epoch"] + 1,
        "task": task,
        "train_loss": line["train"].get(f"loss/{task}"),
        "tuning_loss": line["tuning"][task]["loss"],
    }


def _companions(
    run: Path, split: str, beside: list[Path], question: str | None, tasks: dict[str, TaskInfo]
) -> Companions | None:
    """The opening picture: the same question together, alone, and from each modality."""
    if not beside:
        return None
    opened = [(path, *_run(path, split)) for path in [run, *beside]]
    single = [c["config"]["tasks"][0] for _, c, _ in opened if len(c["config"]["tasks"]) == 1]
    task = question or (single[0] if single else opened[0][1]["config"]["tasks"][0])
    for path, config, _ in opened:
        if task not in config["config"]["tasks"]:
            raise unknown(f"question of run {path}:", task, config["config"]["tasks"])
    full = opened[0][1]["config"]["modalities"]
    shared = Counter(name for _, config, _ in opened for name in config["config"]["tasks"])
    runs = []
    for path, config, result in opened:
        held_out = {
            name: found["models"][_network(config["config"])]["metrics"]["auroc"]
            for name, found in result["tasks"].items()
            if shared[name] > 1
            and "auroc" in found["models"].get(_network(config["config"]), {}).get("metrics", {})
        }
        curve = [
            (line["epoch"] + 1, line["tuning"][task]["primary"])
            for line in _metrics(path)
            if line["tuning"][task]["primary"] is not None
        ]
        runs.append(CompanionRun(path.name, _role(config["config"], full), curve, held_out))
    return Companions(task, tasks[task].question, "auroc", runs, curve_metric=tasks[task].metric)


def _role(config: dict[str, Any], full: list[str]) -> str:
    """What a run of the picture was given."""
    if len(config["modalities"]) == 1 and len(full) > 1:
        return f"{' and '.join(config['modalities'])} only"
    return ALONE if len(config["tasks"]) == 1 else TOGETHER


def _flow(steps: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The steps by what they count."""
    out: dict[str, list[dict[str, Any]]] = {}
    for step in steps:
        out.setdefault(step["unit"], []).append(step | {"step": step["reason"]})
    return out


def _missing(manifest: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Share of samples without each modality, by split."""
    out: dict[str, dict[str, float]] = {}
    counts = list(manifest["counts"]["samples"].values())
    for name in manifest["modalities"]:
        for split in manifest["splits"]["shares"]:
            total = sum(count.get(split, 0) for count in counts)
            having = sum(count.get(f"{split} with {name}", 0) for count in counts)
            if total:
                out.setdefault(name, {})[split] = 1 - having / total
    return out


def _network(chosen: dict[str, Any]) -> str:
    """The name of the network of a run with these settings; earlier runs had but one."""
    name: str = chosen.get("network", "flexcare")
    return name


def _combinations(result: dict[str, Any], network: str) -> dict[str, dict[str, int]]:
    """Samples of each task by the modalities they have."""
    out: dict[str, dict[str, int]] = {}
    for name, task in result["tasks"].items():
        groups = task["models"].get(network, {}).get("combinations", [])
        out[name] = {group["group"]: group["samples"] for group in groups}
    return out


def _routing(routing: dict[str, Any]) -> Routing:
    """Use of the experts, with a warning where it tells nothing apart or leaves some out."""
    warnings = []
    by_task = {name: np.array(usage).sum(1) for name, usage in routing["usage"].items()}
    shares = [use / use.sum() for use in by_task.values() if use.sum()]
    if len(shares) > 1 and distance(np.stack(shares)) < ALIKE:
        warnings.append(
            "All tasks use the experts alike: the mixture does not specialise by task here."
        )
    if shares:
        unused = np.flatnonzero(np.mean(shares, axis=0) < DEAD)
        if len(unused):
            names = ", ".join(routing["experts"][i] for i in unused)
            warnings.append(f"Hardly ever used: {names}.")
    return Routing(routing["experts"], routing["combinations"], routing["usage"], warnings)


def _provenance(
    config: dict[str, Any], manifest: dict[str, Any], lines: list[dict[str, Any]]
) -> dict[str, Any]:
    """Where the numbers come from."""
    warnings = [
        text for line in (lines[0], lines[-1]) for text in line.get("warnings", {}).values()
    ]
    warnings = list(dict.fromkeys(f"{text[0].upper()}{text[1:]}." for text in warnings))
    if manifest["preset"] != "corrected":
        warnings.append(f"Prepared with preset {manifest['preset']}, which repeats known leaks.")
    if manifest["source"] == "synthetic":
        warnings.append("An invented hospital: no real patient, and no claim about medicine.")
    return {
        "source": manifest["source"],
        "preset": manifest["preset"],
        "seed": config["config"]["training"]["seed"],
        "epochs": len(lines),
        "training time": f"{sum(line['wall_s'] for line in lines):.0f} s",
        "parameters": f"{config['parameters']:,}",
        "processes": config["processes"],
        "versions": config["versions"],
        "samples fingerprint": config["store_content"][:16],
        "source files": {n: f["sha256"][:16] for n, f in manifest["source_files"].items()},
        "left out while reading": manifest["dropped"],
        "warnings": warnings,
    }
