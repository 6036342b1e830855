"""What is known of a sample as one row of numbers, for models that take no sequence."""

import re
from collections.abc import Callable, Collection, Iterator
from typing import Protocol, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flexcare.baselines.facts import Codes, Static, Vectors, Waves
from flexcare.baselines.films import Films
from flexcare.baselines.notes import Notes
from flexcare.baselines.series import Series
from flexcare.config import Person
from flexcare.errors import unknown
from flexcare.loading.loader import Loader
from flexcare.store import GROUP, Store

PERSON: tuple[str, ...] = get_args(Person)
EVENTS_AT_ONCE, SAMPLES_AT_ONCE = 2_000_000, 20_000
Rows = NDArray[np.int64]
Floats = NDArray[np.float32]


class Summaries:
    """Sample rows -> rows of numbers, NaN where nothing is known.

    A sample's own row of the store says what it may use: nothing after the prediction time.

    Args:
        modalities: those that are seen; None: all of the store.
        person: which of `PERSON` are columns, too.

    Attributes:
        names: of the columns.
    """

    def __init__(
        self,
        store: Store,
        modalities: Collection[str] | None = None,
        person: Collection[str] = PERSON,
    ) -> None:
        for name in modalities or ():
            if name not in store.modalities:
                raise unknown("modality", name, store.modalities, f"Store {store.path} has these.")
        loader = Loader(store, store.manifest["scaling"], modalities)
        self.columns = loader.columns
        kinds = {name: store.modalities[name].kind for name in loader.modalities}
        known: list[Part] = [PARTS[kind](loader, name) for name, kind in kinds.items()]
        self.parts = [_Person(store, person), *known]
        self.names = [name for part in self.parts for name in part.names]

    def __call__(self, rows: Rows) -> Floats:
        """(len(rows), len(names)) float32, whatever the number of rows."""
        out = np.empty((len(rows), len(self.names)), np.float32)
        for places, numbers in self.chunks(rows):
            out[places] = numbers
        return out

    def chunks(self, rows: Rows) -> Iterator[tuple[Rows, Floats]]:
        """Places in `rows` and their numbers, so many at a time that memory stays small.

        Samples of one stay come together, so the places are not in order.
        """
        first, stop = (self.columns[name][rows] for name in ("series_first", "series_stop"))
        order = np.argsort(first, kind="stable")
        new = np.append(True, np.diff(first[order]) > 0)[: len(rows)]
        work = np.cumsum(new * (stop - first)[order]) / EVENTS_AT_ONCE
        work += np.arange(len(rows)) / SAMPLES_AT_ONCE
        for places in np.split(order, np.flatnonzero(np.diff(np.floor(work))) + 1):
            if len(places):
                yield places, np.concatenate([part(rows[places]) for part in self.parts], axis=1)


class Part(Protocol):
    """Numbers of one modality: sample rows (n,) -> (n, len(names))."""

    names: list[str]

    def __call__(self, rows: Rows) -> Floats: ...


class _Person:
    """Hours since ICU admission; age band and sex as numbers in their natural order."""

    def __init__(self, store: Store, wanted: Collection[str]) -> None:
        there = store.samples.column_names
        self.names = [n for n in PERSON if n in wanted and (n == "hours" or GROUP + n in there)]
        self.table = np.empty((store.samples.num_rows, len(self.names)), np.float32)
        for place, name in enumerate(self.names):
            self.table[:, place] = self._numbers(store, name)

    def _numbers(self, store: Store, name: str) -> NDArray[np.float64]:
        """(samples,), NaN where it is not known."""
        if name == "hours":
            hours: NDArray[np.float64] = store.samples["hours"].to_numpy()
            return hours
        groups = store.samples[GROUP + name]
        known = sorted(pc.unique(groups).drop_null().to_pylist(), key=_natural)
        place = pc.index_in(groups, value_set=pa.array(known, pa.string()))
        numbers: NDArray[np.float64] = place.cast(pa.float64()).to_numpy()
        return numbers

    def __call__(self, rows: Rows) -> Floats:
        return self.table[rows]


def _natural(group: str) -> tuple[int, bool, str]:
    """By the first number in a name, "under 45" before "45-64"."""
    number = re.search(r"\d+", group)
    return int(number[0]) if number else 0, group[0].isdigit(), group


# By kind of modality.
PARTS: dict[str, Callable[[Loader, str], "Part"]] = {
    "time_series": Series,
    "image": lambda loader, name: Films(loader),
    "text": lambda loader, name: Notes(loader),
    "static": Static,
    "codes": Codes,
    "embedding": Vectors,
    "wave": Waves,
}
