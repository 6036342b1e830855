"""Folders of flat tables for tests: the example, read, and damaged after a moment."""

import csv
import shutil
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flexcare.features.variables import read_variables
from flexcare.sources.flat import Flat

Rows = list[dict[str, Any]]
# What damage makes of a later row: other values, of the kind that the table holds.
OTHER = {
    "events": lambda row, rng: {"value": {"sex": "female"}.get(row["variable"], rng.integers(99))},
    "codes": lambda row, rng: {"code": ("I50.0", "J18.9")[rng.integers(2)]},
    "embeddings": lambda row, rng: {"vector": rng.normal(size=len(row["vector"])).tolist()},
    "waves": lambda row, rng: {"path": f"ecg/{(1, 2, 3)[rng.integers(3)]}.parquet"},
    "documents": lambda row, rng: {"text": f"other words {rng.integers(1000)}"},
    "images": lambda row, rng: {"path": "films/other.jpg"},
}


def opened(folder: Path) -> Flat:
    """The source as `prepare` opens it."""
    disabled = {"disabled_optimizers": "type_pushdown,build_side_probe_side"}
    return Flat(folder, duckdb.connect(config=disabled))


def read(folder: Path, name: str) -> Rows:
    """The rows of a table."""
    if (folder / f"{name}.parquet").exists():
        return pq.read_table(folder / f"{name}.parquet").to_pylist()
    with (folder / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write(folder: Path, name: str, rows: Rows) -> None:
    """Write a table as it was, with these rows."""
    if (folder / f"{name}.parquet").exists():
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
        return
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def events_of(source: Flat) -> Rows:
    """All events, with names for numbers: stay_id, hours, available, variable, value."""
    stays = source.stays()
    variables = read_variables(Path(source.variables))
    ids, names = stays["stay_id"].to_pylist(), variables.names
    out = []
    for table in source.events(stays, variables, "charttime"):
        for row in table.to_pylist():
            name, value = names[row["variable"]], row["value"]
            kind = variables.variables[name].kind
            if kind == "codes":
                value = source.codes[name][int(value)]
            if kind == "embedding":
                value = source.vectors[name][int(value)].tolist()
            if kind == "wave":
                value = source.waves[name][int(value)].name
            hours, available = row["seconds"] / 3600, row["available"] / 3600
            out.append({"stay_id": ids[row["stay"]], "variable": name, "hours": hours,
                        "available": available, "value": value})  # fmt: skip
    return out


def damaged(folder: Path, out: Path, seed: int) -> dict[int, datetime]:
    """Copy a folder; of what was there after a moment in each subject's stay some rows are deleted,
    the others changed, and changed copies added. What ends later ends at another time.

    Returns:
        the moments, by subject.
    """
    rng = np.random.default_rng(seed)
    shutil.copytree(folder, out)
    shutil.copy(out / "films" / "1.jpg", out / "films" / "other.jpg")
    stays, moments = read(folder, "stays"), {}
    for stay in stays:
        moment = datetime.fromisoformat(stay["start"]) + timedelta(minutes=int(rng.integers(2881)))
        moments[int(stay["subject_id"])] = moment
        stay["stop"] = (moment + timedelta(hours=int(rng.integers(1, 60)))).isoformat(sep=" ")
    subject_of = {stay["stay_id"]: int(stay["subject_id"]) for stay in stays}
    write(out, "stays", stays)
    for name, change in OTHER.items():
        kept: Rows = []
        for row in read(folder, name):
            subject = int(row.get("subject_id") or subject_of[str(row["stay_id"])])
            kept += _fate(row, moments[subject], change, rng)
        if name == "images":
            for number, row in enumerate(kept):
                row["image_id"] = (
                    5000 + number if row["path"] == "films/other.jpg" else row["image_id"]
                )
        write(out, name, kept)
    labels = read(folder, "labels")
    write(out, "labels", [row | {"value": int(rng.integers(2))} for row in labels])
    subjects = read(folder, "subjects")
    for row in subjects[::3]:
        row["died_at"] = moments[int(row["subject_id"])] + timedelta(hours=int(rng.integers(1, 99)))
    write(out, "subjects", subjects)
    return moments


def _fate(row: dict[str, Any], moment: datetime, change: Any, rng: np.random.Generator) -> Rows:
    """What becomes of one row."""
    seen = max(datetime.fromisoformat(row[c]) for c in ("time", "available_at") if row[c])
    if seen <= moment:
        return [row]
    others = []
    for _ in range(rng.integers(3)):
        later = moment + timedelta(minutes=int(rng.integers(1, 3000)))
        # It may have been so long before it was seen.
        time = moment - timedelta(minutes=int(rng.integers(600))) if rng.random() < 0.5 else later
        others.append(row | change(row, rng) | {"time": str(time), "available_at": str(later)})
    return others


def counted(rows: Rows) -> Counter[str]:
    """Rows without an order."""
    return Counter(map(repr, rows))
