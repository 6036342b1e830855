"""A recorded wave, an ECG say, as the model sees it: its channels in order, standardised (SPEC 5).

A record is a Parquet file with a column a channel and a row a sample. A channel that has no column,
and a sample that is null or not finite, is missing: NaN.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flexcare.errors import UserError

AHEAD = 256  # records that are read before they are used
Wave = NDArray[np.float32]


class UnusableWave(Exception):
    """A record is not what its variable says."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(f"{found} instead of {expected}")
        self.found, self.expected = found, expected


def read_waves(paths: Sequence[Path], channels: Sequence[str], samples: int) -> Iterator[Wave]:
    """Read many records on all cores, and give them in order.

    Raises:
        UserError: one cannot be used.
    """

    def read(path: Path) -> Wave:
        try:
            return read_wave(path, channels, samples)
        except UnusableWave as fault:
            raise UserError(
                f"record {path.name} cannot be used", found=fault.found, expected=fault.expected
            ) from None

    with ThreadPoolExecutor() as pool:
        for first in range(0, len(paths), AHEAD):
            yield from pool.map(read, paths[first : first + AHEAD])


def check_wave(path: Path, channels: Sequence[str], samples: int) -> None:
    """Look at a record's end, where the file says what is in it.

    Raises:
        UnusableWave: no such file or a truncated one, other columns than channels, another length.
    """
    if not path.is_file():
        raise UnusableWave(f"{path.name}, which is not there", "the path of a file")
    try:
        about = pq.read_metadata(path)
    except (OSError, pa.ArrowInvalid):
        raise UnusableWave(f"{path.name}, which cannot be read", "a whole Parquet file") from None
    schema = about.schema.to_arrow_schema()
    for field in schema:
        number = pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
        if field.name not in channels or not number:
            raise UnusableWave(
                f"column {field.name} of {field.type}",
                "numbers in columns of its channels: " + ", ".join(channels),
            )
    if not schema.names:
        raise UnusableWave("no column", "at least one channel of " + ", ".join(channels))
    if about.num_rows != samples:
        raise UnusableWave(f"{about.num_rows:,} samples", f"{samples:,} samples")


def read_wave(path: Path, channels: Sequence[str], samples: int) -> Wave:
    """(channels, samples) of a record, NaN where it has nothing.

    Raises:
        UnusableWave: as `check_wave`, or a file that is damaged within.
    """
    check_wave(path, channels, samples)
    try:
        table = pq.read_table(path, use_threads=False)
    except (OSError, pa.ArrowInvalid):
        raise UnusableWave(f"{path.name}, which is damaged", "a whole Parquet file") from None
    return wave_of({name: table[name].to_numpy() for name in table.column_names}, channels, samples)


def wave_of(given: dict[str, Any], channels: Sequence[str], samples: int) -> Wave:
    """(channels, samples) of the samples of each channel; NaN where there is none.

    Raises:
        ValueError: an unknown channel, or another number of samples.
    """
    out = np.full((len(channels), samples), np.nan, np.float32)
    for name, values in given.items():
        out[channels.index(name)] = np.asarray(values, np.float32).reshape(samples)
    out[~np.isfinite(out)] = np.nan
    return out


def standardised(
    waves: NDArray[np.float32], center: NDArray[np.float32], scale: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(..., channels, samples) by centre and scale (channels,) of the training split."""
    out: NDArray[np.float32] = (waves - center[:, None]) / scale[:, None]
    return out
