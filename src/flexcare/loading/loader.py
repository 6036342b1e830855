"""Store -> batch: the samples of a step as tensors, scaled as the training data were."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from flexcare.batch import Batch, Tokens
from flexcare.errors import UserError
from flexcare.features.series import Events, bin_events, to_columns
from flexcare.features.variables import variable_set
from flexcare.store import Store

T = TypeVar("T")
Rows = NDArray[np.int64]


class Loader:
    """Turns rows of a store's samples table into batches.

    Args:
        store: where the samples are.
        scaling: centre and scale; the store's own for training, the bundle's for prediction.
        modalities: names of those to give; others are as if absent.
        max_bins, max_pieces: the model's: the last bins and the first pieces are all it reads.
    """

    def __init__(
        self,
        store: Store,
        scaling: dict[str, Any],
        modalities: Iterable[str] | None = None,
        max_bins: int = 512,
        max_pieces: int = 512,
    ) -> None:
        self.store, self.max_bins, self.max_pieces = store, max_bins, max_pieces
        self.modalities = tuple(store.modalities if modalities is None else modalities)
        self.variables = variable_set(
            store.modalities["series"].settings["variables"], f"store {store.path}"
        )
        if list(self.variables.columns()) != store.modalities["series"].settings["columns"]:
            raise UserError(
                f"the manifest of store {store.path} contradicts itself",
                found="variables in another order than the columns",
                expected="the manifest that `flexcare prepare` wrote",
                do="Prepare the store again.",
            )
        self.center = np.array(scaling["series"]["center"], np.float32)
        self.scale = np.array(scaling["series"]["scale"], np.float32)
        self.film = scaling["film"]
        names = ("series_first", "series_stop", "series_hours", "film_row", "has_series")
        self.columns = {name: _numpy(store.samples[name]) for name in names}
        self.texts = _ragged(store.samples["text_rows"])
        self.labels = _ragged(store.samples["label"])
        self.masks = _ragged(store.samples["label_mask"])

    def batch(self, rows: Rows, tasks: tuple[str, ...]) -> Batch:
        """The batch of some samples.

        Args:
            rows: (B, T) sample rows: what row b is asked for task t, -1 where nothing. All of a
                row are of one patient and time, so the evidence of any of them is that of all.
            tasks: the T tasks.
        """
        evidence = rows.max(axis=1)
        inputs = {}
        for name in self.modalities:
            tokens = READ[self.store.modalities[name].kind](self, evidence)
            if tokens is not None:
                inputs[name] = tokens
        labels, masks = {}, {}
        for place, task in enumerate(tasks):
            info = self.store.tasks[task]
            width = 1 if info.kind == "multiclass" else info.outputs
            labels[task], masks[task] = self._answers(rows[:, place], width)
        asked = {task: torch.from_numpy(rows[:, i].copy()) for i, task in enumerate(tasks)}
        return Batch(len(rows), inputs, tasks, labels, masks, asked)

    def _answers(self, rows: Rows, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels and masks of one task: (B, width)."""
        there = rows >= 0
        labels = np.zeros((len(rows), width), np.float32)
        masks = np.zeros((len(rows), width), bool)
        place = self.labels[0][rows[there]][:, None] + np.arange(width)
        labels[there], masks[there] = self.labels[1][place], self.masks[1][place]
        return torch.from_numpy(labels), torch.from_numpy(masks)

    def series(self, rows: Rows) -> Tokens | None:
        """Hourly bins of those of the samples that have a series."""
        having = np.flatnonzero(self.columns["has_series"][rows])
        if not len(having):
            return None
        chosen = rows[having]
        first, stop = self.columns["series_first"][chosen], self.columns["series_stop"][chosen]
        index, sample = _ranges(first, stop)
        arrays = {name: array[index] for name, array in self.store.events.items()}
        hours = self.columns["series_hours"][chosen]
        values, observed, count = bin_events(Events(sample, **arrays), hours, self.variables)
        kept = np.minimum(count, self.max_bins)
        if values.shape[1] > self.max_bins:
            bins = (count - kept)[:, None] + np.arange(kept.max())[None]
            bins = np.minimum(bins, values.shape[1] - 1)[:, :, None]
            values = np.take_along_axis(values, bins, axis=1)
            observed = np.take_along_axis(observed, bins, axis=1)
        columns = to_columns(values, observed, self.variables, self.center, self.scale)
        valid = np.arange(columns.shape[1])[None] < kept[:, None]
        columns[~valid] = 0
        return _tokens(columns, valid, having)

    def films(self, rows: Rows) -> Tokens | None:
        """Films of those of the samples that have one, standardised."""
        film = self.columns["film_row"][rows]
        having = np.flatnonzero(film >= 0)
        if not len(having):
            return None
        pixels = self.store.films[film[having]].astype(np.float32) / 255
        pixels = (pixels - self.film["mean"]) / self.film["sd"]
        return _tokens(pixels.astype(np.float32), np.ones((len(having), 1), bool), having)

    def notes(self, rows: Rows) -> Tokens | None:
        """The first word pieces of the texts of those of the samples that have any."""
        offsets, values = self.texts
        vectors, spans = self.store.embeddings
        pieces = [
            np.concatenate([np.arange(*spans[t]) for t in values[offsets[r] : offsets[r + 1]]])
            if offsets[r + 1] > offsets[r]
            else np.zeros(0, np.int64)
            for r in rows
        ]
        having = np.array([i for i, p in enumerate(pieces) if len(p)], np.int64)
        if not len(having):
            return None
        kept = [pieces[i][: self.max_pieces] for i in having]
        length = np.array([len(p) for p in kept])
        valid = np.arange(length.max())[None] < length[:, None]
        out = np.zeros((*valid.shape, vectors.shape[1]), np.float32)
        out[valid] = vectors[np.concatenate(kept)]
        return _tokens(out, valid, having)


