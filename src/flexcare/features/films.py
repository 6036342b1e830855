"""A film as the model sees it: grey, short side scaled, centre cut out (SPEC 5)."""

from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

SHORT_SIDE = 256 / 224  # of the side that is kept


class UnreadableFilm(Exception):
    """The file is no JPEG that can be decoded."""


def read_film(path: Path, side: int) -> NDArray[np.uint8]:
    """Decode a JPEG file: short side to side * 256/224, then the centre square of `side` pixels.

    Returns:
        (side, side) uint8, 0 black.

    Raises:
        UnreadableFilm: truncated, empty or not a JPEG.
        FileNotFoundError: no such file.
    """
    data = path.read_bytes()
    grey: NDArray[np.uint8]
    try:
        # The decoder scales by eighths while decoding, which costs less than decoding whole.
        least = int(side * SHORT_SIDE)
        grey = simplejpeg.decode_jpeg(
            data, colorspace="GRAY", min_height=least, min_width=least, min_factor=1, strict=True
        )[..., 0]
    except ValueError as error:
        raise UnreadableFilm(str(error)) from error
    return centre(grey, side)


def centre(grey: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Scale a (height, width) uint8 picture's short side to side * 256/224 and cut the centre.

    Bilinear, with the area of source pixels averaged when shrinking.
    """
    height, width = grey.shape
    factor = round(side * SHORT_SIDE) / min(height, width)
    rows = _weights(height, round(height * factor), side)
    columns = _weights(width, round(width * factor), side)
    picture = rows @ grey.astype(np.float32) @ columns.T
    out: NDArray[np.uint8] = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return out


def _weights(source: int, target: int, kept: int) -> NDArray[np.float32]:
    """(kept, source) weights of a triangle filter for the middle `kept` of `target` pixels."""
    step = source / target
    first = (target - kept) // 2
    at = (np.arange(first, first + kept) + 0.5) * step - 0.5
    support = max(step, 1.0)
    weights = np.maximum(0, 1 - np.abs(np.arange(source)[None] - at[:, None]) / support)
    normed: NDArray[np.float32] = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return normed
