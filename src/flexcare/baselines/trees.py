"""Boosted trees (LightGBM) on summaries of the evidence: a network must not lose to them."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa

from flexcare.baselines.majority import Answered, Bools, Floats, Rows, frequencies, labels_of
from flexcare.baselines.summaries import Floats as Numbers
from flexcare.baselines.summaries import Summaries
from flexcare.schema import Kind, TaskInfo
from flexcare.store import Store
from flexcare.training.schedules import one_hour

DRAWS = 10  # epochs whose hours of an hourly task are learned from
ROUNDS, PATIENCE, UNTUNED = 200, 20, 50  # UNTUNED: rounds where the tuning split cannot say
TREES, FEWEST_ROUNDS = 4_000, 20  # a round of a multiclass task grows a tree a class
CELLS_A_THREAD = 2_000_000  # fewer numbers than this are not worth another thread
PARAMETERS: dict[str, Any] = {
    "learning_rate": 0.1,
    "num_leaves": 15,
    "max_bin": 63,
    "feature_fraction": 0.5,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
Model = Callable[[Numbers], Floats]  # (n, columns) -> (n, outputs)


@dataclass(frozen=True)
class Known:
    """Samples with their answers.

    Attributes:
        numbers: (n, columns) summaries.
        labels, mask: (n, width).
        weights: (n,) how many of the task's samples each stands for.
    """

    numbers: Numbers
    labels: Floats
    mask: Bools
    weights: Floats

    def of(self, column: int) -> "Known":
        """The samples whose label of this column exists, with that label alone."""
        chosen, one = self.mask[:, column], slice(column, column + 1)
        labels, mask = self.labels[chosen, one], self.mask[chosen, one]
        return Known(self.numbers[chosen], labels, mask, self.weights[chosen])

    def answers(self) -> Floats:
        """The different labels."""
        return np.unique(self.labels)


def trees(store: Store, tasks: Iterable[str], split: str, seed: int = 0) -> Iterator[Answered]:
    """Learn from the training split, stop by the tuning split, answer `split`.

    Of an hourly task a few hours of each stay are learned from, drawn as a network's epochs draw
    them and weighted for the stay's length, and every hour is answered.

    Args:
        tasks: names of the store's.
        split: whose samples are answered.
        seed: of the columns that each tree tries, and of the hours.

    Yields:
        by task its sample rows as `Store.rows` gives them, and probabilities (n, outputs).
    """
    summaries = Summaries(store)
    for name in tasks:
        info, rows = store.tasks[name], store.rows(name, split)
        train = _known(store, info, summaries, "train", seed, range(DRAWS))
        tuning = _known(store, info, summaries, "tuning", seed, range(-1, 0))
        model = LEARN[info.kind](info, train, tuning, seed)
        answers = np.empty((len(rows), info.outputs))
        for places, numbers in summaries.chunks(rows):
            answers[places] = model(numbers)
        yield info, rows, answers


def _known(
    store: Store, info: TaskInfo, summaries: Summaries, split: str, seed: int, epochs: range
) -> Known:
    """The samples to learn from: all, or of an hourly task the hours of these epochs."""
    rows = every = store.rows(info.name, split)
    weights = np.ones(len(rows))
    if info.hourly and len(rows):
        drawn = [one_hour(store, every, seed, epoch) for epoch in epochs]
        rows = np.unique(np.concatenate(drawn))
        weights = _shares(store, rows, every)
    return Known(summaries(rows), *labels_of(store, info, rows), weights)


def _shares(store: Store, rows: Rows, every: Rows) -> Floats:
    """(rows,) number of samples of the same stay among all, for each one drawn of it."""
    stays = store.samples["stay_id"].take(pa.array(every)).to_numpy()
    _, stay, size = np.unique(stays, return_inverse=True, return_counts=True)
    mine = stay[np.searchsorted(every, rows)]
    return np.asarray(size[mine] / np.bincount(mine)[mine])


def _labels(info: TaskInfo, train: Known, tuning: Known, seed: int) -> Model:
    """One ensemble an output; the share in training where that has one answer alone."""
    shares = frequencies(info, train.labels, train.mask)
    boosters = {}
    for column in range(info.outputs):
        known = train.of(column)
        if len(known.answers()) == 2:
            boosters[column] = _boosted(known, tuning.of(column), {"objective": "binary"}, seed)

    def answer(numbers: Numbers) -> Floats:
        out = np.tile(shares, (len(numbers), 1))
        for column, booster in boosters.items():
            out[:, column] = booster.predict(numbers)
        return out

    return answer


def _classes(info: TaskInfo, train: Known, tuning: Known, seed: int) -> Model:
    """One ensemble for all classes; those that training never saw have probability 0."""
    shares = frequencies(info, train.labels, train.mask)
    seen = train.of(0).answers().astype(np.int64)
    if len(seen) < 2:
        return lambda numbers: np.tile(shares, (len(numbers), 1))
    known, limits = (_renumbered(part.of(0), seen) for part in (train, tuning))
    booster = _boosted(known, limits, {"objective": "multiclass", "num_class": len(seen)}, seed)

    def answer(numbers: Numbers) -> Floats:
        out = np.zeros((len(numbers), info.outputs))
        out[:, seen] = booster.predict(numbers)
        return out

    return answer


def _renumbered(known: Known, seen: Rows) -> Known:
    """The samples of the classes `seen`, which are numbered from 0."""
    mask = np.isin(known.labels, seen)
    labels = np.searchsorted(seen, known.labels).astype(np.float64)
    return Known(known.numbers, labels, mask, known.weights).of(0)


LEARN: dict[Kind, Callable[[TaskInfo, Known, Known, int], Model]] = {
    "binary": _labels,
    "multilabel": _labels,
    "multiclass": _classes,
}


def _boosted(train: Known, tuning: Known, objective: dict[str, Any], seed: int) -> lgb.Booster:
    """One ensemble, stopped by its loss on `tuning` if that holds more than one answer."""
    threads = int(np.clip(train.numbers.size // CELLS_A_THREAD, 1, os.cpu_count() or 1))
    settings = PARAMETERS | objective | {"seed": seed, "num_threads": threads}
    rounds = int(np.clip(TREES // objective.get("num_class", 1), FEWEST_ROUNDS, ROUNDS))
    data = lgb.Dataset(train.numbers, train.labels[:, 0], weight=train.weights, params=settings)
    if len(tuning.answers()) < 2:
        return lgb.train(settings, data, min(rounds, UNTUNED))
    limits = data.create_valid(tuning.numbers, tuning.labels[:, 0], weight=tuning.weights)
    stop = lgb.early_stopping(PATIENCE, verbose=False)
    return lgb.train(settings, data, rounds, [limits], callbacks=[stop])
