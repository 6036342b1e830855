"""Bad input: one clear error that names the thing and says what to do; nothing is left behind,
and no word of a patient is repeated."""

import errno
import gzip
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

import flexcare.features.films as reading_films
import flexcare.preparation as preparing
from flexcare.errors import UserError
from flexcare.preparation import prepare
from flexcare.sources.tables import reading
from flexcare.store import GrowingArray
from hospital import HEART_RATE, Hospital, at, put
from prepared import Make, everything, prepare_there, quiet

SECRET = "Zanzibar"  # stands in rows; may stand in no error
EVERY_TABLE = [
    "hosp/patients", "hosp/admissions", "hosp/diagnoses_icd", "hosp/drgcodes", "hosp/labevents",
    "icu/icustays", "icu/chartevents", "cxr/mimic-cxr-2.0.0-metadata",
    "cxr/mimic-cxr-2.0.0-chexpert", "note/discharge", "note/radiology", "ed/edstays", "ed/triage",
]  # fmt: skip
OPTIONAL = {"hosp/drgcodes", "note/discharge", "note/radiology"}


def hospital() -> Hospital:
    """Two patients, with a secret in every text."""
    made = everything(2)
    for rows in made.tables.values():
        for row in rows:
            for column in ("text", "chiefcomplaint", "race", "description", "value"):
                if column in row:
                    row[column] = f"Past Medical History:\n{SECRET}\nImpression: {SECRET}"
    return made


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the hospital."""
    folder = hospital().write(tmp_path_factory.mktemp("sound"))
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def folder(sound: dict[str, bytes], tmp_path: Path) -> Path:
    """A copy of the hospital, to be damaged."""
    for name, content in sound.items():
        put(tmp_path / "h" / name, content, packed=False)
    return tmp_path / "h"


def refused(folder: Path, left: Set[str] = frozenset(), **settings: Any) -> UserError:
    """The error of preparing; checks that nothing but `left` may be left, and nothing told."""
    out = folder.parent / "out"
    with pytest.raises(UserError) as caught:
        prepare_there(folder, out, **settings)
    assert {p.name for p in folder.parent.iterdir()} - left == {"h"}
    assert SECRET not in str(caught.value)
    assert SECRET not in str(caught.value.__cause__)
    assert caught.value.what
    assert caught.value.expected
    return caught.value


def text_of(folder: Path, table: str) -> str:
    return gzip.decompress((folder / f"{table}.csv.gz").read_bytes()).decode()


def rewrite(folder: Path, table: str, change: Callable[[str], str]) -> None:
    put(folder / f"{table}.csv.gz", change(text_of(folder, table)).encode())


@pytest.mark.parametrize("table", EVERY_TABLE)
def test_a_truncated_file(folder: Path, table: str) -> None:
    path = folder / f"{table}.csv.gz"
    path.write_bytes(path.read_bytes()[:-9])
    error = refused(folder)
    assert table.split("/")[1] in str(error)
    assert "checksum" in error.do


@pytest.mark.parametrize("table", EVERY_TABLE)
def test_a_file_that_is_no_gzip(folder: Path, table: str) -> None:
    path = folder / f"{table}.csv.gz"
    path.write_bytes(gzip.decompress(path.read_bytes()))
    assert table.split("/")[1] in str(refused(folder))


@pytest.mark.parametrize("table", EVERY_TABLE)
@pytest.mark.parametrize("how", ["too many", "too few"])
def test_a_row_with_another_number_of_fields(folder: Path, table: str, how: str) -> None:
    row = f"{SECRET}," * 40 if how == "too many" else f"{SECRET}"
    rewrite(folder, table, lambda text: text + row + "\n")
    assert table.split("/")[1] in str(refused(folder))


@pytest.mark.parametrize("table", EVERY_TABLE)
def test_a_missing_table(folder: Path, table: str) -> None:
    (folder / f"{table}.csv.gz").unlink()
    if table in OPTIONAL:
        prepare_there(folder, folder.parent / "out")
    else:
        error = refused(folder)
        assert table.split("/")[1] in error.what
        assert "is missing" in error.what


@pytest.mark.parametrize("table", EVERY_TABLE)
def test_a_missing_column_is_told_with_the_nearest(folder: Path, table: str) -> None:
    column = "note_id" if "note/" in table else text_of(folder, table).split(",", 1)[0]
    column = "subject_id" if column == "labevent_id" else column
    rewrite(folder, table, lambda text: text.replace(column, column.replace("_", "") + "s", 1))
    if table in ("hosp/diagnoses_icd", "hosp/drgcodes", "icu/chartevents", "ed/triage",
                 "cxr/mimic-cxr-2.0.0-chexpert"):  # fmt: skip
        prepare_there(folder, folder.parent / "out")  # these need no subject_id
        return
    error = refused(folder)
    assert error.what.endswith(f"has no column {column}")
    assert f"Did you mean '{column.replace('_', '')}s'?" in error.do


def test_an_empty_file(folder: Path) -> None:
    put(folder / "icu/chartevents.csv.gz", b"")
    assert "is empty" in refused(folder).what


def test_a_file_of_a_header_alone_is_an_empty_table(folder: Path) -> None:
    for table in ("icu/chartevents", "hosp/labevents", "note/discharge", "ed/triage"):
        rewrite(folder, table, lambda text: text.split("\n")[0] + "\n")
    store = prepare_there(folder, folder.parent / "out", tasks="phenotyping")
    assert store.samples["has_series"].to_pylist() == [False, False]


@pytest.mark.parametrize("table", ["hosp/patients", "hosp/admissions", "icu/icustays"])
def test_a_core_table_without_rows_leaves_nobody(folder: Path, table: str) -> None:
    rewrite(folder, table, lambda text: text.split("\n")[0] + "\n")
    error = refused(folder)
    assert "no ICU stay is left" in error.what
    assert "remaining" not in error.found


@pytest.mark.parametrize(
    "table", ["hosp/patients", "hosp/admissions", "icu/icustays", "cxr/mimic-cxr-2.0.0-metadata",
              "cxr/mimic-cxr-2.0.0-chexpert"]
)  # fmt: skip
def test_a_key_that_stands_twice(make: Make, tmp_path: Path, table: str) -> None:
    made = hospital()
    made.tables[table].append(dict(made.tables[table][0]))
    error = refused(made.write(tmp_path / "h"))
    assert "is not unique" in error.what


@pytest.mark.parametrize("value", ["", "x17", "12.5"])
@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("hosp/patients", "subject_id"),
        ("hosp/admissions", "hadm_id"),
        ("hosp/admissions", "subject_id"),
        ("icu/icustays", "stay_id"),
        ("icu/icustays", "hadm_id"),
        ("icu/icustays", "subject_id"),
    ],
)
def test_a_key_that_is_no_number(tmp_path: Path, table: str, column: str, value: str) -> None:
    made = hospital()
    made.tables[table][1][column] = value
    error = refused(made.write(tmp_path / "h"))
    assert column in error.what
    assert "1 " in error.found


def test_values_that_cannot_be_read_are_counted(make: Make) -> None:
    made = Hospital()
    stay = made.patient(1)
    made.patient(2)
    made.chart(stay, 1, HEART_RATE, 80)
    made.chart(stay, 2, HEART_RATE, "eighty")
    made.chart(stay, 3, HEART_RATE, 80)["charttime"] = "3 o'clock"
    made.lab(1, 4, 50820, "7,4")
    made.tables["hosp/patients"][1]["dod"] = "2150-13-45"
    made.tables["hosp/admissions"][1]["deathtime"] = "?"
    made.tables["hosp/admissions"][1]["hospital_expire_flag"] = "maybe"
    assert make(made, tasks="phenotyping").manifest["dropped"] == {
        "events without a readable time": 1,
        "events without a usable value": 2,
        "hosp/admissions: deathtime cannot be read, taken as missing": 1,
        "hosp/admissions: hospital_expire_flag cannot be read, taken as missing": 1,
        "hosp/patients: dod cannot be read, taken as missing": 1,
    }


def test_documents_without_a_usable_section_are_counted(make: Make) -> None:
    made = Hospital()
    made.patient(1)
    made.summary(1, 10, "asthma")["text"] = ""
    made.report(1, 2, "x")["text"] = "no header at all"
    made.report(1, 3, "")
    assert make(made, tasks="phenotyping").manifest["dropped"] == {
        "documents without a usable section": 3
    }


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_marks_line_ends_and_quotes_change_nothing(
    folder: Path, ending: str, mark: bytes, quote: str
) -> None:
    for table in ("hosp/patients", "hosp/admissions", "icu/icustays"):
        lines = text_of(folder, table).splitlines()
        if table == "hosp/patients":
            lines = [",".join(f"{quote}{v}{quote}" for v in line.split(",")) for line in lines]
        put(folder / f"{table}.csv.gz", mark + "".join(line + ending for line in lines).encode())
    store = prepare_there(folder, folder.parent / "out", tasks="phenotyping")
    assert store.samples["stay_id"].to_pylist() == [1000000100, 1000000200]


def test_text_that_is_not_utf_8(folder: Path) -> None:
    content = text_of(folder, "note/radiology").encode().replace(SECRET.encode(), b"Caf\xe9")
    put(folder / "note/radiology.csv.gz", content)
    error = refused(folder)
    assert "radiology" in error.what
    assert "Caf" not in str(error)


def test_a_path_that_is_no_hospital(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for path, what in (
        (tmp_path / "nowhere", "is not MIMIC-IV"),
        (folder / "hosp", "is not MIMIC-IV"),
        (folder / "hosp" / "patients.csv.gz", "is not MIMIC-IV"),
    ):
        with pytest.raises(UserError, match=what):
            prepare("mimic-iv", path, out, say=quiet)
    for name in ("cxr", "note", "ed"):
        with pytest.raises(UserError, match="no folder"):
            prepare("mimic-iv", folder, out, say=quiet, **{name: tmp_path / "nowhere"})
    assert [p.name for p in tmp_path.iterdir()] == ["h"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "mimic_iv"}, "Did you mean 'mimic-iv'"),
        ({"preset": "papr"}, "Did you mean 'paper'"),
        ({"tasks": "drgs"}, "Did you mean 'drg'"),
        ({"settings": {"clok": "storetime"}}, "Did you mean 'clock'"),
        ({"settings": {"clock": "noon"}}, "clock = 'noon'"),
        ({"settings": {"min_age": "old"}}, "min_age"),
        ({"settings": {"variables": "mine"}}, "no variables file mine"),
        ({"settings": {"variables": "mine.toml"}}, "no file mine.toml"),
        (
            {"settings": {"text_encoder": "bert"}, "tasks": "phenotyping"},
            "unknown text encoder 'bert'",
        ),
    ],
)
def test_an_unknown_name(folder: Path, arguments: dict[str, Any], message: str) -> None:
    out = folder.parent / "out"
    arguments = {"source": "mimic-iv", "say": quiet, "note": folder / "note"} | arguments
    with pytest.raises(UserError) as caught:
        prepare(path=folder, out=out, **arguments)
    assert message in str(caught.value)
    assert [p.name for p in folder.parent.iterdir()] == ["h"]


def test_no_sample_of_any_task(folder: Path) -> None:
    rewrite(folder, "cxr/mimic-cxr-2.0.0-metadata", lambda text: text.split("\n")[0] + "\n")
    error = refused(folder, tasks="diagnosis")
    assert "no task has a single sample" in error.what


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("step", ["events", "films", "texts", "samples", "manifest"])
def test_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int) -> None:
    def full(*args: Any, **more: Any) -> Any:
        raise OSError(number, "no room")

    steps: dict[str, Callable[[], None]] = {
        "events": lambda: monkeypatch.setattr(GrowingArray, "append", full),
        "films": lambda: monkeypatch.setattr(preparing, "fit_films", full),
        "texts": lambda: monkeypatch.setattr(np, "save", full),
        "samples": lambda: monkeypatch.setattr(preparing.pq, "write_table", full),
        "manifest": lambda: monkeypatch.setattr(Path, "write_text", full),
    }
    steps[step]()
    error = refused(folder, left={".out.embeddings"})
    assert "no space left" in error.found
    assert "out" in error.what


def test_a_disk_that_fills_up_under_the_sorting(folder: Path) -> None:
    """DuckDB's own error of a full disk is told like any other."""
    message = 'IO Error: Could not write file "spill/x": No space left on device'
    with pytest.raises(OSError, match="no space") as caught, reading("chartevents"):
        raise duckdb.IOException(message)
    assert caught.value.errno == errno.ENOSPC


