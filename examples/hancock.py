"""Writes HANCOCK's features (csv and npz) as flat tables: python hancock.py FEATURES OUT.

docs/hancock.md walks through it. What became known only after surgery is dated half a day after
the start of the treatment, and the questions are asked at the end of that day: the files give no
dates, so the day is nominal. targets.csv and `primarily_metastasis` give no input.
"""

import csv
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flexcare.files import refuse_existing, whole

STAINS = ("HE", "CD3", "CD8", "CD56", "CD68", "CD163", "MHC1", "PDL1")
BEFORE, SURGERY, ASKED = "2000-01-01 00:00", "2000-01-01 12:00", "2000-01-02 00:00"
ASKED_HOURS, ASKED_DAYS = 24, 1
FACTS = {  # tables of one row a patient: when it was known
    "clinical": BEFORE,
    "blood": BEFORE,
    "pathological": SURGERY,
    "tma_cell_density": SURGERY,
}
LEFT_OUT = ("patient_id", "primarily_metastasis")  # the second: see docs/hancock.md
Row = dict[str, str]
Days = float | None
# What each task's answer says within how many days: the day it happened (None: it did not), and the
# last day of which anything is known.
ANSWERS: dict[str, tuple[int, Callable[[Row], tuple[Days, float]]]] = {
    "recurrence_2y": (
        730,
        lambda row: (
            float(row["days_to_recurrence"]) if row["recurrence"] == "yes" else None,
            float(row["days_to_last_information"]),
        ),
    ),
    "death_3y": (
        1095,
        lambda row: (
            float(row["days_to_last_information"])
            if row["survival_status"] == "deceased"
            else None,
            float(row["days_to_last_information"]),
        ),
    ),
    "event_3y": (
        1095,
        lambda row: (
            float(row["days_to_rfs_event"]) if row["rfs_event"] == "1" else None,
            float(row["days_to_rfs_event"]),
        ),
    ),
}


def main(features: Path, out: Path) -> None:
    """Write the tables, and copy variables.toml and tasks/ beside them."""
    shutil.copytree(Path(__file__).with_suffix(""), out)
    patients = read(features / "clinical.csv")
    write(out, "subjects", ("subject_id", "sex", "birth_year"), [
        (int(row["patient_id"]), ("male", "female")[int(row["sex"])],
         2000 - int(row["age_at_initial_diagnosis"]))
        for row in patients
    ])  # fmt: skip
    ids = [int(row["patient_id"]) for row in patients]
    write(out, "stays", ("stay_id", "subject_id", "start", "stop"),
          [(number, number, BEFORE, ASKED) for number in ids])  # fmt: skip
    write(out, "events", ("stay_id", "variable", "time", "value"), events(features))
    write(out, "codes", ("stay_id", "variable", "time", "code"), [
        (int(row["patient_id"]), "diagnosis", SURGERY, code)
        for row in read(features / "icd_codes.csv")
        for code, there in row.items()
        if code != "patient_id" and int(there) > 0
    ])  # fmt: skip
    write(out, "labels", ("stay_id", "name", "hours", "value"), labels(features))
    pq.write_table(embeddings(features), out / "embeddings.parquet")


def read(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(out: Path, name: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    with (out / f"{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def events(features: Path) -> list[tuple[Any, ...]]:
    """One row a value that is there; a variable is named as its column, without the unit."""
    return [
        (int(row["patient_id"]), column.split(" [")[0].lower().replace(" ", "_")
         if table == "blood" else column, known, value)
        for table, known in FACTS.items()
        for row in read(features / f"{table}.csv")
        for column, value in row.items()
        if value and column not in LEFT_OUT
    ]  # fmt: skip


def labels(features: Path) -> list[tuple[Any, ...]]:
    """Answers that are known: it happened in time, or the patient was followed for long enough.

    What happened before the question was asked is no question any more.
    """
    out = []
    for row in read(features / "targets.csv"):
        for name, (within, look) in ANSWERS.items():
            day, followed = look(row)
            asked = day is None or day > ASKED_DAYS
            if asked and ((day is not None and day <= within) or followed >= within):
                happened = int(day is not None and day <= within)
                out.append((int(row["patient_id"]), name, ASKED_HOURS, happened))
    return out


def embeddings(features: Path) -> pa.Table:
    """One row a vector: what another model saw in the tissue under each stain."""
    columns: dict[str, list[Any]] = {"stay_id": [], "variable": [], "time": [], "vector": []}
    for stain in STAINS:
        with np.load(features / f"tma_tile_dtr_256_{stain}.npz", allow_pickle=False) as vectors:
            for patient, vector in vectors.items():
                row = (int(patient), stain, SURGERY, vector)
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
    return pa.table(columns)


if __name__ == "__main__":
    refuse_existing(Path(sys.argv[2]), "OUT")
    with whole(Path(sys.argv[2])) as new:
        main(Path(sys.argv[1]), new)
