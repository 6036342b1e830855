"""An invented report: seven questions, three models, three modalities, all that goes with them."""

import numpy as np
from fake_predictions import MODELS, plans, tables

from flexcare.evaluation.evaluate import evaluate_tables
from flexcare.evaluation.subsets import every, judged, mixed
from flexcare.report.content import (
    ALONE,
    TOGETHER,
    CompanionRun,
    Companions,
    ReportContent,
    Routing,
)
from flexcare.schema import TaskInfo


def companions() -> Companions:
    """A question that needs film and note, learned with its companions and without them."""
    rng = np.random.default_rng(3)
    epochs = np.arange(1, 13)
    joint = 0.5 + 0.44 / (1 + np.exp(-(epochs - 5) * 1.1)) + rng.normal(0, 0.008, 12)
    alone = 0.5 + 0.02 * rng.random(12) + rng.normal(0, 0.01, 12)
    one = {role: 0.5 + rng.normal(0.03, 0.015, 12) for role in ("film", "note", "series")}

    def run(name, role, curve, value, width):
        held_out = {"film_xor_note": {"value": value, "low": value - width, "high": value + width}}
        if role in (TOGETHER, ALONE):
            held_out["film_finding"] = {"value": 0.97, "low": 0.95, "high": 0.98}
        return CompanionRun(
            name, role, list(zip(epochs.tolist(), curve.tolist(), strict=True)), held_out
        )

    return Companions(
        "film_xor_note",
        "Is exactly one of the film finding and the note finding present?",
        "auroc",
        [
            run("joint", TOGETHER, joint, 0.93, 0.02),
            run("alone", ALONE, alone, 0.52, 0.045),
            run("film", "film only", one["film"], 0.55, 0.044),
            run("note", "note only", one["note"], 0.53, 0.046),
            run("series", "series only", one["series"], 0.50, 0.045),
        ],
    )


def cohort_flow() -> dict[str, list[dict]]:
    """How many were left out at each step, and why."""

    def steps(unit, start, *left):
        rows, remaining = [], start
        rows.append(
            {"step": "in the source", "left_out": 0, "remaining": start, "reason": "", "unit": unit}
        )
        for step, out, reason in left:
            remaining -= out
            rows.append(
                {
                    "step": step,
                    "left_out": out,
                    "remaining": remaining,
                    "reason": reason,
                    "unit": unit,
                }
            )
        return rows

    return {
        "stays": steps(
            "stays",
            8412,
            ("adults", 37, "younger than 18 at admission to intensive care"),
            ("one care unit", 911, "moved between intensive care units during the stay"),
            ("has observations", 64, "no usable value of any variable"),
        ),
        "in_hospital_mortality": steps(
            "samples",
            7400,
            ("long enough", 1790, "stay shorter than 48 hours"),
            ("observed", 12, "nothing observed in the first 48 hours"),
        ),
        "readmission": steps("samples", 7400, ("left alive", 598, "died in intensive care")),
        "diagnosis": steps(
            "films",
            9120,
            ("view", 4888, "not taken AP"),
            ("labels", 121, "every label uncertain or blank"),
        ),
    }


def routing(info: list[TaskInfo]) -> Routing:
    """Ten experts, the last of them dead."""
    rng = np.random.default_rng(8)
    names = ["series", "film", "note", "series+film", "series+note", "film+note", "all three"]
    usage = {}
    for task in info:
        shares = rng.dirichlet(np.full(10, 0.6), len(names)).T
        shares[9] = 0
        usage[task.name] = shares.tolist()
    return Routing(
        [f"expert {k}" for k in range(1, 11)],
        names,
        usage,
        ["Expert 10 is dead: no question gives it more than 1 % of its weight."],
    )


def taken(info: list[TaskInfo]) -> dict:
    """Modalities taken away: samples that have one are then answered as the trees do."""
    found, names = tables(), ("film", "note", "series")
    full, column = found["flexcare"], found["flexcare"].column_names.index("modalities")
    without = {}
    for left_out in every(names).values():
        texts, lost = [], []
        for text in full["modalities"].to_pylist():
            kept = [name for name in text.split("+") if name not in left_out]
            texts.append("+".join(kept) or "none")
            lost.append(texts[-1] != text)
        table = mixed(full, found["trees"], np.array(lost))
        without[left_out] = table.set_column(column, "modalities", [texts])
    tasks = {one.name: one for one in info if one.name in ("decompensation", "diagnosis", "drg")}
    return judged(without, names, tasks, resamples=20)


def training(info: list[TaskInfo]) -> list[dict]:
    """Losses by epoch."""
    rng = np.random.default_rng(4)
    rows = []
    for k, task in enumerate(info):
        for epoch in range(1, 26):
            train = 0.25 + 0.1 * k + 0.6 * np.exp(-epoch / (5 + k)) + rng.normal(0, 0.005)
            gap = 0.03 + 0.003 * max(0, epoch - 12)
            tuning = train + gap + rng.normal(0, 0.01)
            rows.append(
                {"epoch": epoch, "task": task.name, "train_loss": train, "tuning_loss": tuning}
            )
    return rows


def make_content(resamples: int = 100) -> ReportContent:
    """The whole page."""
    info = [plan.info for plan in plans()]
    tasks = {task.name: task for task in info}
    tuning = {"flexcare": tables("tuning")["flexcare"]}
    return ReportContent(
        title="Seven questions in an invented hospital",
        generated="2026-11-24, flexcare 0.1.0",
        evaluation=evaluate_tables(tables(), tasks, resamples, tuning=tuning),
        tasks=tasks,
        models=MODELS,
        companions=companions(),
        cohort_flow=cohort_flow(),
        missing={
            "series": {"train": 0.01, "tuning": 0.01, "held_out": 0.02},
            "film": {"train": 0.56, "tuning": 0.55, "held_out": 0.57},
            "note": {"train": 0.49, "tuning": 0.52, "held_out": 0.50},
        },
        combinations={
            task.name: {
                "series": 2100 - 90 * k,
                "series+note": 1800 + 10 * k,
                "series+film": 1400,
                "series+film+note": 1500,
                "film": 60 * k,
                "none": 12,
            }
            for k, task in enumerate(info)
        },
        routing=routing(info),
        taken=taken(info),
        training=training(info),
        settings={
            "tasks": list(tasks),
            "model": {
                "hidden": 128,
                "layers": 4,
                "heads": 2,
                "dropout": 0.1,
                "experts": 10,
                "mask": "boolean",
            },
            "objective": {
                "decorrelation": "covariance",
                "decorrelation_weight": 0.5,
                "balance_weight": 0.01,
            },
            "training": {
                "epochs": 25,
                "batch_size": 32,
                "learning_rate": 1e-4,
                "schedule": "sequential",
                "patience": None,
                "seed": 0,
            },
        },
        provenance={
            "preset": "corrected",
            "flexcare": "0.1.0",
            "python": "3.11.9",
            "torch": "2.13.0",
            "seeds": {"split": 0, "training": 0},
            "source": "synthetic, 6,000 subjects",
            "source_fingerprint": "9f31c2ab77d0",
            "command": "flexcare train --store store/ --out runs/first",
            "wall_s": 5423.2,
            "warnings": [
                "The tuning split of diagnosis holds no positive case of “Pleural other”."
            ],
        },
    )