def test_memory_that_does_not_suffice() -> None:
    with pytest.raises(UserError, match="ran out of memory or disk") as caught, reading("x"):
        raise duckdb.OutOfMemoryException("Out of Memory Error: failed to pin\nmore words")
    assert caught.value.found == "Out of Memory Error: failed to pin"


def test_an_error_of_the_reader_repeats_no_row() -> None:
    message = f"Conversion Error: Could not convert string '{SECRET}' to DOUBLE\n  file = a/b.csv\n"
    with pytest.raises(UserError) as caught, reading("x"):
        raise duckdb.ConversionException(message)
    assert SECRET not in str(caught.value)
    assert "b.csv" in caught.value.found


def test_a_film_that_may_not_be_read_is_counted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: Path, side: int) -> None:
        raise PermissionError(errno.EACCES, "not for you")

    monkeypatch.setattr(reading_films, "read_film", forbidden)
    store = prepare_there(folder, folder.parent / "out", tasks="in_hospital_mortality")
    assert store.manifest["dropped"]["films that cannot be decoded"] == 2
    assert "film" not in {k for r in store.samples.to_pylist() for k in r if r["has_film"]}


def test_codes_without_version_are_no_accident(make: Make) -> None:
    made = Hospital()
    made.patient(1)
    made.add("hosp/diagnoses_icd", hadm_id=10, icd_code="N179", icd_version="")
    made.add("hosp/diagnoses_icd", hadm_id=10, icd_code="", icd_version=10)
    made.tables["hosp/admissions"][0]["dischtime"] = at(90)
    assert sum(make(made, tasks="phenotyping").samples["label"].to_pylist()[0]) == 0
