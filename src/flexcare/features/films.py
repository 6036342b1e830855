"""A film as the model sees it: grey, short side scaled, centre cut out (SPEC 5)."""

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

SHORT_SIDE = 256 / 224  # of the side that is kept
AHEAD = 4  # films a thread may be ahead of their use
Film = NDArray[np.uint8]


class UnreadableFilm(Exception):
    """The file is no JPEG that can be decoded."""


def read_films(paths: Iterable[Path], side: int) -> Iterator[Film | None]:
    """Decode many JPEG files on all cores, and give them in order.

    Returns:
        for each path what `read_film` gives; None where it cannot be read.
    """
    threads = os.cpu_count() or 1
    waiting: deque[Future[Film | None]] = deque()
    with ThreadPoolExecutor(threads) as pool:  # the decoder works outside the interpreter's lock
        for path in paths:
            waiting.append(pool.submit(_film_or_none, path, side))
            if len(waiting) == threads * AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _film_or_none(path: Path, side: int) -> Film | None:
    try:
        return read_film(path, side)
    except (UnreadableFilm, OSError):
        return None


def read_film(path: Path, side: int) -> Film:
    """Decode a JPEG file: short side to side * 256/224, then the centre square of `side` pixels.

    Returns:
        (side, side) uint8, 0 black.

    Raises:
        UnreadableFilm: truncated, empty or not a JPEG.
        FileNotFoundError: no such file.
    """
    data = path.read_bytes()
    grey: Film
    try:
        # The decoder scales by eighths while decoding, which costs less than decoding whole.
        least = int(side * SHORT_SIDE)
        grey = simplejpeg.decode_jpeg(
            data, colorspace="GRAY", min_height=least, min_width=least, min_factor=1, strict=True
        )[..., 0]
    except ValueError as error:
        raise UnreadableFilm(str(error)) from error
    return centre(grey, side)


def centre(grey: Film, side: int) -> Film:
    """Scale a (height, width) uint8 picture's short side to side * 256/224 and cut the centre.

    Bilinear, with the area of source pixels averaged when shrinking.
    """
    height, width = grey.shape
    factor = round(side * SHORT_SIDE) / min(height, width)
    flat = _scaled(grey, round(height * factor), side)
    picture = _scaled(flat.T, round(width * factor), side).T
    out: Film = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return out


def _scaled(picture: NDArray[Any], target: int, kept: int) -> NDArray[np.float32]:
    """(n, m) -> (kept, m): the rows scaled to `target`, of which the middle ones stay."""
    index, weights = _filter(len(picture), target, kept)
    rows = np.ascontiguousarray(picture)
    out = np.zeros((kept, rows.shape[1]), np.float32)
    # Not a matrix product: its library's threads would fight those that decode.
    for place, weight in zip(index, weights, strict=True):
        out += weight[:, None] * rows[place]
    return out


@lru_cache(maxsize=64)  # a clinic has few sizes of film
def _filter(source: int, target: int, kept: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Of a triangle filter for the middle `kept` of `target` pixels: which source pixels each is
    made of and their weights, both (pixels within reach, kept)."""
    step = source / target
    reach = max(step, 1.0)
    first = (target - kept) // 2
    at = (np.arange(first, first + kept) + 0.5) * step - 0.5
    index = (np.floor(at - reach) + 1).astype(np.int64) + np.arange(math.ceil(2 * reach))[:, None]
    weights = np.maximum(0, 1 - np.abs(index - at) / reach) * ((index >= 0) & (index < source))
    return index.clip(0, source - 1), (weights / weights.sum(0)).astype(np.float32)
