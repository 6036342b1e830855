"""What a network's old answers became when it learned something new."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flexcare.evaluation.compare import MEAN, OWN
from flexcare.experiments.measures.trained import Found, Trained
from flexcare.experiments.verdict import Value

Answers = dict[tuple[str, str], NDArray[np.float64]]


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
    found = Found({"changed": Value(_gap(told, _by_sample(after), told))})
    if new:  # among patients who have it, some lack it: those are answered in one batch with others
        seen = run.predictions()
        lack = [not new & set(has.split("+")) for has in seen["modalities"].to_pylist()]
        gap = _gap(told, _by_sample(seen), _by_sample(seen.filter(pa.array(lack))))
        found.values["changed"] = Value(max(gap, found.values["changed"].value))
    tasks, judge = old.model.tasks, old.judge()
    key = (MEAN, OWN) if len(tasks) > 1 else (tasks[0].name, tasks[0].metric)  # one: its own mean
    scores = [judge.scores(table) for table in (before, after)]
    if all(key in one and np.isfinite(one[key].value) for one in scores):
        lost = scores[1][key] - scores[0][key]
        found.values["forgotten"] = Value(lost.value, tuple(lost.drawn.tolist()))
    return found


def _by_sample(table: pa.Table) -> Answers:
    """By task and sample, the probabilities (outputs,)."""
    keys = zip(table["task"].to_pylist(), table["sample_id"].to_pylist(), strict=True)
    return dict(zip(keys, map(np.array, table["probabilities"].to_pylist()), strict=True))


def _gap(before: Answers, after: Answers, asked: Iterable[tuple[str, str]]) -> float:
    """The largest difference among the old ones of the answers that are asked for."""
    gaps = [np.abs(after[one] - before[one]).max() for one in asked if one in before]
    return float(max(gaps, default=0.0))
