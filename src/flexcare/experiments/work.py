"""The work of experiments: stores, trainings and what was measured of them, each made once.

A thing's name ends in a hash of all that it is made from, so what was interrupted goes on where it
was, and experiments with equal arms share their trainings.

hospital-N/                the invented hospital of N subjects
stores/NAME/               of `flexcare prepare`
runs/STORE-NAME/           of `flexcare train` or `flexcare extend`
values/RUN-FAMILY.json     what a family of measures told of a run
values/RUN-training.json   how long it took, and whether it diverged
locks/NAME                 held by the command that makes it, which others wait for
"""

import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from pathlib import Path

import torch

from flexcare.config import Config, check, over
from flexcare.errors import Diverged, UserError
from flexcare.experiments.measures import MEASURES
from flexcare.experiments.measures.trained import Found, Trained
from flexcare.experiments.plan import (
    MANIFEST,
    STORE,
    DataSet,
    Settings,
    Size,
    is_store,
    read_data,
)
from flexcare.experiments.verdict import Value
from flexcare.files import alone, read_json, write_json
from flexcare.presets import read_preset
from flexcare.reproduce.protocol import NETWORK, Data, Model, Protocol, given
from flexcare.reproduce.work import Say, Work, finished, finished_run, hash_of
from flexcare.sources.synthetic import simulate
from flexcare.store import Store
from flexcare.training.extend import Options, extend_modality, extend_task

INVENTED = "synthetic"
TRAINING = "training"  # beside the families, whose seconds are their own


@dataclass(frozen=True)
class Ground:
    """What experiments on one set of data stand on.

    Attributes:
        name: of the set of data, or of a store that somebody brings.
        label: of the store, in the names of runs.
        truth: the folder of the planted truth, if there is one.
        settings: of every network.
        data: what the samples come from, as far as the set of data says.
    """

    name: str
    label: str
    store: Path
    truth: Path | None
    settings: Settings
    data: Settings

    @property
    def conditions(self) -> Settings:
        """All that a plan is kept with and that its arms do not say."""
        return {"data": self.data, "base": self.resolved(self.settings, 0)}

    def resolved(self, settings: Settings, seed: int) -> Settings:
        """Every setting of a training, so that equal ones are seen to be."""
        preset = read_preset(Store(self.store).manifest["preset"]).get("training", {})
        given = over(over(preset, settings), {"training": {"seed": seed}})
        return check(Config, given, "the settings of an experiment").model_dump(mode="json")


@dataclass(frozen=True)
class Job:
    """One training and its measures: a task for a process of its own.

    Attributes:
        settings: with the seed.
        base: the training whose network it extends, if it does; unfreeze: all of it.
    """

    ground: Ground
    out: Path
    settings: Settings
    families: tuple[str, ...]
    base: "Job | None" = None
    unfreeze: bool = False

    @property
    def run(self) -> Path:
        extends = [self.base.run.name, self.unfreeze] if self.base else []
        name = f"{self.ground.label}-{hash_of(self.settings, *extends)}"
        return self.out / "runs" / name

    def train(self, store: Store) -> None:
        """Begin the training, take it up again, or find it finished."""
        if self.base is None:
            finished_run(self.run, store, self.settings)
        else:
            self.base.train(store)
            finished(self.run, lambda resume: self._extend(store, resume))

    def _extend(self, store: Store, resume: bool) -> None:
        """Teach the base's network the tasks, or the modalities, that it lacks."""
        assert self.base is not None
        asked, known = self.settings, self.base.settings
        tasks, modalities = (
            [name for name in asked[kind] or () if name not in (known[kind] or ())]
            for kind in ("tasks", "modalities")
        )
        if tasks and modalities:
            raise UserError(
                "an arm extends another by tasks and by modalities",
                found=", ".join([*tasks, *modalities]),
                expected="one of the two, the other as the extended arm has it",
            )
        settings = {name: asked[name] for name in ("objective", "training")}
        names, weights = {*tasks, *(known["tasks"] or ())}, asked["objective"]["task_weights"]
        if known["tasks"]:  # weights of others do not matter
            kept = {name: weight for name, weight in weights.items() if name in names}
            settings["objective"] = asked["objective"] | {"task_weights": kept}
        if not tasks:
            settings["tasks"] = asked["tasks"]
        how = Options(self.unfreeze, None if resume else settings, resume=resume, quiet=True)
        extend, new = (extend_task, tasks) if tasks else (extend_modality, modalities)
        extend(self.base.run / "bundle", store.path, new, self.run, how)

    def values(self, family: str) -> Path:
        return self.out / "values" / f"{self.run.name}-{family}.json"

    @property
    def missing(self) -> list[str]:
        """The families that have not told yet."""
        return [one for one in self.families if not self.values(one).exists()]

    def found(self) -> Found:
        """What all families told."""
        out = Found()
        for family in self.families:
            told = read_json(self.values(family), "what was measured of a run")
            out.values |= {k: Value.of_json(v) for k, v in told["values"].items()}
            out.shown |= told["shown"]
            out.seconds += told["seconds"]
        training = self.values(TRAINING)
        if training.exists():
            told = read_json(training, "how long a training took")
            out.seconds, out.diverged = out.seconds + told["seconds"], told["diverged"]
        return out


