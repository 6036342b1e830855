"""Which samples are learned from together, and in what order: a pure function of seed and epoch.

Asynchronous training is a step with one task, parallel training a step with many.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, islice
from itertools import count as counting

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flexcare.config import TrainingConfig
from flexcare.files import unit_hash
from flexcare.loading.moments import moments_of, together
from flexcare.store import Store

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Step:
    """Samples of one step: (B, T) rows of the samples table, -1 where a row has no such task."""

    tasks: tuple[str, ...]
    rows: Rows


@dataclass(frozen=True)
class Pool:
    """Training samples by task; hourly tasks may have one hour a stay, drawn for this epoch."""

    rows: dict[str, Rows]
    batch: int
    temperature: float
    generator: np.random.Generator
    moments: Callable[[], Rows]  # for every sample row: the number of its patient and time

    def batches(self, task: str) -> Iterator[Step]:
        """One pass over a task's samples, shuffled."""
        order = self.generator.permutation(self.rows[task])
        for first in range(0, len(order), self.batch):
            yield Step((task,), order[first : first + self.batch, None])

    def endless(self, task: str) -> Iterator[Step]:
        """Passes over a task's samples without end."""
        while True:
            yield from self.batches(task)

    def steps(self, task: str) -> int:
        return -(-len(self.rows[task]) // self.batch)

    def table(self) -> Rows:
        """(patients and times, tasks): sample rows, -1 where a task is not asked then."""
        moments = self.moments()
        places = together([moments[rows] for rows in self.rows.values()])
        # A place of -1, where there is none, takes the -1 at the end.
        columns = zip(self.rows.values(), places.T, strict=True)
        return np.column_stack([np.append(rows, -1)[place] for rows, place in columns])

    def asked(self, table: Rows) -> Step:
        """The step of some rows of the table: the tasks that any of them is asked."""
        some = np.flatnonzero(np.any(table >= 0, axis=0))
        return Step(tuple(list(self.rows)[column] for column in some), table[:, some])


def sequential(pool: Pool) -> Iterator[Step]:
    """All of the first task, then all of the second, ... (the paper's)."""
    for task in pool.rows:
        yield from pool.batches(task)


def round_robin(pool: Pool) -> Iterator[Step]:
    """One step of each task in turn, until the longest is through; the others begin again."""
    sources = [pool.endless(task) for task in pool.rows]
    for _ in range(max(map(pool.steps, pool.rows))):
        for source in sources:
            yield next(source)


def proportional(pool: Pool) -> Iterator[Step]:
    """One pass over every task, the steps of all shuffled together."""
    steps = [step for task in pool.rows for step in pool.batches(task)]
    for place in pool.generator.permutation(len(steps)):
        yield steps[place]


def temperature(pool: Pool) -> Iterator[Step]:
    """As many steps as one pass has, each of a task drawn with n_task^(1/T)."""
    names = list(pool.rows)
    share = np.array([len(pool.rows[name]) for name in names]) ** (1 / pool.temperature)
    drawn = pool.generator.choice(
        len(names), size=sum(map(pool.steps, names)), p=share / share.sum()
    )
    sources = [pool.endless(name) for name in names]
    for place in drawn:
        yield next(sources[place])


def parallel(pool: Pool) -> Iterator[Step]:
    """Patients at a time, each asked every task it has at that time, shuffled."""
    table = pool.table()
    order = pool.generator.permutation(len(table))
    for first in range(0, len(order), pool.batch):
        yield pool.asked(table[order[first : first + pool.batch]])


def mixed(pool: Pool) -> Iterator[Step]:
    """As `proportional`, but a step learns whatever else its patients are asked at that time."""
    table, batches = pool.table(), []
    for column in range(len(pool.rows)):
        own = pool.generator.permutation(np.flatnonzero(table[:, column] >= 0))
        batches += [own[first : first + pool.batch] for first in range(0, len(own), pool.batch)]
    for place in pool.generator.permutation(len(batches)):
        yield pool.asked(table[batches[place]])


SCHEDULES: dict[str, Callable[[Pool], Iterator[Step]]] = {
    rule.__name__: rule
    for rule in (sequential, round_robin, proportional, temperature, parallel, mixed)
}


def cycles(steps: Iterable[Step]) -> list[tuple[Step, ...]]:
    """Steps in groups that make one update each.

    A step of several tasks stands alone. Steps of one task are gathered until a task would come
    twice: in round-robin a group is a step of every task.
    """
    out: list[tuple[Step, ...]] = []
    for step in steps:
        last = out[-1] if out else ()
        single = len(step.tasks) == 1 and all(len(one.tasks) == 1 for one in last)
        if last and single and step.tasks not in [one.tasks for one in last]:
            out[-1] = (*last, step)
        else:
            out.append((step,))
    return out


class Plan:
    """The steps of every epoch.

    Args:
        rows: training sample rows by task, in the order of the tasks.
    """

    def __init__(self, store: Store, rows: dict[str, Rows], config: TrainingConfig) -> None:
        self.store, self.rows, self.config = store, rows, config
        self.moments = cache(partial(moments_of, store.samples))  # for parallel steps only

    def epoch(self, number: int) -> list[Step]:
        """The steps of one epoch (from 0): one pass, or as many steps as the settings say."""
        rule, wanted = SCHEDULES[self.config.schedule], self.config.epoch_steps
        if wanted is None:
            return list(rule(self._pool(number)))
        passes = (rule(self._pool(number, again)) for again in counting())
        return list(islice(chain.from_iterable(passes), wanted))

    def one_each(self, number: int) -> list[Step]:
        """A step of each task, all of one size, drawn by `number`: to compare their gradients."""
        generator = np.random.default_rng([self.config.seed, number, 0, 1])
        size = min(self.config.batch_size, *map(len, self.rows.values()))
        return [
            Step((task,), np.sort(generator.choice(rows, size, replace=False))[:, None])
            for task, rows in self.rows.items()
        ]

    def passes(self) -> dict[str, float]:
        """How often the first epoch goes through the samples of each task."""
        asked = Counter[str]()
        for step in self.epoch(0):
            asked.update(dict(zip(step.tasks, (step.rows >= 0).sum(0).tolist(), strict=True)))
        return {task: asked[task] / len(rows) for task, rows in self._pool(0).rows.items()}

    def _pool(self, number: int, again: int = 0) -> Pool:
        """What an epoch draws from; `again` counts its passes."""
        config = self.config
        drawn = {
            task: one_hour(self.store, rows, config.seed, number)
            if self.store.tasks[task].hourly and config.hours == "one"
            else rows
            for task, rows in self.rows.items()
        }
        generator = np.random.default_rng([config.seed, number, again])
        return Pool(drawn, config.batch_size, config.temperature, generator, self.moments)


def one_hour(store: Store, rows: Rows, seed: int, epoch: int) -> Rows:
    """One of each stay's rows, drawn by a hash of seed, epoch and stay."""
    stays = store.samples["stay_id"].take(pa.array(rows)).to_numpy()
    order = np.argsort(stays, kind="stable")
    unique, first, count = np.unique(stays[order], return_index=True, return_counts=True)
    drawn = [
        int(unit_hash("training hour", seed, epoch, int(stay)) * size)
        for stay, size in zip(unique, count, strict=True)
    ]
    return np.sort(rows[order[first + np.array(drawn, np.int64)]])
