"""What extending a bundle is worth on few patients: against training anew, and against fine-tuning.

One store gives one point of a curve. The others are stores of fewer training subjects.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from flexcare.evaluation.metrics import Undefined, measure
from flexcare.evaluation.predictions import cases
from flexcare.files import read_json, refuse_existing
from flexcare.serving.predictor import load
from flexcare.store import Store
from flexcare.training.extend import Options, extend_modality, extend_task
from flexcare.training.run import having, train

BEFORE, FROZEN, UNFROZEN, SCRATCH = "before", "frozen", "unfrozen", "scratch"


def efficiency(
    bundle: str | Path,
    store: str | Path,
    out: str | Path,
    *,
    tasks: Sequence[str] = (),
    modalities: Sequence[str] = (),
    how: Options | None = None,
) -> list[dict[str, Any]]:
    """Learn something new in three ways, with equal settings, and measure each on held-out samples.

    Args:
        out: folder of the three runs.
        tasks, modalities: what is new, of one kind.
        how: as for an extension; of `unfreeze` both are tried.

    Returns:
        A row for each way and task: way ("frozen" and "unfrozen" extend the bundle, "scratch"
        trains a network of its size on the same samples alone; of modalities also "before", the
        bundle as it is), task, metric, value (null where there is none), samples, and subjects
        whose training samples were learned from. Of modalities only samples count that have one.

    Raises:
        UserError: as the runs.
    """
    out, opened, how = Path(out), Store(Path(store)), how or Options()
    refuse_existing(out)
    extend, names = (extend_task, tasks) if tasks else (extend_modality, modalities)
    for way in (FROZEN, UNFROZEN):
        extend(bundle, store, names, out / way, replace(how, unfreeze=way == UNFROZEN))
    config = read_json(out / FROZEN / "config.json", "a run")["config"]
    _from_scratch(opened, config, out / SCRATCH, how.quiet)
    places = {way: out / way / "bundle" for way in (FROZEN, UNFROZEN, SCRATCH)}
    if modalities:
        places = {BEFORE: Path(bundle)} | places
    return [
        {"way": way} | row
        for way, place in places.items()
        for row in _measured(place, opened, config["tasks"], modalities)
    ]


def _from_scratch(store: Store, config: dict[str, Any], out: Path, quiet: bool) -> None:
    """A network of the same size that learns the same tasks from what the store has."""
    model = config["model"] | {"joined_tasks": [], "joined_modalities": []}
    weights = config["objective"]["task_weights"]
    known = {name: weight for name, weight in weights.items() if name in config["tasks"]}
    settings = {
        "model": model,
        "objective": config["objective"] | {"task_weights": known},
        "training": config["training"],
    }
    train(
        store.path,
        out,
        tasks=config["tasks"],
        modalities=config["modalities"],
        settings=settings,
        quiet=quiet,
    )


def _measured(
    bundle: Path, store: Store, tasks: list[str], modalities: Sequence[str]
) -> list[dict[str, Any]]:
    """A row a task."""
    table = load(bundle, say=lambda line: None).predict_store(store, "held_out", tasks)
    out = []
    for name in tasks:
        info, rows = store.tasks[name], having(store, store.rows(name, "held_out"), modalities)
        found = cases(table, info)
        wanted = store.samples["sample_id"].take(pa.array(rows, pa.int64())).to_pylist()
        found = found.rows(np.isin(found.sample_ids, wanted))
        learned = having(store, store.rows(name, "train"), modalities)
        subjects = store.samples["subject_id"].take(pa.array(learned, pa.int64()))
        try:
            value = measure(info.metric, info.kind, found.answers)
        except Undefined:
            value = None
        out.append(
            {
                "task": name,
                "metric": info.metric,
                "value": value,
                "samples": len(found.sample_ids),
                "subjects": len(subjects.unique()),
            }
        )
    return out
