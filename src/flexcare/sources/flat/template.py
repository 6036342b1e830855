"""`flexcare template flat DIR`: a small invented folder that has every table."""

import csv
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg

from flexcare.files import refuse_existing, whole
from flexcare.sources.flat.layout import TABLES, TASKS, VARIABLES

SUBJECTS = 60
SEED = 0
HOURS = 48  # of a stay
WIDTH = 8  # of a vector
SIDE = 32  # pixels of an image
CHANNELS, RATE, SAMPLES = ("I", "II"), 50, 200  # of a wave
START = datetime(2031, 1, 1, 8)
_README = """An example of the flat tables: every patient here is invented, with random numbers.
docs/data.md says what the columns mean. Replace the rows by your own and look at them with
  flexcare check flat DIR
Leave out what you have not: only subjects, stays and variables.toml must be there.
"""
_VARIABLES = """# What events, codes and embeddings are of: a table for each variable, by its name.
# A modality is a name for variables that belong together; all of one modality are of one kind.

[heart_rate]
unit = "1/min"
range = [0, 350]  # what lies outside is dropped and counted
normal = 80  # assumed before any was measured; only a time series needs it
modality = "vitals"
kind = "time_series"

[age]
unit = "years"
range = [0, 120]
modality = "patient"
kind = "static"

[sex]
unit = "category"
categories = ["female", "male"]
modality = "patient"
kind = "static"

[diagnosis]
unit = "ICD-10"
modality = "diagnoses"
kind = "codes"

[slide]
unit = "vector"
modality = "slide"
kind = "embedding"

[ecg]
unit = "mV"
channels = ["I", "II"]
rate = 50  # samples a second
samples = 200  # in each channel: 4 seconds
modality = "ecg"
kind = "wave"
"""
_TASK = """question = "Will this patient come back within 30 days?"
kind = "binary"
classes = ["return"]
ask = "answers"  # where the table labels gives an hour for this name
label = { rule = "answer", name = "return_30d" }
"""


def write_template(out: Path) -> None:
    """Write the example to the new folder `out`.

    Raises:
        UserError: `out` exists.
    """
    refuse_existing(out, "DIR")
    with whole(out) as folder:
        for name in ("", TASKS, "films", "ecg"):
            (folder / name).mkdir()
        (folder / "README.txt").write_text(_README)
        (folder / VARIABLES).write_text(_VARIABLES)
        (folder / TASKS / "return_30d.toml").write_text(_TASK)
        rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in TABLES}
        rng = np.random.default_rng(SEED)
        for number in range(1, SUBJECTS + 1):
            _add_subject(rows, number, folder, rng)
        for name, table in rows.items():
            _write(folder, name, table)


def _add_subject(
    rows: dict[str, list[tuple[Any, ...]]], number: int, folder: Path, rng: np.random.Generator
) -> None:
    """One subject with one stay, who comes back if the heart is fast or the slide says so."""
    stay, start = 100 + number, START + timedelta(days=3 * number)
    age, sex = int(rng.integers(20, 90)), ("female", "male")[number % 2]
    fast, spread = (bool(draw) for draw in rng.random(2) < 0.4)

    def at(hours: float) -> str:
        return (start + timedelta(hours=hours)).isoformat(sep=" ", timespec="minutes")

    rows["subjects"].append((number, sex, start.year - age, None))
    rows["stays"].append((stay, number, at(0), at(HOURS)))
    rows["events"] += [(stay, "age", at(0), None, age), (stay, "sex", at(0), None, sex)]
    for hour in range(1, HOURS, 4):
        rate = round(float(rng.normal(105 if fast else 80, 8)))
        rows["events"].append((stay, "heart_rate", at(hour), None, rate))
    rows["codes"].append((stay, "diagnosis", at(0), None, "I50.0" if fast else "J18.9"))
    if number % 4:  # not everybody has everything
        vector = rng.normal(size=WIDTH) + (1.5 if spread else 0)
        # Taken on arrival, ready a day later.
        rows["embeddings"].append((stay, "slide", at(0), at(24), vector.astype(np.float32)))
    if number % 3:
        rows["documents"].append((number, at(2), at(3), "note", f"Seen in room {number}."))
    if number % 6:
        path = f"ecg/{number}.parquet"
        pq.write_table(_wave(fast, rng), folder / path)
        rows["waves"].append((stay, "ecg", at(5), None, RATE, path))
    if number % 5:
        path = f"films/{number}.jpg"
        (folder / path).write_bytes(_picture(rng))
        rows["images"].append((1000 + number, number, at(6), None, path))
    rows["labels"].append((stay, "return_30d", HOURS, int(fast or spread)))


def _picture(rng: np.random.Generator) -> bytes:
    grey = rng.integers(0, 256, (SIDE, SIDE, 1), np.uint8)
    return bytes(simplejpeg.encode_jpeg(grey, quality=80, colorspace="GRAY"))


def _wave(fast: bool, rng: np.random.Generator) -> pa.Table:
    """A record: a column a channel, a row a sample."""
    phase = 2 * np.pi * (1.8 if fast else 1.2) * np.arange(SAMPLES) / RATE
    beats = np.exp(20 * (np.cos(phase + rng.uniform(0, 6)) - 1))
    noise = rng.normal(0, 0.05, (len(CHANNELS), SAMPLES))
    waves = (np.outer((0.6, 1.0), beats) + noise).astype(np.float32)
    return pa.table(dict(zip(CHANNELS, waves, strict=True)))


def _write(folder: Path, name: str, rows: list[tuple[Any, ...]]) -> None:
    """A table as csv; one with vectors as Parquet."""
    columns = list(TABLES[name].columns)
    if "vector" in columns:
        table = dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))
        pq.write_table(pa.table(table), folder / f"{name}.parquet")
        return
    with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
