"""The least a model must beat: how common each answer was in the training split."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flexcare.config import Section
from flexcare.schema import TaskInfo
from flexcare.store import Store

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Answered = tuple[TaskInfo, Rows, Floats]  # task, sample rows (n,), probabilities (n, outputs)


def majority(
    store: Store, tasks: Iterable[str], split: str, seed: int = 0, settings: Section | None = None
) -> Iterator[Answered]:
    """The same answer for everybody: the training split's frequencies.

    Args:
        tasks: names of the store's.
        split: whose samples are answered.
        seed, settings: of no use here.

    Yields:
        by task its sample rows as `Store.rows` gives them, and a probability an output.
    """
    for name in tasks:
        info, rows = store.tasks[name], store.rows(name, split)
        shares = frequencies(info, *labels_of(store, info, store.rows(name, "train")))
        yield info, rows, np.tile(shares, (len(rows), 1))


def labels_of(store: Store, info: TaskInfo, rows: Rows) -> tuple[Floats, Bools]:
    """Labels (n, width), 0 where masked, and where they exist; multiclass: the class number."""
    width = 1 if info.kind == "multiclass" else info.outputs
    chosen = store.samples.select(["label", "label_mask"]).take(pa.array(rows, pa.int64()))
    mask = pc.list_flatten(chosen["label_mask"]).to_numpy().reshape(-1, width)
    labels = pc.list_flatten(chosen["label"]).to_numpy().reshape(-1, width)
    return np.where(mask, labels, 0).astype(np.float64), mask.astype(bool)


def frequencies(info: TaskInfo, labels: Floats, mask: Bools) -> Floats:
    """(outputs,) share of each answer among those known; a coin's where none is known."""
    if info.kind == "multiclass":
        labels = (labels == np.arange(info.outputs)).astype(np.float64)
    known = np.broadcast_to(mask, labels.shape).sum(0)
    none = 1 / max(info.outputs, 1) if info.kind == "multiclass" else 0.5
    counts = np.where(mask, labels, 0).sum(0)
    return np.asarray(np.where(known > 0, counts / np.maximum(known, 1), none))
