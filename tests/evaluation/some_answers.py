"""Answers drawn from known chances, which a model may exaggerate; and the same as predictions."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
from scipy.special import expit, softmax

from flexcare.evaluation.metrics import Answers
from flexcare.evaluation.predictions import predictions_table
from flexcare.schema import SAMPLES, TaskInfo

INFOS = {
    "binary": TaskInfo("death", "dies?", "binary", ("yes",), "average_precision"),
    "multilabel": TaskInfo("codes", "?", "multilabel", ("x", "y", "z"), "macro_average_precision"),
    "multiclass": TaskInfo("stay", "?", "multiclass", ("a", "b", "c", "d"), "quadratic_kappa"),
}


def drawn(kind, subjects, seed, sharp=1.0, level=0.0, each=2) -> Answers:
    """`each` samples of every subject; the model's logits are `sharp` times the true ones.

    Probabilities have the precision that predictions tables hold.
    """
    rng = np.random.default_rng(seed)
    outputs, rows = INFOS[kind].outputs, subjects * each
    logits = level + 1.5 * rng.normal(size=(rows, outputs))
    if kind == "multiclass":
        chance = softmax(logits, axis=1)
        labels = (rng.random((rows, 1)) > chance.cumsum(1)).sum(1, keepdims=True)
        labels = np.minimum(labels, outputs - 1)
        said = softmax(sharp * logits, axis=1)
    else:
        labels, said = rng.random((rows, outputs)) < expit(logits), expit(sharp * logits)
    mask = np.ones(labels.shape, bool)
    if kind == "multilabel":
        mask[:, 1:] = rng.random((rows, outputs - 1)) < 0.8
    labels = np.where(mask, labels, 0).astype(float)
    said = said.astype(np.float32).astype(float)
    return Answers(labels, mask, said, np.repeat(np.arange(subjects), each))


def relabelled(answers: Answers, seed: int) -> Answers:
    """Other labels of the same samples."""
    order = np.random.default_rng(seed).permutation(len(answers.labels))
    return replace(answers, labels=np.where(answers.mask, answers.labels[order], 0))


def as_table(kind, answers: Answers, groups=None, split="held_out") -> pa.Table:
    """As a predictions table.

    Args:
        groups: the sex of each sample.
    """
    info, rows = INFOS[kind], len(answers.labels)
    columns = {
        "sample_id": [f"{info.name}/{split}/{row}" for row in range(rows)],
        "task": [info.name] * rows,
        "subject_id": answers.subjects,
        "label": answers.labels.astype(np.float32).tolist(),
        "label_mask": answers.mask.tolist(),
        "split": [split] * rows,
    }
    arrays = [columns.get(field.name, pa.nulls(rows, field.type)) for field in SAMPLES]
    samples = pa.table(arrays, names=SAMPLES.names).cast(SAMPLES)
    named = [{}] * rows if groups is None else [{"sex": str(group)} for group in groups]
    return predictions_table(samples, info, answers.probabilities, "m", ["none"] * rows, named)
