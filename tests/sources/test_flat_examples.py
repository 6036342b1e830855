"""The examples turn real open data into flat tables, with the counts that are known of them."""

import importlib.util
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from flat_folders import events_of, opened, read

from flexcare.sources.flat import faults_of

EXAMPLES = Path(__file__).parents[2] / "examples"
Main = Callable[[Path, Path], None]


def written(name: str, data: Path, out: Path) -> Path:
    """What an example writes."""
    if not data.is_dir():
        pytest.skip(f"no {data}")
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(data, out)
    return out


@pytest.fixture(scope="module")
def hancock(open_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hancock") / "tables"
    return written("hancock", open_data / "hancock" / "features", out)


@pytest.fixture(scope="module")
def hannover(open_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hannover") / "tables"
    return written("hannover", open_data / "hannover_cxr", out)


@pytest.fixture(scope="module")
def ptbxl(open_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ptbxl") / "tables"
    return written("ptbxl", open_data / "ptbxl_500", out)


def test_the_tables_have_no_faults(hancock: Path, hannover: Path, ptbxl: Path) -> None:
    assert faults_of(hancock).lines() == []
    assert faults_of(hannover).lines() == []
    assert faults_of(ptbxl).lines() == []


def test_hancock_has_the_patients_that_are_known(hancock: Path) -> None:
    source = opened(hancock)
    events = events_of(source)
    assert not source.dropped
    of = {
        name: {r["stay_id"] for r in events if r["variable"] == name}
        for name in ("age_at_initial_diagnosis", "grading", "leukocytes", "diagnosis", "HE", "CD3")
    }
    assert {name: len(stays) for name, stays in of.items()} == {
        "age_at_initial_diagnosis": 763, "grading": 763, "leukocytes": 692, "HE": 760, "CD3": 746,
        "diagnosis": 704,  # of 712 with codes 8 have none that is 1
    }  # fmt: skip
    assert {vectors.shape[1] for vectors in source.vectors.values()} == {512}
    assert len(source.codes["diagnosis"]) == 40


def test_hancock_asks_where_the_answer_is_known(hancock: Path) -> None:
    found = Counter((row["name"], row["value"]) for row in read(hancock, "labels"))
    assert found == {
        ("recurrence_2y", "1"): 133, ("recurrence_2y", "0"): 456,
        ("death_3y", "1"): 139, ("death_3y", "0"): 411,
        ("event_3y", "1"): 217, ("event_3y", "0"): 356,  # 11 events before the question
    }  # fmt: skip


def test_no_outcome_of_hancock_is_among_its_inputs(hancock: Path) -> None:
    names = {row["variable"] for row in read(hancock, "events")}
    assert "primarily_metastasis" not in names
    assert not any(
        word in name for name in names for word in ("recurrence", "surviv", "rfs", "days")
    )


def test_before_surgery_only_what_was_known_then_is_there(hancock: Path) -> None:
    early = {row["variable"] for row in events_of(opened(hancock)) if row["available"] < 12}
    assert {"age_at_initial_diagnosis", "leukocytes"} <= early
    assert not early & {"grading", "cd3_z", "HE", "diagnosis", "pT_stage"}


def test_hannover_has_its_films_and_patients(hannover: Path) -> None:
    source = opened(hannover)
    assert (len(source.subjects()), len(source.images())) == (71, 243)
    found = Counter((row["name"], row["value"]) for row in read(hannover, "labels"))
    assert found == {
        ("death_14d", "1"): 27, ("death_14d", "0"): 189,
        ("icu_7d", "1"): 79, ("icu_7d", "0"): 38,
    }  # fmt: skip


def test_a_lab_of_hannover_is_known_at_the_end_of_its_day(hannover: Path) -> None:
    labs = [row for row in events_of(opened(hannover)) if row["variable"] != "sex"]
    assert len(labs) > 700
    assert all(row["available"] % 24 == 0 and row["available"] > row["hours"] for row in labs)


def test_ptbxl_has_its_patients_records_and_superclasses(ptbxl: Path) -> None:
    source = opened(ptbxl)
    assert (len(source.subjects()), len(source.stays()), len(source.waves["ecg"])) == (
        466,
        500,
        500,
    )
    yes = Counter(row["name"] for row in read(ptbxl, "labels") if row["value"] == "1")
    assert yes == {"norm": 297, "sttc": 96, "cd": 78, "mi": 73, "hyp": 40}
    assert len({row["stay_id"] for row in read(ptbxl, "labels")}) == 488  # 12 have none


def test_records_of_ptbxl_are_its_numbers_in_millivolt(ptbxl: Path) -> None:
    """The first values and the leads are those of the record's header."""
    record = pq.read_table(ptbxl / "ecg" / "1.parquet")
    first = [round(1000 * record[name][0].as_py()) for name in record.column_names]
    assert first == [-119, -55, 64, 86, -91, 4, -69, -31, 0, -26, -39, -79]
    assert record.column_names[:3] == ["I", "II", "III"]
    leads = {name: record[name].to_numpy() for name in record.column_names}
    assert abs(leads["I"] + leads["III"] - leads["II"]).max() < 0.005  # Einthoven


def test_no_report_of_ptbxl_is_among_its_inputs(ptbxl: Path) -> None:
    assert {row["variable"] for row in read(ptbxl, "events")} == {"age", "sex"}
    assert not (ptbxl / "documents.csv").exists()
    assert all(row["available"] > row["hours"] for row in events_of(opened(ptbxl))
               if row["variable"] == "ecg")  # fmt: skip
