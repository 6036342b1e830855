"""One modality's part of the events of a store, and what is no series of them as tokens.

Series, which take more, are read by loading.loader.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from flexcare.batch import Tokens
from flexcare.errors import UserError
from flexcare.features.facts import code_values, distinct_facts, field_columns, last_values
from flexcare.features.scaling import code_numbers
from flexcare.features.series import Events
from flexcare.features.variables import own_numbers, variable_set
from flexcare.features.waves import standardised
from flexcare.store import HAS, Store

Rows = NDArray[np.int64]
SAMPLES_OF_TOKEN = 50  # of a wave, about


class OwnEvents:
    """The events of one modality of a store.

    Attributes:
        variables: of the modality.
        numbers: see features.variables.own_numbers.
        has: (samples,) which samples have the modality.
    """

    def __init__(self, store: Store, name: str) -> None:
        settings = store.modalities[name].settings
        self.store = store
        self.variables = variable_set(settings["variables"], f"store {store.path}")
        if self.variables.columns() != settings["columns"]:
            raise UserError(
                f"the manifest of store {store.path} contradicts itself",
                found="variables in another order than the columns",
                expected="the manifest that `flexcare prepare` wrote",
                do="Prepare the store again.",
            )
        self.numbers = own_numbers(self.variables, store.variables)
        self.has = plain(store.samples[HAS + name])
        names = ("series_first", "series_stop", "series_hours")
        self.first, self.stop, self.hours = (plain(store.samples[n]) for n in names)

    def of(self, rows: Rows) -> tuple[Rows, Events]:
        """Which of the samples have the modality, and the events of these, numbered as the
        modality numbers its variables."""
        having = np.flatnonzero(self.has[rows])
        chosen = rows[having]
        index, sample = ranges(self.first[chosen], self.stop[chosen])
        index, variable, mine = self.own(index)
        sample = sample if mine is None else sample[mine]
        values = {n: a[index] for n, a in self.store.events.items() if n != "variable"}
        return having, Events(sample, variable=variable, **values)

    def own(self, index: Rows) -> tuple[Rows, NDArray[Any], NDArray[np.bool_] | None]:
        """Those of the events (n,) that are of this modality, their variables, and which of the n
        they are (None: all)."""
        variable = self.store.events["variable"][index]
        if self.numbers is None:
            return index, variable, None
        variable = self.numbers[variable]
        mine = variable >= 0
        return index[mine], variable[mine], mine


class Static(OwnEvents):
    """Samples -> one token a field."""

    def __init__(self, store: Store, name: str, scaling: dict[str, Any], most: int) -> None:
        super().__init__(store, name)
        self.center = np.array(scaling["center"], np.float32)
        self.scale = np.array(scaling["scale"], np.float32)

    def last(self, rows: Rows) -> tuple[Rows, NDArray[np.float32]]:
        """Which samples have a field, and (of these, fields) values in their units, or NaN."""
        having, events = self.of(rows)
        return having, last_values(events, self.hours[rows[having]], len(self.variables.names))

    def __call__(self, rows: Rows) -> Tokens | None:
        """(n, fields, columns); samples that know the same share a sequence."""
        having, values = self.last(rows)
        if not len(having):
            return None
        # By their bits, of which a NaN's are equal too.
        _, used, of = np.unique(
            values.view(np.int32), axis=0, return_index=True, return_inverse=True
        )
        values = values[used]
        columns = field_columns(values, self.variables, self.center, self.scale)
        return tokens(columns, ~np.isnan(values), having, of.reshape(-1))

    def work(self, rows: Rows) -> NDArray[Any]:
        """(B,) about how many tokens each has."""
        return self.has[rows] * len(self.variables.names)


class Codes(OwnEvents):
    """Samples -> one token a distinct code that the training split knew.

    Attributes:
        known: by variable, the number among all known codes of each of the store's; -1: unknown.
    """

    def __init__(self, store: Store, name: str, scaling: dict[str, Any], most: int) -> None:
        super().__init__(store, name)
        self.most, self.known, first = most, [], 0
        for variable in self.variables.names:
            known = scaling["codes"][variable]
            self.known.append(code_numbers(store.codes[variable], known, first))
            first += len(known)

    def of(self, rows: Rows) -> tuple[Rows, Events]:
        """As `OwnEvents.of`, of known codes alone; their values are their numbers."""
        having, events = super().of(rows)
        number = np.full(len(events.value), -1)
        for variable, known in enumerate(self.known):
            mine = events.variable == variable
            number[mine] = known[events.value[mine].astype(np.int64)]
        there = number >= 0
        parts = {n: getattr(events, n)[there] for n in ("sample", "seconds", "available")}
        # A code of one variable is another than the same of the next, so the number says it all.
        one = np.zeros(there.sum(), np.int16)
        return having, Events(**parts, variable=one, value=number[there].astype(np.float32))

    def __call__(self, rows: Rows) -> Tokens | None:
        """(n, L, 2), see features.facts.code_values."""
        having, events = self.of(rows)
        facts = distinct_facts(events, self.hours[rows[having]], self.most)
        values, valid = code_values(facts, len(having))
        some = valid.any(1)
        return tokens(values[some], valid[some], having[some]) if some.any() else None

    def work(self, rows: Rows) -> NDArray[Any]:
        """(B,) about how many tokens each has: as many as events at most."""
        events = np.minimum(self.stop[rows] - self.first[rows], self.most)
        return np.where(self.has[rows], events, 0)


class Vectors(OwnEvents):
    """Samples -> one token a vector."""

    def __init__(self, store: Store, name: str, scaling: dict[str, Any], most: int) -> None:
        super().__init__(store, name)
        self.most = most
        self.center = np.array(scaling["center"], np.float32)
        self.scale = np.array(scaling["scale"], np.float32)

    def __call__(self, rows: Rows) -> Tokens | None:
        """(n, L, width), standardised; samples that know the same share a sequence."""
        having, events = self.of(rows)
        facts = distinct_facts(events, self.hours[rows[having]], self.most)
        if not len(facts.sample):
            return None
        length = int(facts.place.max()) + 1
        lists = np.full((len(having), length, 2), -1)
        lists[facts.sample, facts.place] = np.stack([facts.variable, facts.value], 1)
        some = lists[:, 0, 0] >= 0
        used, of = np.unique(lists[some], axis=0, return_inverse=True)
        valid = used[..., 0] >= 0
        out = np.zeros((*valid.shape, len(self.center)), np.float32)
        out[valid] = (self.raw(*used[valid].T) - self.center) / self.scale
        return tokens(out, valid, having[some], of.reshape(-1))

    def raw(self, variable: Rows, row: Rows) -> NDArray[np.float32]:
        """(n, width) the vectors as they are."""
        out = np.empty((len(row), len(self.center)), np.float32)
        for number, name in enumerate(self.variables.names):
            mine = variable == number
            if mine.any():
                out[mine] = self.store.vectors(name)[row[mine]]
        return out

    def work(self, rows: Rows) -> NDArray[Any]:
        """(B,) about how many tokens each has: seldom more than one a variable."""
        return self.has[rows] * len(self.variables.names)


class Waves(OwnEvents):
    """Samples -> the wave seen last, standardised."""

    def __init__(self, store: Store, name: str, scaling: dict[str, Any], most: int) -> None:
        super().__init__(store, name)
        self.samples = store.modalities[name].width
        self.center = np.array(scaling["center"], np.float32)
        self.scale = np.array(scaling["scale"], np.float32)

    def __call__(self, rows: Rows) -> Tokens | None:
        """(n, channels, samples); samples that know the same wave share it."""
        having, used, of = self.last(rows)
        if not len(having):
            return None
        waves = standardised(self.raw(*used.T), self.center, self.scale)
        valid = np.asarray(~np.isnan(waves).all((1, 2)))[:, None]
        return tokens(waves, valid, having, of)

    def last(self, rows: Rows) -> tuple[Rows, Rows, Rows]:
        """Which samples have a wave, the different (variable, row) pairs (n, 2) that they saw last,
        and which of these each of them did."""
        having, events = self.of(rows)
        facts = distinct_facts(events, self.hours[rows[having]], 1)
        pairs = np.stack([facts.variable, facts.value], 1)
        used, of = np.unique(pairs, axis=0, return_inverse=True)
        return having[facts.sample], used, of.reshape(-1)

    def raw(self, variable: Rows, row: Rows) -> NDArray[np.float32]:
        """(n, channels, samples) the waves as they are."""
        out = np.empty((len(row), len(self.center), self.samples), np.float32)
        for number, name in enumerate(self.variables.names):
            mine = variable == number
            if mine.any():
                out[mine] = self.store.waves(name)[row[mine]]
        return out

    def work(self, rows: Rows) -> NDArray[Any]:
        """(B,) about how many tokens each has."""
        return self.has[rows] * (self.samples // SAMPLES_OF_TOKEN)


# By kind of modality; series are loading.loader's.
Facts = Static | Codes | Vectors | Waves
KINDS: dict[str, Callable[[Store, str, dict[str, Any], int], Facts]] = {
    "static": Static,
    "codes": Codes,
    "embedding": Vectors,
    "wave": Waves,
}


def ranges(first: Rows, stop: Rows) -> tuple[Rows, Rows]:
    """All numbers of the ranges [first, stop), one range after the other, and whose each is."""
    size = stop - first
    owner = np.repeat(np.arange(len(first)), size)
    start = np.cumsum(size) - size
    return np.arange(size.sum()) - np.repeat(start - first, size), owner


def tokens(
    values: NDArray[Any],
    valid: NDArray[np.bool_],
    rows: Rows,
    of: Rows | None = None,
    until: Rows | None = None,
) -> Tokens:
    """The same as tensors; the values become float32."""
    # torch widens half precision several times faster than numpy.
    given = torch.from_numpy(values).float(), torch.from_numpy(valid), torch.from_numpy(rows)
    shared, part = (None if x is None else torch.from_numpy(x) for x in (of, until))
    return Tokens(*given, shared, part)


def plain(column: pa.ChunkedArray) -> NDArray[Any]:
    """A column as an array."""
    out: NDArray[Any] = column.combine_chunks().to_numpy(zero_copy_only=False)
    return out
