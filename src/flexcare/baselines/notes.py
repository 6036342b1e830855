"""The texts of a sample in a few numbers: the main directions in which mean word vectors differ."""

from functools import cached_property

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from flexcare.loading.loader import Loader

COMPONENTS = 32
PIECES_AT_ONCE = 100_000
Rows = NDArray[np.int64]
Floats = NDArray[np.float32]


class Notes:
    """Principal components, learned from the texts of the training split, of mean word vectors."""

    def __init__(self, loader: Loader) -> None:
        self.vectors, self.spans = loader.store.embeddings
        self.texts, self.samples = loader.texts, loader.store.samples
        # Word pieces of each text.
        self.size: Rows = np.asarray(self.spans[:, 1] - self.spans[:, 0])
        self.width = min(COMPONENTS, self.vectors.shape[1])
        self.names = ["texts", "word pieces", *(f"note {i}" for i in range(self.width))]

    def __call__(self, rows: Rows) -> Floats:
        """(n, len(names)); a sample without texts has 0, 0 and NaN."""
        offsets, values = self.texts
        count = offsets[rows + 1] - offsets[rows]
        owner = np.repeat(np.arange(len(rows)), count)
        at = np.arange(count.sum()) + np.repeat(offsets[rows] - np.cumsum(count) + count, count)
        pieces = np.bincount(owner, self.size[values[at]], len(rows))
        out = np.full((len(rows), len(self.names)), np.nan, np.float32)
        out[:, 0], out[:, 1] = count, pieces
        sums = np.zeros((len(rows), self.width))
        np.add.at(sums, owner, self.components[values[at]] * self.size[values[at], None])
        out[pieces > 0, 2:] = (sums / np.maximum(pieces, 1)[:, None])[pieces > 0]
        return out

    @cached_property
    def components(self) -> Floats:
        """(texts, width) of the mean vector of each text of the store."""
        means = self._means()
        used = pc.filter(self.samples["text_rows"], pc.equal(self.samples["split"], "train"))
        training = np.unique(pc.list_flatten(used).to_numpy())
        known = means[training[self.size[training] > 0]].astype(np.float64)
        if not len(known):
            return np.zeros((len(means), self.width), np.float32)
        spread = known - known.mean(0)
        directions = np.linalg.eigh(spread.T @ spread)[1][:, ::-1][:, : self.width]
        components: Floats = ((means - known.mean(0)) @ directions).astype(np.float32)
        return components

    def _means(self) -> Floats:
        """(texts, encoder width); of a text without pieces 0."""
        out = np.zeros((len(self.spans), self.vectors.shape[1]), np.float32)
        # Equal texts share their pieces, and those of different ones lie one after the other.
        spans, place = np.unique(self.spans[self.size > 0], axis=0, return_inverse=True)
        means = np.empty((len(spans), out.shape[1]), np.float32)
        for part in np.split(
            np.arange(len(spans)), np.flatnonzero(np.diff(spans[:, 0] // PIECES_AT_ONCE)) + 1
        ):
            if len(part):
                begin, end = spans[part[0], 0], spans[part[-1], 1]
                pieces = self.vectors[begin:end].astype(np.float32)
                sums = np.add.reduceat(pieces, spans[part, 0] - begin)
                means[part] = sums / (spans[part, 1] - spans[part, 0])[:, None]
        out[self.size > 0] = means[place.reshape(-1)]
        return out
