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
from flexcare.config import ModelConfig
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
        model: its settings say how many bins and pieces it reads, and whether the samples of one
            stay can share a series.
    """

    def __init__(
        self,
        store: Store,
        scaling: dict[str, Any],
        modalities: Iterable[str] | None = None,
        model: ModelConfig = ModelConfig(),  # noqa: B008, it cannot be changed
    ) -> None:
        self.store, self.causal = store, model.causal_series
        self.max_bins, self.max_pieces = model.max_bins, model.max_pieces
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

    def work(self, rows: Rows) -> NDArray[np.float64]:
        """(B,) about how many tokens each of the samples has."""
        kinds = [self.store.modalities[name].kind for name in self.modalities]
        return sum((WORK[kind](self, rows) for kind in kinds), np.zeros(len(rows)))

    def bins(self, rows: Rows) -> NDArray[np.float64]:
        """(B,) hours of each series that are read."""
        hours = np.minimum(self.columns["series_hours"][rows], self.max_bins)
        return np.where(self.columns["has_series"][rows], hours, 0)

    def pieces(self, rows: Rows) -> Rows:
        """(B,) word pieces of each sample's texts that are read."""
        offsets, values = self.texts
        index, owner = _ranges(offsets[rows], offsets[rows + 1])
        first, stop = self.store.embeddings[1][values[index]].T
        count = np.bincount(owner, stop - first, len(rows)).astype(np.int64)
        return np.minimum(count, self.max_pieces)

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
        if not self.causal:
            return _tokens(columns, valid, having)
        used, of = _shared(columns, kept, first)
        return _tokens(columns[used], valid[used], having, of, kept)

    def films(self, rows: Rows) -> Tokens | None:
        """Films of those of the samples that have one, standardised."""
        film = self.columns["film_row"][rows]
        having = np.flatnonzero(film >= 0)
        if not len(having):
            return None
        used, of = np.unique(film[having], return_inverse=True)
        pixels = self.store.films[used].astype(np.float32) / 255
        pixels = (pixels - self.film["mean"]) / self.film["sd"]
        return _tokens(pixels.astype(np.float32), np.ones((len(used), 1), bool), having, of)

    def notes(self, rows: Rows) -> Tokens | None:
        """The first word pieces of the texts of those of the samples that have any."""
        offsets, values = self.texts
        vectors, spans = self.store.embeddings
        index, owner = _ranges(offsets[rows], offsets[rows + 1])
        lists = _padded(values[index], owner, len(rows), -1)
        _, used, of = np.unique(lists, axis=0, return_index=True, return_inverse=True)
        index, owner = _ranges(offsets[rows[used]], offsets[rows[used] + 1])
        pieces, text = _ranges(*spans[values[index]].T)
        length = np.bincount(owner[text], minlength=len(used))
        having = np.flatnonzero(length[of])
        if not len(having):
            return None
        places = _padded(pieces, owner[text], len(used), -1)[:, : self.max_pieces]
        some, valid = length > 0, places >= 0
        found = vectors[places[valid]]
        out = np.zeros((*valid.shape, found.shape[1]), found.dtype)
        out[valid] = found
        return _tokens(out[some], valid[some], having, (np.cumsum(some) - 1)[of[having]])


READ: dict[str, Callable[[Loader, Rows], Tokens | None]] = {
    "time_series": Loader.series,
    "image": Loader.films,
    "text": Loader.notes,
}

# Tokens by kind; a film counts as that of the paper's size.
WORK: dict[str, Callable[[Loader, Rows], NDArray[Any]]] = {
    "time_series": Loader.bins,
    "image": lambda loader, rows: 196 * (loader.columns["film_row"][rows] >= 0),
    "text": Loader.pieces,
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


def _padded(values: Rows, owner: Rows, count: int, nothing: int) -> Rows:
    """(count, longest) values in the rows of their owners, which are sorted."""
    size = np.bincount(owner, minlength=count)
    out = np.full((count, size.max(initial=0)), nothing)
    out[owner, np.arange(len(values)) - (np.cumsum(size) - size)[owner]] = values
    return out


def _shared(columns: NDArray[np.float32], bins: Rows, stay: Rows) -> tuple[Rows, Rows]:
    """Which series suffice, and the one of them that begins with each sample's own.

    Args:
        columns: (n, L, columns), of which `bins` (n,) are each sample's.
        stay: (n,) equal where samples may be of one series. They are not where one knew less in
            an hour than a later one does: then each keeps its own.
    """
    order = np.lexsort([-bins, stay])
    longest = order[np.searchsorted(stay[order], stay)]
    later = np.arange(columns.shape[1]) >= bins[:, None]
    same = ((columns == columns[longest]).all(2) | later).all(1)
    used, of = np.unique(np.where(same, longest, np.arange(len(stay))), return_inverse=True)
    return used, of


def _tokens(
    values: NDArray[Any],
    valid: NDArray[np.bool_],
    rows: Rows,
    of: Rows | None = None,
    until: Rows | None = None,
) -> Tokens:
    # torch widens half precision several times faster than numpy.
    given = torch.from_numpy(values).float(), torch.from_numpy(valid), torch.from_numpy(rows)
    shared, part = (None if x is None else torch.from_numpy(x) for x in (of, until))
    return Tokens(*given, shared, part)


def _numpy(column: pa.ChunkedArray) -> NDArray[Any]:
    out: NDArray[Any] = column.combine_chunks().to_numpy(zero_copy_only=False)
    return out


def _ragged(column: pa.ChunkedArray) -> tuple[Rows, NDArray[Any]]:
    """Offsets (n + 1) and values of a list column."""
    lists = pa.concat_arrays(column.chunks) if column.num_chunks else column.combine_chunks()
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return offsets, lists.values.to_numpy(zero_copy_only=False)
