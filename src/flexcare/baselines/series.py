"""What was seen of every variable up to a moment, in a few numbers, for many samples at once."""

import numpy as np
from numpy.typing import NDArray

from flexcare.features.series import HOUR, bins_until, whole_seconds
from flexcare.loading.events import ranges
from flexcare.loading.loader import Loader

STATISTICS = ("last", "mean", "lowest", "highest", "first", "count", "hours since last")
COUNT = STATISTICS.index("count")
Rows = NDArray[np.int64]
Floats = NDArray[np.float32]
Ranges = tuple[Rows, Rows]  # first and stop


class Series:
    """Statistics of each variable of a series; `names` are those of the columns."""

    def __init__(self, loader: Loader, name: str = "series") -> None:
        self.events, self.own = loader.store.events, loader.series_of[name]
        variables = self.own.variables.names
        self.variables = len(variables)
        self.names = [f"{variable} {name}" for variable in variables for name in STATISTICS]

    def __call__(self, rows: Rows) -> Floats:
        """What is visible of each variable up to the prediction time.

        An event counts if it happened and was available by then; one charted before admission
        counts too, since it seeds the network's series. First and last are by time, and of equal
        times by what the store says wins. Categories are their numbers.

        Args:
            rows: (n,) sample rows; the events of all their stays are held at once.

        Returns:
            (n, variables * len(STATISTICS)), a variable's beside each other; without a value the
            count is 0 and the others NaN.
        """
        out = np.full((len(rows), self.variables, len(STATISTICS)), np.nan, np.float32)
        out[..., COUNT] = 0
        # The network has no bin before the first moment, and so sees nothing then.
        bins = bins_until(self.own.hours[rows])
        having = np.flatnonzero(self.own.has[rows] & (bins > 0))
        if len(having):
            first = self.own.first[rows[having]]
            having = having[np.argsort(first, kind="stable")]
            out[having] = self._statistics(rows[having])
        return out.reshape(len(rows), -1)

    def _statistics(self, rows: Rows) -> Floats:
        """(n, variables, statistics) of samples with a series, sorted by stay."""
        hours = self.own.hours[rows]
        index, (first, stop) = self._visible(rows, whole_seconds(hours))
        count = stop - first
        some = count > 0
        # reduceat reduces each range, and then the gap to the next, which is skipped; the entry
        # at the end makes a gap there possible.
        ranges = np.stack([first[some], stop[some]], 1).reshape(-1)
        values = np.append(self.events["value"][index].astype(np.float64), 0)
        latest = np.maximum.reduceat(np.append(index, 0), ranges)[::2]
        earliest = np.minimum.reduceat(np.append(index, 0), ranges)[::2]
        asked = np.broadcast_to(hours[:, None], count.shape)[some]
        out = np.full((*count.shape, len(STATISTICS)), np.nan, np.float32)
        out[some] = np.stack(
            [
                self.events["value"][latest],
                np.add.reduceat(values, ranges)[::2] / count[some],
                np.minimum.reduceat(values, ranges)[::2],
                np.maximum.reduceat(values, ranges)[::2],
                self.events["value"][earliest],
                count[some],
                asked - self.events["seconds"][latest] / HOUR,
            ],
            axis=1,
        )
        out[..., COUNT] = count
        return out

    def _visible(self, rows: Rows, until: Rows) -> tuple[Rows, Ranges]:
        """The stays' events so sorted that what a sample sees of a variable is one range.

        Args:
            until: (n,) prediction times in seconds from ICU admission.

        Returns:
            places of the events in the store, and (n, variables) ranges of these places.
        """
        spans = np.stack([self.own.first[rows], self.own.stop[rows]], 1)
        stays, stay = np.unique(spans, axis=0, return_inverse=True)
        index, owner = ranges(*stays.T)
        index, variable, mine = self.own.own(index)
        owner = owner if mine is None else owner[mine]
        seen = np.maximum(self.events["seconds"][index], self.events["available"][index])
        low = min(int(seen.min(initial=0)), int(until.min()))
        width = max(int(seen.max(initial=0)), int(until.max())) - low + 1
        group = owner * self.variables + variable
        key = group * width + (seen.astype(np.int64) - low)
        order = np.argsort(key, kind="stable")
        begin = (stay.reshape(-1, 1) * self.variables + np.arange(self.variables)) * width
        first = np.searchsorted(key[order], begin)
        stop = np.searchsorted(key[order], begin + (until - low)[:, None], side="right")
        return index[order], (first, stop)
