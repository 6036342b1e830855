"""Nothing that eICU saw after the prediction time changes an input of the sample."""

from collections import Counter
from datetime import datetime
from pathlib import Path

import duckdb
import pytest

from eicu_damage import damaged
from eicu_tables import everything
from flexcare.preparation import prepare
from flexcare.store import Store
from prepared import quiet
from test_leakage import Compared, same_inputs, total

TASKS = ("eicu_death", "eicu_stay_3d", "eicu_remaining", "eicu_sepsis")
FORMS = {
    ".gz": (
        "read_csv('{}', all_varchar = true)", "patientunitstayid", "HEADER, COMPRESSION gzip",
    ),
    ".parquet": ("read_parquet('{}')", "stay_id", "FORMAT parquet"),
}  # fmt: skip
GRID = ("los/dyn.parquet", "sepsis/outc.parquet")
SHARE = 12  # of the demo's hospital stays one in so many is taken


def prepared(folder: Path, out: Path) -> Store:
    return Store(prepare("eicu", folder, out, tasks=TASKS, say=quiet))


def invented(folder: Path, request: pytest.FixtureRequest) -> Path:
    return everything().write(folder, demo=True)


def demo(folder: Path, request: pytest.FixtureRequest) -> Path:
    """A part of the patients of the open demo."""
    source: Path = request.getfixturevalue("open_data") / "eicu_demo"
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE chosen AS SELECT patientunitstayid AS stay FROM"
            f" read_csv('{source}/tables/patient.csv.gz', all_varchar = true)"
            f" WHERE hash(uniquepid) % {SHARE} = 0"
        )
        for path in (*source.glob("tables/*.gz"), *(source / "hourly" / name for name in GRID)):
            raw, key, how = FORMS[path.suffix]
            some = f"WHERE {key}::VARCHAR IN (FROM chosen)" if path.stem != "hospital.csv" else ""
            target = folder / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            connection.execute(f"COPY (FROM {raw.format(path)} {some}) TO '{target}' ({how})")
    return folder


@pytest.fixture(scope="module", params=[invented, demo], ids=lambda made: made.__name__)
def hospital(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Store]:
    """A folder of the demo's layout, and its store."""
    folder = tmp_path_factory.mktemp("leakage")
    request.param(folder / "h", request)
    return folder / "h", prepared(folder / "h", folder / "s")


def test_nothing_after_the_prediction_time_is_used(
    hospital: tuple[Path, Store], tmp_path: Path
) -> None:
    folder, store = hospital
    every: Compared = {task: Counter() for task in TASKS}
    for seed in range(2):
        moments = damaged(folder, tmp_path / f"h{seed}", seed)
        other = prepared(tmp_path / f"h{seed}", tmp_path / f"s{seed}")
        assert other.manifest["content"] != store.manifest["content"]
        seen, different = same_inputs(store, other, moments)
        assert {task: +counts for task, counts in different.items() if +counts} == {}
        for task in TASKS:
            every[task] += seen[task]
    for task, counts in every.items():  # the test is about something
        assert min(counts[name] for name in store.modalities) > 0, (task, counts)


def test_the_same_damage_is_seen_once_it_is_available(
    hospital: tuple[Path, Store], tmp_path: Path
) -> None:
    folder, store = hospital
    moments = damaged(folder, tmp_path / "h", 0)
    other = prepared(tmp_path / "h", tmp_path / "s")
    _, different = same_inputs(store, other, dict.fromkeys(moments, datetime.max))
    for name in store.modalities:
        assert total(different, name) > 0 or name == "static", name
