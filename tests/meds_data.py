"""A few hand-made subjects as a MEDS dataset: rows by subject, written as Parquet shards.

Times are given in hours from midnight of 1 January 2150; None is a static code.
"""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flexcare.preparation import prepare
from flexcare.store import Store
from prepared import quiet

START = datetime(2150, 1, 1)
HEART_RATE, PH = "LAB//220045//bpm", "LAB//50820//units"
SCHEMA = pa.schema(
    [
        ("subject_id", pa.int64()),
        ("time", pa.timestamp("us")),
        ("code", pa.string()),
        ("numeric_value", pa.float32()),
        ("text_value", pa.large_string()),
        ("hadm_id", pa.int64()),  # ignored, as every other column
    ]
)
Row = dict[str, Any]


def at(hours: float | None) -> datetime | None:
    return None if hours is None else START + timedelta(hours=hours)


class Dataset:
    """Rows of a MEDS dataset; change them, then write them."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, subject: int, hours: float | None, code: str, number: Any = None,
            text: str | None = None) -> Row:  # fmt: skip
        row = {"subject_id": subject, "time": at(hours), "code": code, "numeric_value": number,
               "text_value": text}  # fmt: skip
        self.rows.append(row)
        return row

    def person(self, subject: int, born: float | None = -60 * 8766, sex: str = "F") -> None:
        self.add(subject, None, f"GENDER//{sex}")
        if born is not None:
            self.add(subject, born, "MEDS_BIRTH")

    def patient(self, subject: int, start: float = 0, days: float = 3, died: bool = False) -> None:
        """An admission from 2 h before an ICU stay to 10 h after it, with heart rates; or to
        death, half an hour before the stay's end."""
        stop = start + 24 * days
        self.person(subject)
        self.add(subject, start - 2, "HOSPITAL_ADMISSION//URGENT//HOME")
        self.add(subject, start, "ICU_ADMISSION//MICU")
        self.add(subject, stop, "ICU_DISCHARGE//MICU")
        self.add(subject, stop + 10, "HOSPITAL_DISCHARGE//" + ("DIED" if died else "HOME"))
        if died:
            self.add(subject, stop - 0.5, "MEDS_DEATH")
        for hour in range(-3, int(24 * days), 6):
            self.add(subject, start + hour + 0.25, HEART_RATE, 70.0 + subject + hour / 10)
        self.add(subject, start + 5, PH, 7.4)

    def table(self) -> pa.Table:
        return pa.Table.from_pylist(self.rows, SCHEMA)

    def write(self, folder: Path, shards: int = 2) -> Path:
        """Write data/train/N.parquet; a subject is in one shard."""
        for number in range(shards):
            own = [row for row in self.rows if row["subject_id"] % shards == number]
            put(folder, pa.Table.from_pylist(own, SCHEMA), f"data/train/{number}.parquet")
        return folder


def put(folder: Path, table: pa.Table, name: str = "data/0.parquet") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / name)
    return folder


def ward(subjects: int = 6) -> Dataset:
    """Patients with heart rates and one pH each; every third one dies."""
    out = Dataset()
    for number in range(1, subjects + 1):
        out.patient(number, 30.0 * number, 2.5 + number % 3, died=number % 3 == 0)
    return out


def prepared(folder: Path, out: Path, tasks: str | None = None, **settings: Any) -> Store:
    """Prepare a written dataset with the variables of MIMIC-IV unless told otherwise."""
    options = {"variables": "mimic_iv"} | settings
    prepare("meds", folder, out, tasks=tasks, settings=options, say=quiet)
    return Store(out)


def events_of(store: Store, subject: int) -> list[tuple[float, str, float]]:
    """(hours, variable, value) of the first sample of a subject that has a series."""
    names = list(store.modalities["series"].settings["variables"])
    row = next(
        r for r in store.samples.to_pylist() if r["subject_id"] == subject and r["has_series"]
    )
    part = slice(row["series_first"], row["series_stop"])
    seconds, variable, value = (store.events[n][part] for n in ("seconds", "variable", "value"))
    return [
        (float(s) / 3600, names[v], round(float(x), 4))
        for s, v, x in zip(seconds, variable, value, strict=True)
    ]
