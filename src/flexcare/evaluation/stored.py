"""Answers to samples of a store -> the predictions table, with what each sample had."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flexcare.evaluation.predictions import predictions_table
from flexcare.schema import TaskInfo
from flexcare.store import HAS, Store


def stored_predictions(
    store: Store,
    info: TaskInfo,
    rows: npt.NDArray[np.int64],
    probabilities: npt.NDArray[Any],
    model: str,
    modalities: Iterable[str] | None = None,
) -> pa.Table:
    """One task's answers by one model, in the form of `schema.PREDICTIONS`.

    Args:
        info: the task as the model knows it.
        rows: (n,) sample rows of this task.
        probabilities: (n, outputs).
        modalities: those the model takes; None: all of the store.
    """
    names = present(store, rows, store.modalities if modalities is None else modalities)
    samples = store.samples.take(pa.array(rows, pa.int64()))
    return predictions_table(samples, info, probabilities, model, names, store.subgroups(rows))


def present(store: Store, rows: npt.NDArray[np.int64], modalities: Iterable[str]) -> list[str]:
    """Which of the modalities each sample has: "film+series", or "none"."""
    chosen = store.samples.take(pa.array(rows, pa.int64()))
    named = sorted(modalities)
    has = [chosen[HAS + name].to_numpy() for name in named]
    code = sum((h.astype(np.int64) << i for i, h in enumerate(has)), np.zeros(len(rows), np.int64))
    patterns, place = np.unique(code, return_inverse=True)
    texts = [
        "+".join(name for i, name in enumerate(named) if pattern >> i & 1) or "none"
        for pattern in patterns.tolist()
    ]
    return [texts[p] for p in place]
