"""Judging seven tasks (25 and 14 labels among them) with 1,000 resamples of the subjects.

First the whole evaluation of a table of 100,000 predictions: values, intervals, subgroups, curves,
calibration and conformal sets, fitted on half as many of the tuning split. Then the resamples alone
where each of the tasks has 100,000. What the same code gives for everybody drawn once is compared
with scikit-learn's values.
"""

from functools import partial

import numpy as np
import pyarrow as pa
from invented import TASKS
from measure import keep, seconds

from flexcare.evaluation.bootstrap import resample, subject_copies
from flexcare.evaluation.evaluate import evaluate_tables
from flexcare.evaluation.metrics import METRICS, Answers, measure, metrics_of
from flexcare.evaluation.predictions import predictions_table
from flexcare.schema import SAMPLES, TaskInfo

ROWS, SUBJECTS, RESAMPLES = 100_000, 20_000, 1000
METRIC = {"binary": "auroc", "multilabel": "macro_auroc", "multiclass": "accuracy"}


def answers(info: TaskInfo, rows: int, subjects: int, random: np.random.Generator) -> Answers:
    """Random labels, a fifth positive, and probabilities that know something of them."""
    many = info.kind == "multiclass"
    shape = (rows, info.outputs)
    labels = random.integers(0, info.outputs, (rows, 1)) if many else random.random(shape) < 0.2
    truth = labels == np.arange(info.outputs) if many else labels
    found = random.random(shape) + truth
    found = found / (found.sum(1, keepdims=True) if many else 2)
    mask = np.ones(labels.shape, bool)
    return Answers(labels.astype(np.float64), mask, found, random.integers(0, subjects, rows))


def table(info: TaskInfo, given: Answers) -> pa.Table:
    """The same as predictions, with two subgroups."""
    rows = len(given.labels)
    columns = {
        "sample_id": [f"{info.name}/{row}" for row in range(rows)],
        "task": pa.repeat(info.name, rows), "split": pa.repeat("held_out", rows),
        "subject_id": given.subjects,
        "label": list(given.labels.astype(np.float32)), "label_mask": list(given.mask),
    }  # fmt: skip
    arrays = [columns.get(field.name, pa.nulls(rows, field.type)) for field in SAMPLES]
    samples = pa.table(arrays, names=SAMPLES.names).cast(SAMPLES)
    groups = [{"sex": "FM"[subject % 2]} for subject in given.subjects]
    present = ["series" if subject % 3 else "note+series" for subject in given.subjects]
    return predictions_table(samples, info, given.probabilities, "flexcare", present, groups)


def main() -> None:
    random = np.random.default_rng(0)
    infos = {
        info.name: TaskInfo(info.name, "?", info.kind, info.classes, METRIC[info.kind])
        for info in TASKS
    }
    share, people = ROWS // len(infos), SUBJECTS // len(infos)
    few = {name: answers(info, share, people, random) for name, info in infos.items()}
    tables = {"flexcare": pa.concat_tables([table(infos[n], one) for n, one in few.items()])}
    half = {name: answers(info, share // 2, people // 2, random) for name, info in infos.items()}
    tuning = {"flexcare": pa.concat_tables([table(infos[n], one) for n, one in half.items()])}
    judge = partial(evaluate_tables, tables, infos, RESAMPLES, tuning=tuning)
    found = [seconds(judge) for _ in range(5)]
    keep("evaluation of 100,000 predictions", "at most 10", found, "s")
    for name, info in infos.items():
        once = resample(info.kind, few[name], np.ones((1, people), np.int16))
        for metric in metrics_of(info.kind):
            expected = measure(metric, info.kind, few[name])
            assert np.isclose(once[metric][0], expected, rtol=1e-9, atol=1e-12), METRICS[metric]
    copies = subject_copies(SUBJECTS, RESAMPLES, random)
    rounds = np.zeros(5)
    for info in infos.values():
        many = answers(info, ROWS, SUBJECTS, random)
        found = [seconds(partial(resample, info.kind, many, copies)) for _ in rounds]
        rounds += found
    keep("resamples of 7 x 100,000 predictions", "at most 10", rounds.tolist(), "s")


if __name__ == "__main__":
    main()
