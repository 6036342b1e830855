"""A run's best model with modalities taken away: predicts without each set of them, and judges.

Writes into the run folder: missing/subsets.json and missing/grid.json (evaluation.subsets).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flexcare.errors import UserError, unknown
from flexcare.evaluation.run import open_run
from flexcare.evaluation.subsets import every, judged
from flexcare.files import write_json
from flexcare.schema import SPLITS
from flexcare.serving.bundle import load_bundle
from flexcare.serving.predictor import Predictor

Say = Callable[[str], None]


def missing(
    run: str | Path, split: str = "held_out", *, resamples: int = 1000, say: Say = print
) -> dict[str, Any]:
    """Judge a run's best model on one split with modalities taken away.

    Args:
        resamples: of the subjects, for the intervals.

    Returns:
        {"subsets", "grid"}: what the two files hold (evaluation.subsets.judged).

    Raises:
        UserError: no run, no such split, no answers there, or a store that has changed.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if resamples < 1:
        raise UserError("no resamples", found=str(resamples), expected="at least 1")
    run = Path(run)
    _, store = open_run(run)
    predictor = Predictor(load_bundle(run / "bundle"), say=say)
    names = tuple(i.name for i in predictor.bundle.modalities if i.name in store.modalities)
    tables = {}
    for told, without in every(names).items():
        say(f"predicting {split}: {told}")
        tables[without] = predictor.predict_store(store, split, without=without)
    say("measuring, with intervals")
    found = judged(tables, names, predictor.tasks, resamples)
    for part in ("subsets", "grid"):
        found[part] = {"artefact": part, "split": split} | found[part]
        write_json(run / "missing" / f"{part}.json", found[part])
    return found
