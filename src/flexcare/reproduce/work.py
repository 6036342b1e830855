"""The work of a protocol: stores, runs and predictions, each made once and kept in a folder.

A thing's name ends in a hash of all that it is made from, so an interrupted protocol goes on where
it was, a changed one makes anew what the change concerns, and models with equal settings share
their runs.

tables/                    what the protocol's script wrote of the data
stores/NAME/               one a fold and repeat
runs/STORE-NAME/           of `flexcare train`
predictions/NAME.parquet   one a model, seed, store and split
seconds.json               how long each of these took
locks/NAME                 held by the command that makes it, which others wait for
"""

import copy
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flexcare.baselines.named import BASELINES
from flexcare.config import BaselineConfig, over
from flexcare.errors import UserError
from flexcare.evaluation.predictions import averaged, cases, read_predictions, write_predictions
from flexcare.evaluation.stored import stored_predictions
from flexcare.files import alone, read_json, whole, write_json
from flexcare.preparation import prepare
from flexcare.reproduce.protocol import NETWORK, Model, Protocol, given
from flexcare.schema import TaskInfo
from flexcare.serving.predictor import load
from flexcare.store import Store
from flexcare.training.folder import CHECKPOINT
from flexcare.training.run import train

VARIABLE = "FLEXCARE_OPEN_DATA"
WORTH_SAYING = 0.5  # seconds
FINISHED = "finished"  # lies in a run that is
Say = Callable[[str], None]
Fold = tuple[int, int]  # repeat, fold


