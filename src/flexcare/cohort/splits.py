"""Who is for training, tuning and the final test: a hash, so that new data move nobody."""

from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flexcare.files import unit_hash

SHARES = (0.7, 0.1, 0.2)  # of schema.SPLITS
HASH = "blake2b of seed and subject_id, 8 bytes, as a number in [0, 1)"


def split_of(subject_ids: NDArray[np.int64], seed: int) -> NDArray[np.int8]:
    """The split of each subject, as its number in schema.SPLITS."""
    edges = np.cumsum(SHARES)[:-1]
    encoded = pa.array(subject_ids).dictionary_encode()
    position = [_position(seed, subject) for subject in encoded.dictionary.to_pylist()]
    number = np.searchsorted(edges, np.array(position), side="right").astype(np.int8)
    out: NDArray[np.int8] = number[encoded.indices.to_numpy()]
    return out


@lru_cache(2**16)  # every task asks about the same subjects
def _position(seed: int, subject: int) -> float:
    return unit_hash("split", seed, subject)
