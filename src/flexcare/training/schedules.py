"""Which samples are learned from together, and in what order: a pure function of seed and epoch.

Asynchronous training is a step with one task, parallel training a step with many.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flexcare.config import TrainingConfig
from flexcare.files import unit_hash
from flexcare.store import Store

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Step:
    """Samples of one step: (B, T) rows of the samples table, -1 where a row has no such task."""

    tasks: tuple[str, ...]
    rows: Rows


@dataclass(frozen=True)
class Pool:
    """Training samples by task; hourly tasks have one hour a stay, drawn for this epoch."""

    rows: dict[str, Rows]
    moments: Rows  # for every sample row: number of its patient and time, for parallel steps
    batch: int
    temperature: float
    generator: np.random.Generator

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
    names = tuple(pool.rows)
    every = np.concatenate(list(pool.rows.values()))
    moments, place = np.unique(pool.moments[every], return_inverse=True)
    table = np.full((len(moments), len(names)), -1)
    table[place, np.repeat(np.arange(len(names)), [len(r) for r in pool.rows.values()])] = every
    order = pool.generator.permutation(len(table))
    for first in range(0, len(order), pool.batch):
        rows = table[order[first : first + pool.batch]]
        asked = (rows >= 0).any(0)
        yield Step(tuple(n for n, a in zip(names, asked, strict=True) if a), rows[:, asked])


SCHEDULES: dict[str, Callable[[Pool], Iterator[Step]]] = {
    rule.__name__: rule for rule in (sequential, round_robin, proportional, temperature, parallel)
}


class Plan:
    """The steps of every epoch.

    Args:
        rows: training sample rows by task, in the order of the tasks.
        world: number of processes; a step needs a row for each, smaller ones are left out.
    """

    def __init__(
        self, store: Store, rows: dict[str, Rows], config: TrainingConfig, world: int = 1
    ) -> None:
        self.store, self.rows, self.config, self.world = store, rows, config, world
        self.moments = moments_of(store.samples) if config.schedule == "parallel" else np.zeros(0)

    def epoch(self, number: int) -> list[Step]:
        """The steps of one epoch (from 0)."""
        seed = self.config.seed
        generator = np.random.default_rng([seed, number])
        drawn = {
            task: one_hour(self.store, rows, seed, number)
            if self.store.tasks[task].hourly
            else rows
            for task, rows in self.rows.items()
        }
        pool = Pool(drawn, self.moments, self.config.batch_size, self.config.temperature, generator)
        steps = SCHEDULES[self.config.schedule](pool)
        return [step for step in steps if len(step.rows) >= self.world]


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


def moments_of(samples: pa.Table) -> Rows:
    """For each sample the number of its patient and time: equal where the evidence is equal."""
    names = ["subject_id", "stay_id", "prediction_time", "film_row", "series_hours", "has_series"]
    columns = [samples[name].combine_chunks() for name in names]
    texts = pa.array([str(rows) for rows in samples["text_rows"].to_pylist()])
    codes = [c.dictionary_encode().indices.fill_null(-1).to_numpy() for c in [*columns, texts]]
    _, place = np.unique(np.stack(codes), axis=1, return_inverse=True)
    return place.reshape(-1).astype(np.int64)
