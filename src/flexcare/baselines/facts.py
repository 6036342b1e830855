"""Static fields, codes, vectors and waves of a sample in a few numbers."""

from itertools import pairwise

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from flexcare.features.facts import distinct_facts
from flexcare.loading.events import Codes as CodesOf
from flexcare.loading.events import Static as StaticOf
from flexcare.loading.events import Vectors as VectorsOf
from flexcare.loading.events import Waves as WavesOf
from flexcare.loading.loader import Loader

BANDS = 5  # of a wave's power, each twice as fast as the one before
MOST_CODES = 64  # codes with a column of their own
ALL = 2**31  # facts of a sample: none is left out
SAMPLES_AT_ONCE = 20_000
Rows = NDArray[np.int64]
Floats = NDArray[np.float32]


class Static:
    """The last visible value of each field: a number, or the category's number."""

    def __init__(self, loader: Loader, name: str) -> None:
        self.own = loader.facts[name]
        self.names = list(self.own.variables.names)

    def __call__(self, rows: Rows) -> Floats:
        """(n, fields), NaN where nothing is known."""
        assert isinstance(self.own, StaticOf)
        having, values = self.own.last(rows)
        out = np.full((len(rows), len(self.names)), np.nan, np.float32)
        out[having] = values
        return out


class Codes:
    """How many codes are known, and which of those that most training samples have."""

    def __init__(self, loader: Loader, name: str) -> None:
        own = loader.facts[name]
        assert isinstance(own, CodesOf)
        self.own = own
        known = loader.scaling[name]["codes"]
        texts = [f"{variable} {code}" for variable in own.variables.names
                 for code in known[variable]]  # fmt: skip
        training = np.flatnonzero(pc.equal(loader.store.samples["split"], "train").to_numpy())
        count = np.zeros(len(texts), np.int64)
        for first in range(0, len(training), SAMPLES_AT_ONCE):
            _, codes = self._known(training[first : first + SAMPLES_AT_ONCE])
            count += np.bincount(codes, minlength=len(texts))
        self.chosen = np.argsort(-count, kind="stable")[:MOST_CODES]
        self.names = [f"{name} count", *(f"has {texts[code]}" for code in self.chosen)]

    def __call__(self, rows: Rows) -> Floats:
        """(n, 1 + chosen codes): their number, and 1 or 0 for each."""
        sample, codes = self._known(rows)
        out = np.zeros((len(rows), len(self.names)), np.float32)
        out[:, 0] = np.bincount(sample, minlength=len(rows))
        place = np.zeros(max(int(self.chosen.max(initial=0)), int(codes.max(initial=0))) + 1, int)
        place[self.chosen] = np.arange(1, len(self.names))
        there = place[codes] > 0
        out[sample[there], place[codes[there]]] = 1
        return out

    def _known(self, rows: Rows) -> tuple[Rows, Rows]:
        """Each distinct code that is visible: whose it is, and its number."""
        having, events = self.own.of(rows)
        facts = distinct_facts(events, self.own.hours[rows[having]], ALL)
        return having[facts.sample], facts.value


class Vectors:
    """The mean of the vectors of a sample."""

    def __init__(self, loader: Loader, name: str) -> None:
        own = loader.facts[name]
        assert isinstance(own, VectorsOf)
        self.own = own
        self.names = [f"{name} {number}" for number in range(len(own.center))]

    def __call__(self, rows: Rows) -> Floats:
        """(n, width), NaN where there is none."""
        having, events = self.own.of(rows)
        facts = distinct_facts(events, self.own.hours[rows[having]], ALL)
        sums = np.zeros((len(rows), len(self.names)))
        np.add.at(sums, having[facts.sample], self.own.raw(facts.variable, facts.value))
        count = np.bincount(having[facts.sample], minlength=len(rows))[:, None]
        with np.errstate(invalid="ignore"):
            return (sums / count).astype(np.float32)


class Waves:
    """Of each channel of the wave seen last how it lies, how far it goes, and how fast it moves."""

    def __init__(self, loader: Loader, name: str) -> None:
        own = loader.facts[name]
        assert isinstance(own, WavesOf)
        self.own = own
        parts = ["missing", "mean", "deviation", "lowest", "highest", "step"]
        parts += [f"power {band}" for band in range(BANDS)]
        (variable, *_) = own.variables.variables.values()
        self.names = [f"{name} {channel} {part}" for part in parts for channel in variable.channels]

    def __call__(self, rows: Rows) -> Floats:
        """(n, channels x parts), NaN where there is no wave or no channel."""
        having, used, of = self.own.last(rows)
        out = np.full((len(rows), len(self.names)), np.nan, np.float32)
        out[having] = wave_numbers(self.own.raw(*used.T))[of]
        return out


def wave_numbers(waves: Floats) -> Floats:
    """(n, channels, samples) -> (n, parts x channels).

    Share missing, mean, deviation, lowest, highest, mean absolute step from sample to sample, and
    the logarithm of the power in octaves of frequency, the fastest last; gaps are the mean.
    """
    gaps = np.isnan(waves)
    there = (~gaps).sum(-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        mean = np.where(gaps, 0, waves).sum(-1, keepdims=True) / there
    filled = np.where(gaps, mean, waves)
    power = np.abs(np.fft.rfft(filled - mean)) ** 2
    octave = [power.shape[-1] >> band for band in range(BANDS, -1, -1)]
    bands = [power[..., low:high].sum(-1) for low, high in pairwise(octave)]
    parts = [
        gaps.mean(-1),
        mean[..., 0],
        filled.std(-1),
        filled.min(-1),
        filled.max(-1),
        np.abs(np.diff(filled)).mean(-1),
        *(np.log1p(band) for band in bands),
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)
