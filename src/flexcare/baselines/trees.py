"""Boosted trees (LightGBM) on summaries of the evidence: a network must not lose to them."""

import os
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import lightgbm as lgb
import numpy as np

from flexcare.baselines.fitted import Known, Model, fitted
from flexcare.baselines.majority import Answered
from flexcare.config import TreesConfig
from flexcare.store import Store

UNTUNED = 50  # rounds where the tuning split cannot say
TREES, FEWEST_ROUNDS = 4_000, 20  # a round of a multiclass task grows a tree a class
CELLS_A_THREAD = 2_000_000  # fewer numbers than this are not worth another thread
FIXED: dict[str, Any] = {"deterministic": True, "force_row_wise": True, "verbosity": -1}
OURS = {"modalities", "person", "rounds", "patience"}  # no parameters of LightGBM


def trees(
    store: Store,
    tasks: Iterable[str],
    split: str,
    seed: int = 0,
    settings: TreesConfig | None = None,
) -> Iterator[Answered]:
    """One ensemble an output, one for all classes of a task (see `fitted`).

    The seed is also that of the columns that each tree tries.
    """
    settings = settings or TreesConfig()
    return fitted(partial(_boosted, settings), store, tasks, split, seed, settings)


def _boosted(given: TreesConfig, train: Known, tuning: Known, classes: int, seed: int) -> Model:
    """One ensemble, stopped by its loss on `tuning` if that holds more than one answer."""
    several = {"objective": "multiclass", "num_class": classes}
    threads = int(np.clip(train.numbers.size // CELLS_A_THREAD, 1, os.cpu_count() or 1))
    settings = FIXED | given.model_dump(exclude=OURS)
    settings |= several if classes > 2 else {"objective": "binary"}
    settings |= {"seed": seed, "num_threads": threads}
    most = max(TREES // (classes if classes > 2 else 1), FEWEST_ROUNDS)
    rounds = min(most, given.rounds)
    data = lgb.Dataset(train.numbers, train.labels[:, 0], weight=train.weights, params=settings)
    if len(tuning.answers()) < 2:
        booster = lgb.train(settings, data, min(rounds, UNTUNED))
    else:
        limits = data.create_valid(tuning.numbers, tuning.labels[:, 0], weight=tuning.weights)
        stop = lgb.early_stopping(given.patience, verbose=False)
        booster = lgb.train(settings, data, rounds, [limits], callbacks=[stop])
    return lambda numbers: np.asarray(booster.predict(numbers))
