"""Puts evaluation together: a run's best model and the baselines on the same samples.

Writes into the run folder: predictions/SPLIT/MODEL.parquet and evaluation/SPLIT.json, and the
network's predictions of the tuning split, on which calibration and conformal sets are fitted.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from flexcare.baselines.named import BASELINES
from flexcare.errors import UserError, unknown
from flexcare.evaluation.evaluate import evaluate_tables
from flexcare.evaluation.predictions import write_predictions
from flexcare.evaluation.stored import stored_predictions
from flexcare.files import read_json, write_json
from flexcare.loading.loader import Loader
from flexcare.models.fusion import combination_name
from flexcare.schema import SPLITS
from flexcare.serving.bundle import Bundle, load_bundle
from flexcare.serving.predictor import outputs_of, probabilities
from flexcare.store import Store

Say = Callable[[str], None]
TUNING = "tuning"


def evaluate(
    run: str | Path,
    split: str = "held_out",
    *,
    baselines: bool = True,
    resamples: int = 1000,
    say: Say = print,
) -> dict[str, Any]:
    """Judge a run's best model, and the baselines, on one split.

    Returns:
        What evaluation/SPLIT.json holds (evaluation.evaluate_tables), and the routing.

    Raises:
        UserError: no run, no such split, or a store that is no longer that of the run.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if resamples < 1:
        raise UserError("no resamples", found=str(resamples), expected="at least 1")
    run = Path(run)
    config, store = open_run(run)
    bundle = load_bundle(run / "bundle")
    # An extension's bundle also answers what its store may not ask.
    learned = [info for info in bundle.tasks if info.name in config["config"]["tasks"]]
    bundle = replace(bundle, tasks=tuple(learned))
    network = bundle.model.name
    say(f"{network}: predicting {split}")
    table, routing = network_predictions(bundle, store, split)
    tables = {network: table}
    tuning = {}
    if split != TUNING:  # what is fitted on a split cannot be judged on it
        say(f"{network}: predicting {TUNING}, to fit calibration and conformal sets")
        tuning[network], _ = network_predictions(bundle, store, TUNING)
        write_predictions(run / "predictions" / TUNING / f"{network}.parquet", tuning[network])
    infos = {info.name: info for info in bundle.tasks}
    for name, baseline in BASELINES.items() if baselines else ():
        say(f"{name}: training and predicting {split}")
        parts = baseline(store, infos, split, config["config"]["training"]["seed"])
        tables[name] = pa.concat_tables(
            [stored_predictions(store, info, rows, found, name) for info, rows, found in parts]
        )
    for name, one in tables.items():
        write_predictions(run / "predictions" / split / f"{name}.parquet", one)
    say("measuring, with intervals")
    result = evaluate_tables(tables, infos, resamples, tuning=tuning) | {"routing": routing}
    write_json(run / "evaluation" / f"{split}.json", result)
    return result


def open_run(run: Path) -> tuple[dict[str, Any], Store]:
    """config.json of a run, and its store, which must be the one it was trained on."""
    config: dict[str, Any] = read_json(run / "config.json", "a run that `flexcare train` wrote")
    store = Store(Path(config["store"]))
    if store.manifest["content"]["samples.parquet"] != config["store_content"]:
        raise UserError(
            f"the store of run {run} has changed",
            found=f"other samples in {store.path}",
            expected="the store it was trained on",
            do="Train again on the new store.",
        )
    return config, store


def network_predictions(
    bundle: Bundle, store: Store, split: str
) -> tuple[pa.Table, dict[str, Any]]:
    """The predictions table of a model, and how it used its experts.

    Returns:
        the table, and {"experts", "combinations", "usage": by task (experts, combinations) the
        mean gate weight of an expert where the combination is present}; of a network without
        such experts {}.
    """
    model = bundle.model
    names = [info.name for info in bundle.modalities]
    names = [name for name in names if name in store.modalities]
    loader = Loader(store, bundle.scaling, names, model.config)
    infos = {info.name: info for info in bundle.tasks}
    rows = {name: store.rows(name, split) for name in infos}
    answers = {name: np.zeros((len(rows[name]), infos[name].outputs), np.float32) for name in infos}
    shape = (model.routes, len(model.combinations))
    gates = {name: np.zeros(shape) for name in infos}
    seen = {name: np.zeros(shape[1]) for name in infos}
    for places, batch, output in outputs_of(model, loader, rows):
        for number, task in enumerate(batch.tasks):
            found = probabilities(infos[task], output.logits[task].float())
            answers[task][places[:, number]] = found.cpu().numpy()
            if model.routes:
                gates[task] += output.gates[:, number].sum(0).T.cpu().numpy()
                seen[task] += output.present.sum(0).cpu().numpy()
    usage = {name: (gates[name] / np.maximum(seen[name], 1)).tolist() for name in infos}
    tables = [
        stored_predictions(store, info, rows[name], answers[name], model.name, loader.modalities)
        for name, info in infos.items()
    ]
    routing = {
        "experts": [f"expert {number + 1}" for number in range(shape[0])],
        "combinations": [combination_name(c) for c in model.combinations],
        "usage": usage,
    }
    return pa.concat_tables(tables), routing if model.routes else {}
