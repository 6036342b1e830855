"""What a network's old answers became when it learned something new."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flexcare.evaluation.compare import MEAN, OWN
from flexcare.experiments.measures.trained import Found, Trained
from flexcare.experiments.verdict import Value


def extension(run: Trained) -> Found:
    """changed: the largest absolute difference of a probability, after minus before, among the old
    tasks' answers to held-out patients who lack the new modality, or from whom it was taken away
    (of a new task: all patients, the new task asked beside the old ones); forgotten: the mean of
    the old tasks' own metrics on all held-out patients without the new modality, after minus
    before. Nothing of a run that extends none.
    """
    if run.base is None:
        return Found()
    old = Trained(run.base, run.store)
    new = set(run.modalities) - set(old.modalities)
    before, after = old.predictions(), run.predictions(tuple(new))
    told = _by_sample(before)
    gaps = [_gap(told, _by_sample(after))]
    if new:
        untouched = [
            not new & set(has.split("+")) for has in run.predictions()["modalities"].to_pylist()
        ]
        gaps.append(_gap(told, _by_sample(run.predictions().filter(pa.array(untouched)))))
    judge = old.judge()
    # One task is its own mean.
    tasks = old.model.tasks
    key = (MEAN, OWN) if len(tasks) > 1 else (tasks[0].name, tasks[0].metric)
    lost = judge.scores(after)[key] - judge.scores(before)[key]
    values = {"changed": Value(max(gaps))}
    if np.isfinite(lost.value):
        values["forgotten"] = Value(lost.value, tuple(lost.drawn.tolist()))
    return Found(values)


def _by_sample(table: pa.Table) -> dict[tuple[str, str], NDArray[np.float64]]:
    """By task and sample, the probabilities (outputs,)."""
    keys = zip(table["task"].to_pylist(), table["sample_id"].to_pylist(), strict=True)
    return dict(zip(keys, map(np.array, table["probabilities"].to_pylist()), strict=True))


def _gap(
    before: dict[tuple[str, str], NDArray[np.float64]],
    after: dict[tuple[str, str], NDArray[np.float64]],
) -> float:
    """The largest difference among answers that both have."""
    both = before.keys() & after.keys()
    return max((float(np.abs(after[one] - before[one]).max()) for one in both), default=0.0)
