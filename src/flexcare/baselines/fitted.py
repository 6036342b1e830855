"""One model an output, learned from summaries of the evidence: what regression and trees share."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from flexcare.baselines.majority import Answered, Bools, Floats, Rows, frequencies, labels_of
from flexcare.baselines.summaries import Floats as Numbers
from flexcare.baselines.summaries import Summaries
from flexcare.config import BaselineConfig
from flexcare.schema import Kind, TaskInfo
from flexcare.store import Store
from flexcare.training.schedules import one_hour

DRAWS = 10  # epochs whose hours of an hourly task are learned from
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


# (training, tuning, number of classes, seed) -> a model of one output. With two classes the labels
# are 0 and 1 and it gives (n,) the probability of 1; else they are 0 ... and it gives (n, classes).
Fit = Callable[[Known, Known, int, int], Model]


def fitted(
    fit: Fit, store: Store, tasks: Iterable[str], split: str, seed: int, settings: BaselineConfig
) -> Iterator[Answered]:
    """Learn from the training split, choose by the tuning split, answer `split`.

    Of an hourly task a few hours of each stay are learned from, drawn as a network's epochs draw
    them and weighted for the stay's length, and every hour is answered.

    Args:
        tasks: names of the store's.
        split: whose samples are answered.
        seed: of what is random in `fit`, and of the hours.
        settings: say what is seen.

    Yields:
        by task its sample rows as `Store.rows` gives them, and probabilities (n, outputs).

    Raises:
        UserError: a modality that the store does not have.
    """
    summaries = Summaries(store, settings.modalities, settings.person)
    for name in tasks:
        info, rows = store.tasks[name], store.rows(name, split)
        train = _known(store, info, summaries, "train", seed, range(DRAWS))
        tuning = _known(store, info, summaries, "tuning", seed, range(-1, 0))
        model = LEARN[info.kind](fit, info, train, tuning, seed)
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


def _labels(fit: Fit, info: TaskInfo, train: Known, tuning: Known, seed: int) -> Model:
    """One model an output; the share in training where that has one answer alone."""
    shares = frequencies(info, train.labels, train.mask)
    models = {}
    for column in range(info.outputs):
        known = train.of(column)
        if len(known.answers()) == 2:
            models[column] = fit(known, tuning.of(column), 2, seed)

    def answer(numbers: Numbers) -> Floats:
        out = np.tile(shares, (len(numbers), 1))
        for column, model in models.items():
            out[:, column] = model(numbers)
        return out

    return answer


def _classes(fit: Fit, info: TaskInfo, train: Known, tuning: Known, seed: int) -> Model:
    """One model for all classes; those that training never saw have probability 0."""
    shares = frequencies(info, train.labels, train.mask)
    seen = train.of(0).answers().astype(np.int64)
    if len(seen) < 2:
        return lambda numbers: np.tile(shares, (len(numbers), 1))
    known, limits = (_renumbered(part.of(0), seen) for part in (train, tuning))
    model = fit(known, limits, len(seen), seed)

    def answer(numbers: Numbers) -> Floats:
        out, found = np.zeros((len(numbers), info.outputs)), model(numbers)
        out[:, seen] = np.stack([1 - found, found], 1) if len(seen) == 2 else found
        return out

    return answer


def _renumbered(known: Known, seen: Rows) -> Known:
    """The samples of the classes `seen`, which are numbered from 0."""
    mask = np.isin(known.labels, seen)
    labels = np.searchsorted(seen, known.labels).astype(np.float64)
    return Known(known.numbers, labels, mask, known.weights).of(0)


LEARN: dict[Kind, Callable[[Fit, TaskInfo, Known, Known, int], Model]] = {
    "binary": _labels,
    "multilabel": _labels,
    "multiclass": _classes,
}