class Work:
    """Makes what is not there yet.

    Args:
        protocol: what is wanted; `path` of its file, beside which the script lies.
        data: the folder of the data.
        out: the folder to work in.

    Attributes:
        used: names of all that was asked for.
    """

    def __init__(self, protocol: Protocol, path: Path, data: Path, out: Path, say: Say) -> None:
        self.protocol, self.path, self.data, self.out, self.say = protocol, path, data, out, say
        self.used: dict[str, None] = {}
        self.opened: dict[str, Store] = {}

    @classmethod
    def begin(
        cls,
        protocol: Protocol,
        path: Path,
        data: str | Path | None,
        out: str | Path | None,
        say: Say,
    ) -> "Work":
        """A folder to work in, made only if the data are there.

        Args:
            data: None: what FLEXCARE_OPEN_DATA says.
            out: None: reproduced/NAME.
        """
        place = Path("reproduced") / path.stem if out is None else Path(out)
        work = cls(protocol, path, data_folder(data), place, say)
        work.below(protocol.data.path)
        place.mkdir(parents=True, exist_ok=True)
        return work

    def of(self, protocol: Protocol) -> "Work":
        """The same work with other models: folder, stores and what is known of them are shared."""
        other = copy.copy(self)
        other.protocol = protocol
        return other

    @property
    def folds(self) -> list[Fold]:
        """Every repeat's folds; a single one where the source or the hash has one test set."""
        of = self.protocol.data
        return [(r, f) for r in range(of.repeats) for f in range(of.preparation.folds or 1)]

    @property
    def seconds(self) -> float:
        """How long all took that was asked for, whenever it was made."""
        known = self._known_seconds()
        return sum(known.get(name, 0.0) for name in self.used)

    def store(self, model: Model, fold: Fold, tuning: int = 0) -> Store:
        """The store of a fold, with the inputs of a model.

        Args:
            tuning: as of the preparation.
        """
        data, (repeat, number) = self.protocol.data, fold
        settings = over(given(data.preparation), given(model.preparation))
        settings["seed"] = settings.get("seed", 0) + repeat
        if settings.get("folds"):
            settings["fold"] = number
        if tuning:
            settings["tuning"] = tuning
        source = data.model_dump(mode="json", exclude={"preparation", "repeats"})
        name = f"repeat{repeat}-fold{number}-{hash_of(source, str(self.data), settings)}"
        self.used[f"stores/{name}"] = None  # also where it is open
        if data.make:
            self.used[self._place_of_tables().name] = None
        if name not in self.opened:
            place = self.out / "stores" / name
            with (
                alone(self.out / "locks" / name),
                self._made(f"stores/{name}", place) as missing,
            ):
                if missing:
                    self._prepare(place, settings)
            self.opened[name] = Store(place)
        return self.opened[name]

    def predictions(
        self, name: str, fold: Fold, split: str, without: Sequence[str] = ()
    ) -> pa.Table:
        """A model's predictions in a fold: the mean over its seeds.

        What is held out is answered by seeds of which each had other subjects for tuning, so that
        together they learned from all the others.
        """
        model = self.protocol.models[name]
        kind = self._network if model.kind == NETWORK else self._baseline
        tables = []
        for seed in model.seeds:
            store = self.store(model, fold, seed if split == "held_out" else 0)
            tables.append(kind(model, store, split, seed, without))
        return averaged(tables, name)

    def pooled(self, name: str, split: str, without: Sequence[str] = ()) -> pa.Table:
        """A model's predictions of all folds together."""
        parts = []
        for fold in self.folds:
            table = self.predictions(name, fold, split, without)
            if len(self.folds) > 1:
                # Asked again in every repeat, and tuning samples in several folds.
                again = "{}.{}".format(*fold)
                ids = pc.binary_join_element_wise(table["sample_id"], again, "#")
                table = table.set_column(table.column_names.index("sample_id"), "sample_id", ids)
            parts.append(table)
        return pa.concat_tables(parts)

    def tasks(self, name: str, answered: pa.Table) -> dict[str, TaskInfo]:
        """The tasks with answers of a model, which must be the same in every fold."""
        found = [self.store(self.protocol.models[name], fold).tasks for fold in self.folds]
        differing = [task for task in found[0] if any(one[task] != found[0][task] for one in found)]
        if differing:
            raise UserError(
                "folds cannot be judged together",
                found=f"other classes of {', '.join(differing)} in some of them",
                expected="tasks whose classes do not come from the training split",
            )
        there = set(answered["task"].unique().to_pylist())
        tasks = {name: info for name, info in found[0].items() if name in there}
        return {name: info for name, info in tasks.items() if len(cases(answered, info).sample_ids)}

    def _prepare(self, place: Path, settings: dict[str, Any]) -> None:
        """One store; what an earlier one has of the same is taken from it."""
        data = self.protocol.data
        raw = self._tables() if data.make else self.below(data.path)
        prepare(
            data.source,
            raw,
            place,
            cxr=self.below(data.cxr) if data.cxr else None,
            note=self.below(data.note) if data.note else None,
            ed=self.below(data.ed) if data.ed else None,
            tasks=data.tasks,
            preset=data.preset,
            settings=settings,
            reuse=next((one.path for one in self.opened.values()), None),
            say=self.say,
        )

    def below(self, path: str) -> Path:
        """A part of the data."""
        if not (self.data / path).exists():
            raise UserError(
                f"there is no {path} in {self.data}",
                expected="the data of the protocol",
                do="Name the folder that holds it.",
            )
        return self.data / path

    def _script(self) -> tuple[Path, Path]:
        """The protocol's script, and the data that it reads."""
        data = self.protocol.data
        return self.path.parent / data.make, self.below(data.path)

    def _place_of_tables(self) -> Path:
        script, raw = self._script()
        return self.out / f"tables-{hash_of(str(raw), script.read_text())}"

    def _tables(self) -> Path:
        """What the protocol's script writes of the data."""
        (script, raw), place = self._script(), self._place_of_tables()
        with self._made(place.name, place) as missing:
            if missing:
                with whole(place) as temporary:
                    done = subprocess.run([sys.executable, script, raw, temporary], check=False)
                    if done.returncode:
                        raise UserError(
                            f"{script} failed", found=f"exit code {done.returncode}, see above"
                        )
        return place

    def _network(
        self, model: Model, store: Store, split: str, seed: int, without: Sequence[str]
    ) -> pa.Table:
        """Predictions of a network, or of one a task."""
        settings = over(given(self.protocol.settings), given(model.settings))
        asked = settings.pop("tasks", None) or learnable(store)
        parts = [[task] for task in asked] if model.alone else [list(asked)]
        tables = []
        for tasks in parts:
            made_of = hash_of(settings, tasks)
            run = f"{store.path.name}-{NETWORK}-seed{seed}-{made_of}"
            name = "-".join([run, *(f"without-{one}" for one in without), split])
            place = self.out / "predictions" / f"{name}.parquet"
            self.used[f"runs/{run}"] = None  # also where its predictions are there
            with self._made(f"predictions/{name}", place) as missing:
                if missing:
                    predictor = load(self._run(run, store, settings, tasks, seed), say=_silent)
                    found = predictor.predict_store(store, split, tasks, without=without)
                    write_predictions(place, found)
            tables.append(read_predictions(place))
        return pa.concat_tables(tables)

    def _run(
        self, name: str, store: Store, settings: dict[str, Any], tasks: list[str], seed: int
    ) -> Path:
        """The bundle of a run, which is begun, taken up again, or finished."""
        place = self.out / "runs" / name
        with self._made(f"runs/{name}", place / FINISHED) as missing:
            if missing:
                told = {"tasks": tasks, "training": {"seed": seed}}
                finished_run(place, store, over(settings, told))
        return place / "bundle"

    def _baseline(
        self, model: Model, store: Store, split: str, seed: int, without: Sequence[str]
    ) -> pa.Table:
        """Predictions of a baseline."""
        settings = model.settings
        seen = settings.modalities if isinstance(settings, BaselineConfig) else None
        made_of = hash_of(given(settings))
        name = f"{store.path.name}-{model.kind}-seed{seed}-{made_of}-{split}"
        place = self.out / "predictions" / f"{name}.parquet"
        with self._made(f"predictions/{name}", place) as missing:
            if missing:
                parts = BASELINES[model.kind](store, learnable(store), split, seed, settings)
                tables = [stored_predictions(store, *part, model.kind, seen) for part in parts]
                write_predictions(place, pa.concat_tables(tables))
        return read_predictions(place)

    @contextmanager
    def _made(self, name: str, place: Path) -> Iterator[bool]:
        """Whether a thing is missing; says and remembers how long the block took to make it."""
        self.used[name] = None
        missing, started = not place.exists(), time.monotonic()
        before = self._known_seconds()
        try:
            yield missing
        finally:
            if missing:
                known = self._known_seconds()
                # What was made within counts for itself.
                within = sum(known.values()) - sum(before.values())
                took = time.monotonic() - started - within
                known[name] = round(known.get(name, 0.0) + took, 3)
                write_json(self.out / "seconds.json", known)
                if took > WORTH_SAYING:
                    self.say(f"{name}: {took:.0f} s")

    def _known_seconds(self) -> dict[str, float]:
        path = self.out / "seconds.json"
        known: dict[str, float] = read_json(path, "a table of seconds") if path.exists() else {}
        return known