READ: dict[str, Callable[[Loader, Rows], Tokens | None]] = {
    "time_series": Loader.series,
    "image": Loader.films,
    "text": Loader.notes,
}


def prefetch(items: Iterable[T], ahead: int = 2) -> Iterator[T]:
    """The same items, made by another thread a little ahead of their use; errors are passed on."""
    ready: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(ahead)
    stopped = threading.Event()
    thread = threading.Thread(target=_fill, args=(items, ready, stopped), daemon=True)
    thread.start()
    try:
        while True:
            item, error, more = ready.get()
            if error is not None:
                raise error
            if not more:
                return
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()


def _fill(items: Iterable[T], ready: "queue.Queue[Any]", stopped: threading.Event) -> None:
    """Put items into the queue until they end, fail, or nobody wants more."""

    def put(*entry: Any) -> None:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return
            except queue.Full:
                continue

    try:
        for item in items:
            put(item, None, True)
            if stopped.is_set():
                return
        put(None, None, False)
    except BaseException as error:
        put(None, error, False)


def _ranges(first: Rows, stop: Rows) -> tuple[Rows, Rows]:
    """All numbers of the ranges [first, stop), one range after the other, and whose each is."""
    size = stop - first
    owner = np.repeat(np.arange(len(first)), size)
    start = np.cumsum(size) - size
    return np.arange(size.sum()) - np.repeat(start - first, size), owner


def _tokens(values: NDArray[np.float32], valid: NDArray[np.bool_], rows: Rows) -> Tokens:
    return Tokens(torch.from_numpy(values), torch.from_numpy(valid), torch.from_numpy(rows))


def _numpy(column: pa.ChunkedArray) -> NDArray[Any]:
    out: NDArray[Any] = column.combine_chunks().to_numpy(zero_copy_only=False)
    return out


def _ragged(column: pa.ChunkedArray) -> tuple[Rows, NDArray[Any]]:
    """Offsets (n + 1) and values of a list column."""
    lists = pa.concat_arrays(column.chunks) if column.num_chunks else column.combine_chunks()
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return offsets, lists.values.to_numpy(zero_copy_only=False)
