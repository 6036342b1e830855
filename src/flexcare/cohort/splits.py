"""Who is for training, tuning and the final test: a hash, so that new data move nobody."""

import numpy as np
from numpy.typing import NDArray

from flexcare.files import unit_hash
from flexcare.schema import SPLITS

SHARES = (0.7, 0.1, 0.2)  # of SPLITS
HASH = "blake2b of seed and subject_id, 8 bytes, as a number in [0, 1)"


def split_of(subject_ids: NDArray[np.int64], seed: int) -> NDArray[np.str_]:
    """The split of each subject."""
    edges = np.cumsum(SHARES)[:-1]
    unique, place = np.unique(subject_ids, return_inverse=True)
    position = np.array([unit_hash("split", seed, int(subject)) for subject in unique])
    return np.array(SPLITS)[np.searchsorted(edges, position, side="right")][place]
