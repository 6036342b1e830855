"""A film in a few numbers: how bright its parts are, and which way the edges in them run."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flexcare.loading.loader import Loader

BRIGHT, EDGES = 8, 4  # blocks a side
DIRECTIONS = ("across", "down", "diagonal")
FILMS_AT_ONCE = 64
Rows = NDArray[np.int64]
Floats = NDArray[np.float32]


class Films:
    """Block means of each film's brightness and of the products of its two slopes."""

    def __init__(self, loader: Loader) -> None:
        self.films, self.film_row = loader.store.films, loader.columns["film_row"]
        self.names = ["has film"]
        self.names += [f"film brightness {i}" for i in range(BRIGHT**2)]
        self.names += [f"film edges {name} {i}" for name in DIRECTIONS for i in range(EDGES**2)]

    def __call__(self, rows: Rows) -> Floats:
        """(n, len(names)); a sample without film has 0 and NaN."""
        film = self.film_row[rows]
        out = np.full((len(rows), len(self.names)), np.nan, np.float32)
        out[:, 0] = film >= 0
        out[film >= 0, 1:] = self.numbers[film[film >= 0]]
        return out

    @cached_property
    def numbers(self) -> Floats:
        """(films, len(names) - 1) of every film of the store."""
        out = np.empty((len(self.films), len(self.names) - 1), np.float32)
        for first in range(0, len(self.films), FILMS_AT_ONCE):
            part = self.films[first : first + FILMS_AT_ONCE].astype(np.float32)
            across, down = (
                part[:, :-1, 1:] - part[:, :-1, :-1],
                part[:, 1:, :-1] - part[:, :-1, :-1],
            )
            pictures = (across * across, down * down, across * down)
            numbers = [_blocks(part, BRIGHT), *(_blocks(picture, EDGES) for picture in pictures)]
            out[first : first + FILMS_AT_ONCE] = np.concatenate(numbers, axis=1)
        return out


def _blocks(pictures: Floats, blocks: int) -> Floats:
    """(n, height, width) -> (n, blocks²): the means of blocks as equal as pixels allow."""
    edges = [np.linspace(0, size, blocks + 1).astype(int) for size in pictures.shape[1:]]
    rows = np.add.reduceat(pictures, edges[0][:-1], axis=1)
    sums = np.add.reduceat(rows, edges[1][:-1], axis=2)
    area = np.outer(np.diff(edges[0]), np.diff(edges[1]))
    means: Floats = (sums / area).astype(np.float32).reshape(len(pictures), -1)
    return means
