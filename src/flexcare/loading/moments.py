"""Which samples ask about the same patient at the same time, and so are answered together."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flexcare.store import HAS

Rows = NDArray[np.int64]
# Columns of the samples table by which two samples know the same, beside their texts.
KEYS = ("subject_id", "stay_id", "prediction_time", "film_row", "series_hours")
TOLD = (HAS + "film", HAS + "note")  # by the film's row and the texts


def evidence_columns(samples: pa.Table) -> list[str]:
    """The columns that `moments_of` needs."""
    has = [n for n in samples.column_names if n.startswith(HAS) and n not in TOLD]
    return [*KEYS, *has, "text_rows"]


def moments_of(samples: pa.Table) -> Rows:
    """For each sample the number of its patient and time: equal where the evidence is equal."""
    plain = [name for name in evidence_columns(samples) if name != "text_rows"]
    columns = [samples[name].combine_chunks() for name in plain] + [_lists_as_bytes(samples)]
    codes = [c.dictionary_encode().indices.fill_null(-1).to_numpy() for c in columns]
    order = np.lexsort(codes)
    new = np.zeros(len(order), bool)
    for column in codes:
        new[1:] |= np.diff(column[order]) != 0
    out = np.empty(len(order), np.int64)
    out[order] = np.cumsum(new)
    return out


def together(moments: list[Rows]) -> Rows:
    """The samples of T tasks as a table with a row for every moment.

    Args:
        moments: for each task, the numbers of its samples' moments.

    Returns:
        (M, T) places in each task's samples, -1 where a task has none at that moment. A task that
        is asked twice at a moment has another row.
    """
    sizes = [len(numbers) for numbers in moments]
    task = np.repeat(np.arange(len(sizes)), sizes)
    moment = np.concatenate(moments)
    again = _repeats(moment * len(sizes) + task)
    patients, row = np.unique(moment * (again.max(initial=0) + 1) + again, return_inverse=True)
    table = np.full((len(patients), len(sizes)), -1)
    table[row, task] = np.concatenate([np.arange(size) for size in sizes])
    return table


def _repeats(values: Rows) -> Rows:
    """For each value, how many equal ones stand before it."""
    order = np.argsort(values, kind="stable")
    number = np.arange(len(values))
    new = np.diff(values[order], prepend=values[order[:1]] - 1) != 0
    out = np.empty(len(values), np.int64)
    out[order] = number - np.maximum.accumulate(np.where(new, number, 0))
    return out


def _lists_as_bytes(samples: pa.Table) -> pa.Array:
    """Each sample's list of texts as one value, so that equal lists can be told fast."""
    lists = samples["text_rows"].combine_chunks()
    offsets = lists.offsets.to_numpy().astype(np.int64)
    width = lists.values.type.byte_width
    bytes_of = lists.values.to_numpy(zero_copy_only=False).tobytes()
    buffers = [None, pa.py_buffer(offsets * width), pa.py_buffer(bytes_of)]
    return pa.Array.from_buffers(pa.large_binary(), len(lists), buffers)
