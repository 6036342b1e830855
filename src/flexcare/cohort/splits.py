"""Who is for training, tuning and the final test: a hash, so that new data move nobody."""

from collections.abc import Set
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flexcare.config import Preparation
from flexcare.errors import UserError
from flexcare.files import unit_hash
from flexcare.schema import SPLITS

SHARES = (0.7, 0.1, 0.2)  # of schema.SPLITS
TUNING = 1 / 9  # of the subjects that are not held out, where the hash does not say who is
HASH = "blake2b of seed and subject_id, 8 bytes, as a number in [0, 1)"


def split_of(
    subject_ids: NDArray[np.int64],
    seed: int,
    folds: int = 0,
    fold: int = 0,
    held_out: Set[int] | None = None,
    tuning: int = 0,
) -> NDArray[np.int8]:
    """The split of each subject, as its number in schema.SPLITS.

    Args:
        folds: 0, or into how many parts the hash deals the subjects; `fold` (from 0) is held out.
        held_out: those whom the data set itself sets apart; they alone are held out.
        tuning: which part of the others is for tuning. Every fold begins with another one, so
            that the folds' tuning splits together are more than the same few subjects again.
    """
    encoded = pa.array(subject_ids).dictionary_encode()
    subjects = encoded.dictionary.to_pylist()
    position = np.array([_position("split", seed, subject) for subject in subjects])
    if held_out is None and not folds:
        train, stop = np.cumsum(SHARES)[:-1]
        turned = np.where(position < stop, (position + tuning * SHARES[1]) % stop, position)
        number = np.searchsorted((train, stop), turned, side="right").astype(np.int8)
    else:
        if held_out is None:
            last = np.floor(position * folds) == fold
        else:
            last = np.array([subject in held_out for subject in subjects], bool)
        place = np.array([_position("tuning", seed, subject) for subject in subjects])
        limits = (place + (fold + tuning) * TUNING) % 1 < TUNING
        number = np.where(last, SPLITS.index("held_out"), limits * SPLITS.index("tuning"))
    out: NDArray[np.int8] = number.astype(np.int8)[encoded.indices.to_numpy()]
    return out


def learned_from(
    subject_ids: NDArray[np.int64], split: NDArray[np.int8], settings: Preparation
) -> NDArray[np.bool_]:
    """Whether a subject may be used: of the training subjects only `train_share` of them are.

    The subjects of a share are among those of every larger one.
    """
    seed, share = settings.seed, settings.train_share
    if share == 1:
        return np.ones(len(split), bool)
    of_training = split == SPLITS.index("train")
    used = [_position("share", seed, subject) < share for subject in subject_ids.tolist()]
    out: NDArray[np.bool_] = ~of_training | np.array(used, bool)
    return out


def check_folds(settings: Preparation, held_out: Set[int] | None) -> None:
    """Refuse folds of a data set that says itself who is held out."""
    if held_out is not None and settings.folds:
        raise UserError(
            "this data set has a test set of its own, so it has no folds",
            found=f"folds = {settings.folds}",
            expected="folds = 0",
        )


def describe(settings: Preparation, held_out: Set[int] | None, subjects: int) -> dict[str, Any]:
    """What the manifest says of the splits; shares are those aimed at."""
    shares, by = SHARES, "hash"
    if held_out is not None or settings.folds:
        last = 1 / settings.folds if held_out is None else len(held_out) / max(subjects, 1)
        shares = ((1 - last) * (1 - TUNING), (1 - last) * TUNING, last)
        by = "the data set" if held_out is not None else f"fold {settings.fold} of {settings.folds}"
    return {"shares": dict(zip(SPLITS, shares, strict=True)), "held_out": by, "hash": HASH}


@lru_cache(2**17)  # every task asks about the same subjects
def _position(name: str, seed: int, subject: int) -> float:
    return unit_hash(name, seed, subject)
