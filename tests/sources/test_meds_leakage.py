"""Whatever a MEDS dataset holds of a subject after the prediction time changes no input: rows are
taken away, altered, moved, and added at random, ends of stays and deaths among them."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flexcare.store import Store
from meds_data import HEART_RATE, PH, Dataset, at, prepared, put, ward
from test_leakage import same_inputs, total

# One series, one set of codes, and facts without a time.
VARIABLES = f"""
[rate]
unit = "1/min"
items = ["{HEART_RATE}"]
normal = 80
[ph]
unit = "pH"
items = ["{PH}"]
normal = 7.4
[drugs]
unit = "code"
modality = "drugs"
kind = "codes"
items = ["MEDICATION"]
[sex]
unit = "category"
modality = "person"
kind = "static"
items = ["GENDER"]
categories = ["F", "M"]
"""
CODES = (
    HEART_RATE,
    PH,
    "MEDICATION//a",
    "MEDICATION//z",
    "MEDS_DEATH",
    "DIAGNOSIS//ICD//10//N179",
)
ENDS = ("ICU_DISCHARGE//MICU", "HOSPITAL_DISCHARGE//DIED")
NAMES = ("series", "drugs", "person")


def hospital() -> Dataset:
    data = ward(9)
    for subject in range(1, 10):
        for hour, name in ((-500, "old"), (3, "a"), (20, "b"), (61, "c")):
            data.add(subject, 30.0 * subject + hour, f"MEDICATION//{name}{subject % 2}")
    return data


def records() -> Dataset:
    """The same rows without any stay or admission."""
    data = hospital()
    data.rows = [r for r in data.rows if not r["code"].startswith(("ICU_", "HOSPITAL_"))]
    return data


def damaged(data: Dataset, seed: int) -> tuple[Dataset, dict[int, datetime]]:
    """Other rows after a moment of each subject, and these moments. An end may move, but some end
    is left: a stay without one is not kept."""
    codes = CODES + ENDS * any(row["code"].startswith("ICU") for row in data.rows)
    random, out = np.random.default_rng(seed), Dataset()
    moments: dict[int, datetime] = {}
    for subject in sorted({row["subject_id"] for row in data.rows}):
        moment = at(30.0 * subject + random.uniform(-5, 80))
        assert moment is not None
        moments[subject] = moment
        for row in (r for r in data.rows if r["subject_id"] == subject):
            what = random.integers(4) if "DISCHARGE" not in row["code"] else random.choice([0, 2])
            if row["time"] is None or row["time"] <= moment or what == 0:
                out.rows.append(row)
            elif what == 1:
                out.rows.append(row | {"numeric_value": float(random.normal(80, 30))})
            elif what == 2:
                out.rows.append(row | {"time": _later(moment, random)})
        for code in random.choice(codes, 12):
            number = float(random.normal(80, 30))
            out.rows.append(row | {"time": _later(moment, random), "code": str(code),
                                   "numeric_value": number})  # fmt: skip
    return out, moments


def _later(moment: datetime, random: np.random.Generator) -> datetime:
    return moment + timedelta(microseconds=int(random.integers(1, 200 * 3_600_000_000)))


def label_file(folder: Path) -> str:
    """Questions about every subject at twelve times around its stay."""
    rows = [
        {"subject_id": subject, "prediction_time": at(30.0 * subject - 10 + 9.3 * number),
         "boolean_value": number % 2 == 0}
        for subject in range(1, 10) for number in range(12)
    ]  # fmt: skip
    schema = pa.schema([("subject_id", pa.int64()), ("prediction_time", pa.timestamp("us")),
                        ("boolean_value", pa.bool_())])  # fmt: skip
    return str(put(folder, pa.Table.from_pylist(rows, schema), "asked.parquet") / "asked.parquet")


@pytest.mark.parametrize("make", [hospital, records])
def test_nothing_after_the_prediction_time_is_used(make, tmp_path: Path) -> None:
    data, variables = make(), tmp_path / "v.toml"
    variables.write_text(VARIABLES)
    tasks = label_file(tmp_path)
    if make is hospital:
        tasks += ",decompensation,in_hospital_mortality,readmission"

    def store_of(rows: Dataset, name: str) -> Store:
        folder = rows.write(tmp_path / name)
        return prepared(folder, tmp_path / f"s{name}", tasks, variables=str(variables))

    store = store_of(data, "whole")
    noticed = dict.fromkeys(NAMES[:2], 0)
    for seed in range(4):
        changed, moments = damaged(data, seed)
        other = store_of(changed, f"damaged{seed}")
        seen, different = same_inputs(store, other, moments)
        assert {task: +counts for task, counts in different.items() if +counts} == {}
        assert min(total(seen, name) for name in NAMES) > 0
        _, later = same_inputs(store, other, dict.fromkeys(moments, datetime.max))
        for name in noticed:  # the comparison would notice
            noticed[name] += total(later, name)
    assert min(noticed.values()) > 0