def data_folder(data: str | Path | None, option: str = "--data") -> Path:
    """The folder that holds the data sets, as an option or the environment names it."""
    chosen = data or os.environ.get(VARIABLE)
    if not chosen or not Path(chosen).is_dir():
        raise UserError(
            "no folder of data",
            found=str(chosen or f"neither {option} nor {VARIABLE}"),
            expected="the folder that holds the data sets; docs/data.md says what goes where",
        )
    return Path(chosen).resolve()


def finished_run(place: Path, store: Store, settings: dict[str, Any]) -> None:
    """Begin a run, take it up again, or find it finished."""

    def make(resume: bool) -> None:
        train(store.path, place, settings=None if resume else settings, resume=resume, quiet=True)

    finished(place, make)


def finished(place: Path, make: Callable[[bool], object]) -> None:
    """Make a run, unless it is finished; `make` is told whether one stands there to go on with.

    One that another process is at is waited for.
    """
    with alone(place.parents[1] / "locks" / place.name):
        if (place / FINISHED).exists():
            return
        resume = (place / CHECKPOINT).exists()
        if not resume:
            shutil.rmtree(place, ignore_errors=True)
        make(resume)
        (place / FINISHED).touch()


def learnable(store: Store) -> list[str]:
    """Tasks that have training samples."""
    return [name for name in store.tasks if len(store.rows(name, "train"))]


def hash_of(*parts: Any) -> str:
    """Eight letters that change with the parts and with the version of flexcare."""
    text = json.dumps([importlib.metadata.version("flexcare"), *parts], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def _silent(line: str) -> None:
    """What a bundle says of the store it was trained on tells nothing."""
