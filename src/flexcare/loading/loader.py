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
from flexcare.features.series import bin_events, to_columns
from flexcare.features.variables import SERIES
from flexcare.loading.events import KINDS, Facts, OwnEvents, plain, ranges, tokens
from flexcare.store import Store

T = TypeVar("T")
HISTORY = 512  # bins that the encoder sums up, though it may read fewer
Rows = NDArray[np.int64]


class Loader:
    """Turns rows of a store's samples table into batches.

    Args:
        store: where the samples are.
        scaling: centre and scale, and the known codes; the store's own for training, the bundle's
            for prediction.
        modalities: names of those to give; others are as if absent.
        model: its settings say how many bins, pieces and facts it reads, and whether the samples
            of one stay can share a series.

    Attributes:
        series_of: by time series its events; facts: by each other modality of events what reads it.
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
        if model.series_history and not model.causal_series:
            self.max_bins = max(self.max_bins, HISTORY)
        self.modalities = tuple(store.modalities if modalities is None else modalities)
        kinds = {name: store.modalities[name].kind for name in self.modalities}
        self.scaling = scaling
        self.series_of = {n: OwnEvents(store, n) for n, kind in kinds.items() if kind == SERIES}
        self.facts: dict[str, Facts] = {
            name: KINDS[kind](store, name, scaling[name], model.max_facts)
            for name, kind in kinds.items()
            if kind in KINDS
        }
        names = ("series_first", "series_stop", "series_hours", "film_row")
        self.columns = {name: plain(store.samples[name]) for name in names}
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
            found = READ[self.store.modalities[name].kind](self, evidence, name)
            if found is not None:
                inputs[name] = found
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
        kinds = {name: self.store.modalities[name].kind for name in self.modalities}
        parts = (WORK[kind](self, rows, name) for name, kind in kinds.items())
        return sum(parts, np.zeros(len(rows)))

    def bins(self, rows: Rows, name: str = "series") -> NDArray[np.float64]:
        """(B,) hours of each series that are read."""
        hours = np.minimum(self.columns["series_hours"][rows], self.max_bins)
        return np.where(self.series_of[name].has[rows], hours, 0)

    def pieces(self, rows: Rows) -> Rows:
        """(B,) word pieces of each sample's texts that are read."""
        offsets, values = self.texts
        index, owner = ranges(offsets[rows], offsets[rows + 1])
        first, stop = self.store.embeddings[1][values[index]].T
        count = np.bincount(owner, stop - first, len(rows)).astype(np.int64)
        return np.minimum(count, self.max_pieces)

    def series(self, rows: Rows, name: str = "series") -> Tokens | None:
        """Hourly bins of those of the samples that have this series."""
        own = self.series_of[name]
        having, events = own.of(rows)
        if not len(having):
            return None
        values, observed, count = bin_events(events, own.hours[rows[having]], own.variables)
        kept = np.minimum(count, self.max_bins)
        if values.shape[1] > self.max_bins:
            bins = (count - kept)[:, None] + np.arange(kept.max())[None]
            bins = np.minimum(bins, values.shape[1] - 1)[:, :, None]
            values = np.take_along_axis(values, bins, axis=1)
            observed = np.take_along_axis(observed, bins, axis=1)
        center, scale = (np.array(self.scaling[name][n], np.float32) for n in ("center", "scale"))
        columns = to_columns(values, observed, own.variables, center, scale)
        valid = np.arange(columns.shape[1])[None] < kept[:, None]
        columns[~valid] = 0
        if not self.causal:
            return tokens(columns, valid, having)
        used, of = _shared(columns, kept, own.first[rows[having]])
        return tokens(columns[used], valid[used], having, of, kept)

    def films(self, rows: Rows, name: str = "film") -> Tokens | None:
        """Films of those of the samples that have one, standardised."""
        film = self.columns["film_row"][rows]
        having = np.flatnonzero(film >= 0)
        if not len(having):
            return None
        used, of = np.unique(film[having], return_inverse=True)
        pixels = self.store.films[used].astype(np.float32) / 255
        pixels = (pixels - self.scaling["film"]["mean"]) / self.scaling["film"]["sd"]
        return tokens(pixels.astype(np.float32), np.ones((len(used), 1), bool), having, of)

    def notes(self, rows: Rows, name: str = "note") -> Tokens | None:
        """The first word pieces of the texts of those of the samples that have any."""
        offsets, values = self.texts
        vectors, spans = self.store.embeddings
        index, owner = ranges(offsets[rows], offsets[rows + 1])
        lists = _padded(values[index], owner, len(rows), -1)
        _, used, of = np.unique(lists, axis=0, return_index=True, return_inverse=True)
        index, owner = ranges(offsets[rows[used]], offsets[rows[used] + 1])
        pieces, text = ranges(*spans[values[index]].T)
        length = np.bincount(owner[text], minlength=len(used))
        having = np.flatnonzero(length[of])
        if not len(having):
            return None
        places = _padded(pieces, owner[text], len(used), -1)[:, : self.max_pieces]
        some, valid = length > 0, places >= 0
        found = vectors[places[valid]]
        out = np.zeros((*valid.shape, found.shape[1]), found.dtype)
        out[valid] = found
        return tokens(out[some], valid[some], having, (np.cumsum(some) - 1)[of[having]])


READ: dict[str, Callable[[Loader, Rows, str], Tokens | None]] = {
    "time_series": Loader.series,
    "image": Loader.films,
    "text": Loader.notes,
    **dict.fromkeys(KINDS, lambda loader, rows, name: loader.facts[name](rows)),
}

# Tokens by kind; a film counts as that of the paper's size.
WORK: dict[str, Callable[[Loader, Rows, str], NDArray[Any]]] = {
    "time_series": Loader.bins,
    "image": lambda loader, rows, name: 196 * (loader.columns["film_row"][rows] >= 0),
    "text": lambda loader, rows, name: loader.pieces(rows),
    **dict.fromkeys(KINDS, lambda loader, rows, name: loader.facts[name].work(rows)),
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


def _ragged(column: pa.ChunkedArray) -> tuple[Rows, NDArray[Any]]:
    """Offsets (n + 1) and values of a list column."""
    lists = pa.concat_arrays(column.chunks) if column.num_chunks else column.combine_chunks()
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return offsets, lists.values.to_numpy(zero_copy_only=False)
