"""A hospital with a modality of every kind of events, two of them time series, and its source."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from flexcare.features.variables import VariableSet, read_variables
from flexcare.preparation import prepare
from flexcare.sources import SOURCES
from flexcare.sources.events import tidy_events
from flexcare.sources.tables import ADMISSIONS, DIAGNOSES, DOCUMENTS, DRGS, IMAGES, STAYS, SUBJECTS
from flexcare.store import Store
from prepared import quiet

VARIABLES = """
[heart_rate]
modality = "vitals"
unit = "1/min"
items = ["hr"]
range = [0, 350]
normal = 86
[sodium]
modality = "labs"
unit = "mmol/L"
items = ["na"]
normal = 140
[age]
modality = "static"
kind = "static"
unit = "years"
items = ["age"]
range = [0, 120]
[unit]
modality = "static"
kind = "static"
unit = "name"
items = ["unit"]
categories = ["medical", "surgical", "mixed"]
[lactate]
modality = "labs"
unit = "mmol/L"
items = [7]
normal = 1
[weight]
modality = "static"
kind = "static"
unit = "kg"
items = ["weight"]
[diagnosis]
modality = "codes"
kind = "codes"
unit = "code"
items = ["dx"]
[drug]
modality = "codes"
kind = "codes"
unit = "code"
items = ["rx"]
[slide]
modality = "slides"
kind = "embedding"
unit = "row"
items = ["slide"]
[biopsy]
modality = "slides"
kind = "embedding"
unit = "row"
items = ["biopsy"]
"""
WIDTH = 6
DAY = 24.0
Raw = tuple[int, str, Any, float, float]  # subject, item, value, hours, hours when visible


@dataclass
class Ward:
    """What its patients have: one stay of 3 days each."""

    raw: list[Raw] = field(default_factory=list)
    patients: int = 0

    def add(self, subject: int, item: str, value: Any, hours: float, seen: float = -1e9) -> None:
        self.raw.append((subject, item, value, hours, max(hours, seen)))


def ward(patients: int = 30, seed: int = 0) -> Ward:
    """Each patient has some of the modalities, at random times before, in and after the stay."""
    random, out = np.random.default_rng(seed), Ward(patients=patients)

    def hours(low: float, high: float) -> float:
        return round(float(random.uniform(low, high)), 2)

    for subject in range(1, patients + 1):
        has = random.random(5) < 0.7
        for _ in range(random.integers(1, 12) * has[0]):
            out.add(subject, "hr", round(random.normal(86, 15), 1), hours(-30, 80), hours(-30, 80))
        for _ in range(random.integers(1, 9) * has[1]):
            item, mean = ("na", 140) if random.random() < 0.5 else ("7", 2)
            out.add(subject, item, round(random.normal(mean, 1), 1), hours(-30, 80), hours(-30, 80))
        if has[2]:
            out.add(subject, "age", int(random.integers(18, 95)), 0)
            out.add(subject, "unit", str(random.choice(["medical", "Surgical", "none"])), 0)
            for _ in range(random.integers(0, 4)):
                out.add(subject, "weight", round(random.normal(80, 9), 1), hours(-900, 72))
        for _ in range(random.integers(1, 8) * has[3]):
            item, text = str(random.choice(["dx", "rx"])), str(random.choice(list("ABCDEfgh")))
            out.add(subject, item, text, hours(-900, 80), hours(-900, 80))
        for _ in range(random.integers(1, 4) * has[4]):
            item, row = str(random.choice(["slide", "biopsy"])), int(random.integers(0, 20))
            out.add(subject, item, row, hours(-900, 60), hours(-900, 60))
    return out


def _typed(columns: str, rows: list[tuple[Any, ...]]) -> pa.Table:
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE t ({columns})")
        if rows:
            connection.executemany(f"INSERT INTO t VALUES ({', '.join('?' * len(rows[0]))})", rows)
        return connection.sql("SELECT * FROM t").to_arrow_table()


@dataclass
class WardSource:
    """A source that holds its tables in memory; subject, admission and stay have one number."""

    ward: Ward
    path: Path
    connection: duckdb.DuckDBPyConnection
    name: str = "ward"
    variables: str = ""
    finding_names: tuple[str, ...] = ()
    files: list[Path] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    codes: dict[str, list[str]] = field(default_factory=dict)
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    held_out: None = None

    def subjects(self) -> pa.Table:
        return _typed(SUBJECTS, [(n, "F", 60, 2000, None) for n in self._everybody()])

    def admissions(self) -> pa.Table:
        rest = (None, "URGENT", None, None)
        times = ("2000-01-01", "2000-01-05")
        rows = [(n, n, *times, None, n % 3 == 0, *rest[1:]) for n in self._everybody()]
        return _typed(ADMISSIONS, rows)

    def stays(self) -> pa.Table:
        times = ("2000-01-01", "2000-01-04", 3.0, "MICU", "MICU")
        return _typed(STAYS, [(n, n, n, *times) for n in self._everybody()])

    def diagnoses(self) -> pa.Table:
        return _typed(DIAGNOSES, [])

    def drgs(self) -> pa.Table:
        return _typed(DRGS, [])

    def images(self) -> pa.Table:
        return _typed(IMAGES, [])

    def documents(self) -> Iterator[pa.RecordBatch]:
        yield from _typed(DOCUMENTS, []).to_batches()

    def answers(self) -> pa.Table:
        return _typed("stay_id BIGINT, name VARCHAR, hours DOUBLE, value DOUBLE", [])

    def events(self, stays: pa.Table, variables: VariableSet, clock: str) -> Iterator[pa.Table]:
        random = np.random.default_rng(5)
        for name in ("slide", "biopsy"):
            self.vectors[name] = random.normal(3, 2, (20, WIDTH)).astype(np.float32)
        place = {stay: row for row, stay in enumerate(stays["stay_id"].to_pylist())}
        rows = [
            (place.get(subject), item, str(value), 3600 * hours, 3600 * seen)
            for subject, item, value, hours, seen in self.ward.raw
        ]
        columns = "stay INT, item VARCHAR, text VARCHAR, seconds DOUBLE, stored DOUBLE"
        self.connection.register("ward", _typed(columns, rows))
        raw = (
            "SELECT stay, items.*, text, NULL::VARCHAR AS number, seconds, stored,"
            f" {3 * DAY * 3600} AS length FROM ward JOIN items ON item = itemid"
        )
        yield from tidy_events(self.connection, raw, variables, clock, self.dropped, self.codes)

    def _everybody(self) -> range:
        return range(1, self.ward.patients + 1)


def prepare_ward(
    one: Ward, folder: Path, patch: pytest.MonkeyPatch, variables: str = VARIABLES, **given: Any
) -> Store:
    """The store of a ward, by the clock of when things became visible."""
    folder.mkdir(parents=True)
    (folder / "variables.toml").write_text(variables)
    patch.setitem(SOURCES, "ward", lambda path, connection, **_: WardSource(one, path, connection))
    options = {
        "tasks": "in_hospital_mortality,decompensation",
        "variables": folder / "variables.toml",
        "clock": "storetime",
        "say": quiet,
    } | given
    prepare("ward", folder, folder / "store", **options)
    return Store(folder / "store")


def without(one: Ward, *items: str) -> Ward:
    """The ward without rows of these items."""
    return replace(one, raw=[row for row in one.raw if row[1] not in items])


def variables_there(folder: Path) -> VariableSet:
    return read_variables(folder / "variables.toml")
