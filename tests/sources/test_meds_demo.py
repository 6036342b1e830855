"""The open MIMIC-IV demo as MEDS: its counts; answers and values are those of its tables."""

from pathlib import Path
from typing import Any

import duckdb
import pytest

from flexcare.preparation import prepare
from flexcare.sources.meds import Meds
from flexcare.store import Store
from prepared import quiet

TASKS = "in_hospital_mortality,decompensation,length_of_stay,phenotyping,readmission"


@pytest.fixture(scope="module")
def stores(open_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store]:
    """The demo by its tables, and by its MEDS events."""
    place = tmp_path_factory.mktemp("demo")
    for source, folder in (("mimic-iv", "mimic_iv_demo"), ("meds", "mimic_iv_demo_meds")):
        settings = {"one_stay": True}
        prepare(
            source, open_data / folder, place / source, tasks=TASKS, settings=settings, say=quiet
        )
    return Store(place / "mimic-iv"), Store(place / "meds")


def test_its_counts_are_those_of_the_release(open_data: Path) -> None:
    read = Meds(open_data / "mimic_iv_demo_meds", duckdb.connect())
    assert read.variables == "mimic_iv"
    assert len(read.subjects()) == 100
    assert read.subjects()["death_date"].null_count == 69
    assert len(read.stays()) == 140
    admissions = read.admissions()
    assert (len(admissions), sum(admissions["died"].to_pylist())) == (275, 15)
    assert admissions["deathtime"].null_count == 260
    assert sum(read.numbers.values()) == 405_236


def rows_by_question(store: Store) -> dict[tuple[Any, ...], dict[str, Any]]:
    return {
        (r["task"], r["subject_id"], r["prediction_time"]): r for r in store.samples.to_pylist()
    }


def test_the_same_patients_have_the_same_questions_and_answers(
    stores: tuple[Store, Store],
) -> None:
    tables, meds = map(rows_by_question, stores)
    assert len(tables) == 17_434
    assert tables.keys() <= meds.keys()  # there, stays that end in another unit are kept as well
    same = ("label", "label_mask", "split", "hours", "has_series", "group:sex", "group:age_band",
            "group:admission_type")  # fmt: skip
    assert {name: sum(tables[k][name] != meds[k][name] for k in tables) for name in same} == (
        dict.fromkeys(same, 0)
    )


def test_the_same_patients_have_the_same_series(stores: tuple[Store, Store]) -> None:
    """Every event of every kept stay: time, when it was visible, variable, value."""

    def events(store: Store, row: dict[str, Any]) -> list[tuple[float, ...]]:
        part = slice(row["series_first"], row["series_stop"])
        arrays = (store.events[n][part] for n in ("seconds", "available", "variable", "value"))
        return sorted(zip(*(array.tolist() for array in arrays), strict=True))

    tables, meds = map(rows_by_question, stores)
    compared = 0
    for key in (k for k in tables if k[0] == "phenotyping"):
        found = events(stores[0], tables[key])
        assert found == events(stores[1], meds[key])
        compared += len(found)
    assert compared == 83_242