def ground_of(
    data: str,
    size: Size,
    folder: Path | None,
    out: Path,
    say: Say,
    other: Settings | None = None,
) -> Ground:
    """The store of a set of data, made if it is not there; or the one that somebody brings.

    Args:
        data: name of a set of data, or the path of a store.
        folder: that holds the data sets; not needed for the invented hospital.
        other: what differs in the set's [data].
    """
    if is_store(data):
        brought = Path(data).resolve()
        # Two may be called alike.
        name = f"{brought.name}-{hash_of(read_json(brought / MANIFEST, 'a store'))}"
        return Ground(name, name, brought, None, _settings(read_data(STORE), size), {})
    chosen = read_data(data)
    if other:
        changed = check(Data, over(given(chosen.data), other), f"[data] of {data}")
        chosen = chosen.model_copy(update={"data": changed})
    told = {**chosen.data.model_dump(mode="json"), "subjects": chosen.sizes[size].subjects}
    truth = None
    if chosen.data.source == INVENTED:
        hospital = out / f"hospital-{chosen.sizes[size].subjects}"
        with alone(out / "locks" / hospital.name):
            if not hospital.exists():
                say(f"inventing a hospital of {chosen.sizes[size].subjects:,} subjects")
                simulate(hospital, chosen.sizes[size].subjects)
        chosen = chosen.model_copy(
            update={"data": chosen.data.model_copy(update={"path": hospital.name})}
        )
        folder, truth = out, hospital / "truth"
    assert folder is not None
    nobody = Model(kind=NETWORK)
    protocol = Protocol(first="any", data=chosen.data, models={"any": nobody})
    store = Work(protocol, Path(), folder.resolve(), out, say).store(nobody, (0, 0))
    settings = _settings(chosen, size)
    return Ground(data, store.path.name, store.path, truth, settings, told)


def _settings(chosen: DataSet, size: Size) -> Settings:
    base = given(chosen.settings)
    return over(base, given(chosen.sizes[size].settings)) if size in chosen.sizes else base


def done(job: Job) -> float:
    """Train and measure what is missing; gives the seconds that it took.

    Kept are those of the processor, which do not depend on what else runs.
    """
    started, before = time.monotonic(), time.process_time()

    def took() -> float:
        nonlocal before
        passed, before = time.process_time() - before, time.process_time()
        return round(passed, 1)

    with alone(job.out / "locks" / f"{job.run.name}-values"):
        missing = job.missing
        if not missing:  # as another process has just done it
            return time.monotonic() - started
        store, diverged = Store(job.ground.store), False
        try:
            job.train(store)
        except Diverged:  # as it would again: the seed has no numbers
            diverged = True
        if not job.values(TRAINING).exists():
            write_json(job.values(TRAINING), {"seconds": took(), "diverged": diverged})
        base = job.base.run if job.base else None
        run = Trained(job.run, store, job.ground.truth, base)
        for family in missing:
            found = Found() if diverged else MEASURES[family](run)
            # What cannot be told of this run, such as of what two combinations have in common
            # where there is one, is no number.
            known = {name: one for name, one in found.values.items() if math.isfinite(one.value)}
            values = {name: one.to_json() for name, one in known.items()}
            write_json(
                job.values(family), {"values": values, "shown": found.shown, "seconds": took()}
            )
    return time.monotonic() - started


def all_done(jobs: Sequence[Job], processes: int, say: Say) -> None:
    """Do all jobs, several at a time, a core each; says how many are done and the time left."""
    waiting = list({job.run: job for job in jobs if job.missing}.values())
    started = time.monotonic()
    # What others extend comes first.
    stages = ([one for one in waiting if bool(one.base) == later] for later in (False, True))
    took_of = chain.from_iterable(_done(stage, processes) for stage in stages)
    for number, took in enumerate(took_of, 1):
        passed = time.monotonic() - started
        left = timedelta(seconds=round(passed / number * (len(waiting) - number)))
        say(f"training {number} of {len(waiting)}: {took:.0f} s, {left} left")


def _done(jobs: Sequence[Job], processes: int) -> Iterator[float]:
    if processes == 1 or len(jobs) < 2:
        yield from map(done, jobs)
        return
    context = multiprocessing.get_context("spawn")  # threads of torch do not survive a fork
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(processes, context, begin_worker) as pool:
        futures: list[Future[float]] = [pool.submit(done, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def begin_worker() -> None:
    """One thread of arithmetic, and an end when the parent ends, however that does."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    while True:  # a training that hears it ends whole, and the next may have been handed out
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
