"""Writes PTB-XL's ECGs of 100 Hz as flat tables: python ptbxl.py FOLDER OUT.

FOLDER holds ptbxl_database.csv, scp_statements.csv and records100/ (or records100.tar.xz). An ECG
is a stay of an hour, asked about at its end. The reports state the diagnosis and are no input, nor
is what was read out of them (heart_axis, infarction stadium). docs/ptbxl.md walks through it.
"""

import ast
import csv
import shutil
import sys
import tarfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flexcare.files import refuse_existing, whole

RATE, SECONDS, HOUR = 100, 10, timedelta(hours=1)
SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
OLDEST, HIDDEN = 90, 89  # years given to those over 89, whom the data set calls 300
GAP = -32768  # in a file of 16 bits: no value
Read = Callable[[str], bytes]
Row = dict[str, Any]


def main(folder: Path, out: Path) -> None:
    """Write the tables and records, and copy variables.toml and tasks/ beside them."""
    shutil.copytree(Path(__file__).with_suffix(""), out)
    (out / "ecg").mkdir()
    classes = {
        row[""]: row["diagnostic_class"]
        for row in rows_of(folder / "scp_statements.csv")
        if row["diagnostic"]
    }
    read = reader(folder)
    tables: dict[str, list[Row]] = {
        name: [] for name in ("subjects", "stays", "events", "waves", "labels")
    }
    for row in rows_of(folder / "ptbxl_database.csv"):
        add_ecg(tables, row, {classes[code] for code in ast.literal_eval(row["scp_codes"])
                              if code in classes})  # fmt: skip
        name = row["filename_lr"]
        record = record_of(read(f"{name}.hea").decode(), read(f"{name}.dat"))
        pq.write_table(record, out / tables["waves"][-1]["path"])
    known = {row["subject_id"]: row for row in reversed(tables["subjects"])}
    tables["subjects"] = list(known.values())
    for name, rows in tables.items():
        with (out / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def add_ecg(tables: dict[str, list[Row]], row: dict[str, str], classes: set[str]) -> None:
    """One ECG: a stay, what is known of the patient, its record, and its answers."""
    stay, subject = int(row["ecg_id"]), int(float(row["patient_id"]))
    start = datetime.fromisoformat(row["recording_date"])
    sex = ("male", "female")[int(row["sex"])]
    age = float(row["age"]) if row["age"] else None
    if age and age > HIDDEN:
        age = OLDEST
    tables["subjects"].append(
        {"subject_id": subject, "sex": sex, "birth_year": start.year - int(age) if age else ""}
    )
    tables["stays"].append(
        {"stay_id": stay, "subject_id": subject, "start": start, "stop": start + HOUR}
    )
    for name, value in (("age", age), ("sex", sex)):
        if value is not None:
            tables["events"].append(
                {"stay_id": stay, "variable": name, "time": start, "value": value}
            )
    tables["waves"].append(
        {"stay_id": stay, "variable": "ecg", "time": start,
         "available_at": start + timedelta(seconds=SECONDS), "rate": RATE,
         "path": f"ecg/{stay}.parquet"}
    )  # fmt: skip
    if classes:  # of a dozen no diagnostic statement is made
        answers = {name.lower(): int(name in classes) for name in SUPERCLASSES}
        tables["labels"] += [
            {"stay_id": stay, "name": name, "hours": 1, "value": value}
            for name, value in answers.items()
        ]


def reader(folder: Path) -> Read:
    """Gives the bytes of a file below FOLDER, or in the archive that stands for its records."""
    archive = folder / "records100.tar.xz"
    if (folder / "records100").is_dir() or not archive.is_file():
        return lambda name: (folder / name).read_bytes()
    with tarfile.open(archive) as opened:
        files = [(one.name, opened.extractfile(one)) for one in opened if one.isfile()]
        held = {name.removeprefix("./"): file.read() for name, file in files if file}
    return held.__getitem__


def record_of(header: str, data: bytes) -> pa.Table:
    """A WFDB record of 16 bits: a column a lead, in mV, null where there is a gap.

    The header's first line has name, leads, rate and samples; then a line a lead has, among others,
    the file, its format, gain(baseline)/unit, and at the end checksum, block size and name.
    """
    first, *lines = [line.split() for line in header.splitlines() if line and line[0] != "#"]
    leads, rate, samples = map(int, first[1:4])
    if rate != RATE or samples != RATE * SECONDS or any(line[1] != "16" for line in lines[:leads]):
        raise SystemExit(f"record {first[0]}: not 16 bits, {RATE} Hz and {SECONDS} s")
    raw = np.frombuffer(data, "<i2")
    if raw.size != leads * samples:
        raise SystemExit(f"record {first[0]}: {raw.size} numbers instead of {leads * samples}")
    columns = {}
    for line, lead in zip(lines, raw.reshape(samples, leads).T, strict=False):
        gain, baseline = line[2].removesuffix("/mV").removesuffix(")").split("(")
        if (int(lead.sum(dtype=np.int64)) - int(line[6])) % 2**16:
            raise SystemExit(f"record {first[0]}, lead {line[8]}: the checksum is another")
        values = ((lead - float(baseline)) / float(gain)).astype(np.float32)
        columns[line[8]] = pa.array(values, mask=lead == GAP)
    return pa.table(columns)


if __name__ == "__main__":
    refuse_existing(Path(sys.argv[2]), "OUT")
    with whole(Path(sys.argv[2])) as new:
        main(Path(sys.argv[1]), new)
