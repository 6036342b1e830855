"""MEDS rows become subjects, stays, admissions and values; and what cannot be used is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flexcare.errors import UserError
from flexcare.preparation import prepare
from flexcare.sources.meds import Meds
from flexcare.store import Store
from meds_data import HEART_RATE, PH, Dataset, at, events_of, prepared, put, ward
from prepared import answers, quiet


def source(folder: Path) -> Meds:
    return Meds(folder, duckdb.connect())


def columns(table: pa.Table, *names: str) -> list[tuple[Any, ...]]:
    return sorted(zip(*(table[name].to_pylist() for name in names), strict=True))


def test_stays_and_admissions_are_found_by_their_codes(tmp_path: Path) -> None:
    data = Dataset()
    data.patient(1, 10, 2)
    data.patient(2, 20, 3, died=True)
    read = source(data.write(tmp_path))
    assert columns(read.stays(), "subject_id", "intime", "outtime", "los", "first_unit") == [
        (1, at(10), at(58), 2.0, "MICU"),
        (2, at(20), at(92), 3.0, "MICU"),
    ]
    admissions = columns(read.admissions(), "subject_id", "admittime", "dischtime", "died")
    assert admissions == [(1, at(8), at(68), False), (2, at(18), at(102), True)]
    assert columns(read.admissions(), "admission_type") == [("URGENT",)] * 2
    assert sorted(read.admissions()["deathtime"].to_pylist(), key=str) == [at(91.5), None]
    assert set(read.stays()["hadm_id"].to_pylist()) == set(read.admissions()["hadm_id"].to_pylist())
    assert columns(read.subjects(), "subject_id", "sex") == [(1, "F"), (2, "F")]


def test_the_age_is_in_whole_years_at_the_first_stay(tmp_path: Path) -> None:
    data = Dataset()
    for subject, born in ((1, -18 * 8766.0 - 48), (2, -18 * 8766.0 + 48)):
        data.patient(subject)
        data.rows = [
            r for r in data.rows if (r["subject_id"], r["code"]) != (subject, "MEDS_BIRTH")
        ]
        data.add(subject, born, "MEDS_BIRTH")
    table = source(data.write(tmp_path)).subjects()
    assert columns(table, "subject_id", "anchor_age") == [(1, 18.0), (2, 17.0)]
    assert set(table["anchor_year"].to_pylist()) == {2150}


def test_impossible_ages_are_missing_and_counted(tmp_path: Path) -> None:
    data = Dataset()
    for subject, years in enumerate((60, 450, -1), 1):
        data.patient(subject)
        born = [r for r in data.rows if (r["subject_id"], r["code"]) == (subject, "MEDS_BIRTH")]
        born[0]["time"] = at(-years * 8766.0)
    read = source(data.write(tmp_path))
    assert columns(read.subjects(), "subject_id", "anchor_age")[0] == (1, 60.0)
    assert read.subjects()["anchor_age"].null_count == 2
    assert read.dropped["impossible ages, taken as missing"] == 2


def test_an_end_belongs_to_the_last_beginning_before_it(tmp_path: Path) -> None:
    data = Dataset()
    data.person(1)
    data.add(1, 0, "ICU_ADMISSION//A")
    data.add(1, 10, "ICU_ADMISSION//B")  # the first has no end
    data.add(1, 20, "ICU_DISCHARGE//B")
    data.add(1, 20, "ICU_ADMISSION//C")
    data.add(1, 30, "ICU_DISCHARGE//D")
    stays = source(data.write(tmp_path)).stays()
    assert columns(stays, "intime", "outtime", "last_unit")[1:] == [
        (at(10), at(20), "B"),
        (at(20), at(30), "C"),
    ]
    assert stays["outtime"].null_count == 1


def test_numbers_of_stays_depend_on_the_stay_alone(tmp_path: Path) -> None:
    alone, beside = Dataset(), ward(5)
    alone.patient(3, 90, 2.5, died=True)
    ids = [set(columns(source(d.write(tmp_path / n)).stays(), "stay_id", "hadm_id"))
           for n, d in (("a", alone), ("b", beside))]  # fmt: skip
    assert len(ids[1]) == 5
    assert ids[0] < ids[1]


def test_a_death_without_a_time_is_a_date(tmp_path: Path) -> None:
    data = Dataset()
    data.patient(1, 0, 3, died=True)
    next(r for r in data.rows if r["code"] == "MEDS_DEATH")["time"] = at(72)
    read = source(data.write(tmp_path))
    assert read.admissions()["died"].to_pylist() == [True]
    assert read.admissions()["deathtime"].to_pylist() == [None]
    assert read.subjects()["death_date"].to_pylist() == [at(72).date()]  # type: ignore[union-attr]


@pytest.mark.parametrize("hours", [50.0, 200.0])
def test_without_codes_of_death_in_hospital_the_time_decides(tmp_path: Path, hours: float) -> None:
    data = Dataset()
    data.patient(1)
    data.add(1, hours, "MEDS_DEATH")
    assert source(data.write(tmp_path)).admissions()["died"].to_pylist() == [hours < 82]


def test_without_an_icu_the_admission_is_the_stay(tmp_path: Path) -> None:
    data = ward(2)
    data.rows = [row for row in data.rows if not row["code"].startswith("ICU")]
    read = source(data.write(tmp_path))
    assert columns(read.stays(), "hadm_id", "intime") == columns(
        read.admissions(), "hadm_id", "admittime"
    )
    assert read.stays()["stay_id"].to_pylist() == read.stays()["hadm_id"].to_pylist()


def test_without_stays_the_whole_record_is_one_and_ends_with_the_dataset(tmp_path: Path) -> None:
    data = Dataset()
    for subject in (1, 2):
        data.person(subject)
        data.add(subject, 5 * subject, HEART_RATE, 80.0)
    data.add(2, 100, PH, 7.3)
    read = source(data.write(tmp_path))
    assert columns(read.stays(), "subject_id", "intime", "outtime") == [
        (1, at(5), at(100)),
        (2, at(10), at(100)),
    ]
    assert len(read.admissions()) == 2


def test_own_codes_replace_those_of_the_package(tmp_path: Path) -> None:
    data = ward(1)
    for row in data.rows:
        row["code"] = row["code"].replace("ICU_ADMISSION", "IN").replace("ICU_DISCHARGE", "OUT")
    folder = data.write(tmp_path)
    (folder / "flexcare_codes.toml").write_text('stay = ["IN", "OUT"]\n')
    assert source(folder).stays()["first_unit"].to_pylist() == ["MICU"]
    (folder / "flexcare_codes.toml").write_text('stays = ["IN", "OUT"]\n')
    with pytest.raises(UserError, match="unknown setting"):
        source(folder)


def test_values_are_those_of_the_items_within_the_stay(tmp_path: Path) -> None:
    data = Dataset()
    data.patient(1, 0, 2)
    data.rows = [row for row in data.rows if not row["code"].startswith("LAB")]
    for hours, code, number in (
        (-25, HEART_RATE, 1.0), (-3, HEART_RATE, 2.0), (4, "LAB//220045", 98.4),
        (48, HEART_RATE, 5.0), (49, HEART_RATE, 6.0), (7, "LAB//2200451//bpm", 7.0),
        (8, "OTHER//220045", 8.0),
        (9, "LAB//223761//°F", 98.6), (10, "LAB//223835//UNK", 21.0), (11, HEART_RATE, np.nan),
    ):  # fmt: skip
        data.add(1, hours, code, number)
    data.add(1, 12, "LAB//220739//UNK", None, "To Pain")
    store = prepared(data.write(tmp_path / "d"), tmp_path / "s", "phenotyping")
    assert events_of(store, 1) == [
        (-3, "heart_rate", 2.0), (4, "heart_rate", 98.4), (9, "temperature", 37.0),
        (10, "fraction_inspired_oxygen", 0.21), (12, "gcs_eye", 1.0), (48, "heart_rate", 5.0),
    ]  # fmt: skip
    assert store.manifest["dropped"] == {
        "events of no stay of the cohort": 2,
        "events without a usable value": 1,
    }


def test_items_may_be_codes_and_beginnings_of_codes(tmp_path: Path) -> None:
    data = ward(1)
    data.add(1, 40, "Blood Pressure", 120.0)
    mine = tmp_path / "mine.toml"
    mine.write_text(
        '[rate]\nunit = "1/min"\nitems = ["LAB//220045"]\nnormal = 80\n'
        '[pressure]\nunit = "mmHg"\nitems = ["Blood Pressure"]\nnormal = 120\n'
    )
    store = prepared(data.write(tmp_path / "d"), tmp_path / "s", "phenotyping", variables=str(mine))
    assert {name for _, name, _ in events_of(store, 1)} == {"rate", "pressure"}


def test_sorted_or_not_and_in_one_file_or_many_gives_the_same_store(tmp_path: Path) -> None:
    data, table = ward(5), ward(5).table()
    mixed = table.take(np.random.default_rng(0).permutation(len(table)))
    old = table.drop_columns(["numeric_value", "text_value", "hadm_id"])
    old = old.append_column("value", table["numeric_value"])
    folders = [
        data.write(tmp_path / "many", 3),
        put(tmp_path / "mixed", mixed),
        put(tmp_path / "flat", table, "x.parquet"),
        put(tmp_path / "old", old),
        put(tmp_path / "file", table) / "data" / "0.parquet",
    ]
    stores = [prepared(f, tmp_path / f"s{i}") for i, f in enumerate(folders)]
    assert {s.manifest["content"]["samples.parquet"] for s in stores[1:]} == {
        stores[0].manifest["content"]["samples.parquet"]
    }
    assert len({s.manifest["content"]["events/value.npy"] for s in stores}) == 1


@pytest.mark.parametrize("beside", [False, True])
def test_numbers_are_found_whatever_the_column_of_their_shard(tmp_path: Path, beside: bool) -> None:
    """Shards of both versions of MEDS; and one with both columns, the newer of them empty."""
    table = ward(4).table()
    old = table.rename_columns({"numeric_value": "value"})
    if beside:
        empty = pa.nulls(len(table), pa.float32())
        folder = put(tmp_path / "d", old.append_column("numeric_value", empty))
    else:
        folder = put(tmp_path / "d", table.slice(0, 40))
        put(folder, old.slice(40), "data/1.parquet")
    counts = [sum(source(f).numbers.values()) for f in (folder, put(tmp_path / "plain", table))]
    assert counts[0] == counts[1] > 0


def test_the_datasets_own_test_set_is_held_out(tmp_path: Path) -> None:
    folder = ward(6).write(tmp_path / "d")
    names = ["held_out" if n in (2, 5) else "train" for n in range(1, 7)]
    put(folder, pa.table({"subject_id": list(range(1, 7)), "split": names}),
        "metadata/subject_splits.parquet")  # fmt: skip
    store = prepared(folder, tmp_path / "s", "phenotyping")
    held_out = {r["subject_id"] for r in store.samples.to_pylist() if r["split"] == "held_out"}
    assert held_out == {2, 5}


def test_diagnoses_belong_to_the_admission_in_which_they_are_charted(tmp_path: Path) -> None:
    data = Dataset()
    data.patient(1)
    data.add(1, 82, "DIAGNOSIS//ICD//10//N179")
    data.add(1, 83, "DIAGNOSIS//ICD//9//5849")
    read = source(data.write(tmp_path))
    assert columns(read.diagnoses(), "code", "version") == [("N179", 10)]


def test_where_no_file_fits_the_most_frequent_codes_of_the_training_split_are_taken(
    tmp_path: Path,
) -> None:
    data, said = ward(12), list[str]()
    for row in data.rows:
        row["code"] = row["code"].replace("LAB//220045", "PULSE//a").replace("LAB//50820", "PH//b")
    data.add(1, 31, "HOSPITAL_DISCHARGE//X", 5.0)  # not a value
    data.add(1, 999, "ONLY//after//stays", 5.0)
    folder = data.write(tmp_path / "d")
    splits = ["held_out" if n > 10 else "train" for n in range(1, 13)]
    put(folder, pa.table({"subject_id": list(range(1, 13)), "split": splits}),
        "metadata/subject_splits.parquet")  # fmt: skip
    shard = folder / "data/train/0.parquet"
    rare = [{"subject_id": 12, "time": at(400), "code": "ONLY//held//out", "numeric_value": 1.0}]
    pq.write_table(
        pa.concat_tables([pq.read_table(shard), pa.Table.from_pylist(rare, pq.read_schema(shard))]),
        shard,
    )
    prepare("meds", folder, tmp_path / "s", say=said.append, tasks="phenotyping")
    settings = Store(tmp_path / "s").modalities["series"].settings
    assert list(settings["variables"]) == ["PULSE//a//bpm", "PH//b//units"]
    assert settings["variables"]["PH//b//units"]["unit"] == "units"
    assert "range" not in settings["variables"]["PH//b//units"]
    assert "2 most frequent" in next(line for line in said if line.startswith("variables"))


def test_of_two_beginnings_of_a_code_the_longest_counts_once(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(
        f'[rate]\nunit = "1/min"\nitems = ["LAB//220045", "{HEART_RATE}"]\nnormal = 80\n'
    )
    store = prepared(
        ward(1).write(tmp_path / "d"), tmp_path / "s", "phenotyping", variables=str(mine)
    )
    hours = [hour for hour, _, _ in events_of(store, 1)]
    assert len(hours) == len(set(hours)) > 5


def test_a_label_file_asks_subjects_with_and_without_a_stay(tmp_path: Path) -> None:
    data = ward(4)
    data.person(9)
    data.add(9, 3, HEART_RATE, 70.0)
    labels = pa.table({
        "subject_id": [1, 2, 3, 4, 9, 77], "boolean_value": [True, False, True, False, True, True],
        "prediction_time": [at(54), at(84), at(114), at(5), at(50), at(5)],
    }).cast(pa.schema([("subject_id", pa.int64()), ("boolean_value", pa.bool_()),
                       ("prediction_time", pa.timestamp("us"))]))  # fmt: skip
    put(tmp_path, labels, "fall.parquet")
    store = prepared(data.write(tmp_path / "d"), tmp_path / "s", str(tmp_path / "fall.parquet"))
    rows = {r["subject_id"]: r["has_series"] for r in store.samples.to_pylist()}
    assert rows == {1: True, 2: True, 3: True, 4: False, 9: False}
    assert sorted(answers(store, "fall").values()) == [0, 0, 1, 1, 1]


def change(table: pa.Table, name: str, kind: pa.DataType | None) -> pa.Table:
    """The table with a column of another type, or without it."""
    place = table.column_names.index(name)
    if kind is None:
        return table.remove_column(place)
    return table.set_column(place, name, table[name].cast(kind))


DAMAGE: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "zone": (lambda t: change(t, "time", pa.timestamp("us", "UTC")), "without a zone"),
    "time as text": (lambda t: change(t, "time", pa.string()), "timestamp"),
    "subject as text": (lambda t: change(t, "subject_id", pa.string()), "int64"),
    "subject as float": (lambda t: change(t, "subject_id", pa.float64()), "int64"),
    "number as text": (lambda t: change(t, "numeric_value", pa.string()), "float32"),
    "no subject": (lambda t: change(t, "subject_id", None), "has no column subject_id"),
    "no time": (lambda t: change(t, "time", None), "has no column time"),
    "no code": (lambda t: change(t, "code", None), "has no column code"),
    "no numbers": (lambda t: change(t, "numeric_value", None), "no numeric values"),
    "no rows": (lambda t: t.slice(0, 0), "no numeric values"),
}


def refused(folder: Path, message: str, **settings: Any) -> UserError:
    """The error of preparing; nothing is left."""
    out = folder.parent / "out"
    with pytest.raises(UserError) as caught:
        prepare("meds", folder, out, say=quiet, tasks="phenotyping", **settings)
    assert message in str(caught.value)
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]
    return caught.value


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("variables", [None, "mimic_iv"])
def test_bad_input_is_one_clear_error(tmp_path: Path, name: str, variables: str | None) -> None:
    damage, message = DAMAGE[name]
    folder = put(tmp_path / "d", ward(4).table(), "data/a.parquet")
    put(folder, damage(ward(4).table()), "data/b.parquet")
    if name in ("no numbers", "no rows"):
        (folder / "data/a.parquet").unlink()
    if name == "no rows":
        message = "no ICU stay is left"
    refused(folder, message, variables=variables)


def test_a_damaged_shard_is_told_by_name_and_without_its_rows(tmp_path: Path) -> None:
    folder = ward(4).write(tmp_path / "d")
    shard = folder / "data/train/1.parquet"
    content = bytearray(shard.read_bytes())
    shard.write_bytes(content[:-20])
    assert "1.parquet" in refused(folder, "cannot be read").what
    content[4:200] = b"x" * 196  # the pages, not the footer
    shard.write_bytes(content)
    assert "checksum" in refused(folder, "train/1.parquet cannot be read to its end").do


def test_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "d" / "data").mkdir(parents=True)
    refused(tmp_path / "d", "is not a MEDS dataset")
    with pytest.raises(UserError, match="no such folder"):
        source(tmp_path / "nowhere")


def test_rows_without_subject_or_code_are_counted(tmp_path: Path) -> None:
    data = ward(2)
    for column in ("subject_id", "code"):
        data.add(2, 50, HEART_RATE, 70.0)[column] = None
    store = prepared(put(tmp_path / "d", data.table()), tmp_path / "s", "phenotyping")
    assert store.manifest["dropped"]["rows without subject_id or code"] == 2


def test_an_earlier_store_gives_its_events_while_no_shard_changed(tmp_path: Path) -> None:
    folder = ward(4).write(tmp_path / "d")
    prepared(folder, tmp_path / "first", "phenotyping")
    for name, taken in (("second", True), ("third", False)):
        said = list[str]()
        prepare("meds", folder, tmp_path / name, tasks="phenotyping", variables="mimic_iv",
                reuse=tmp_path / "first", say=said.append)  # fmt: skip
        assert any("taken from first" in line for line in said) == taken
        files = Store(tmp_path / name).manifest["source_files"]
        assert list(files) == ["data/train/0.parquet", "data/train/1.parquet"]
        data = ward(4)
        data.add(3, 100, HEART_RATE, 99.0)
        data.write(folder)
