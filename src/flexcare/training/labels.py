"""Labels thrown away on purpose, to see how few are enough."""

import numpy as np
import pyarrow as pa

from flexcare.config import TrainingConfig
from flexcare.files import unit_hash
from flexcare.store import Store
from flexcare.training.schedules import Rows


def labelled(store: Store, rows: dict[str, Rows], config: TrainingConfig) -> dict[str, Rows]:
    """The training samples by task whose answers are learned from.

    Every task keeps the same share of the subjects, by a hash of seed and subject: the same
    subjects, or each task others as far as there are enough.
    """
    if config.label_share == 1:
        return rows
    apart = config.label_share if config.label_overlap == "disjoint" else 0.0
    out = {}
    for number, (task, own) in enumerate(rows.items()):
        subjects = store.samples["subject_id"].take(pa.array(own)).to_numpy()
        unique, place = np.unique(subjects, return_inverse=True)
        drawn = np.array([unit_hash("labels", config.seed, int(one)) for one in unique])
        out[task] = own[((drawn - number * apart) % 1 < config.label_share)[place]]
    return out
