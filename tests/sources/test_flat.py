"""A hospital's own tables become tidy ones, each datum from the time on at which it was there."""

import shutil
from collections import Counter
from datetime import date, datetime
from pathlib import Path

import pytest
from flat_folders import counted, damaged, events_of, opened, read, write

from flexcare.errors import UserError
from flexcare.preparation import prepare
from flexcare.sources.flat import write_template
from flexcare.store import Store
from prepared import answers, quiet
from test_leakage import same_inputs, total

HOURLY = "decompensation,length_of_stay,return_30d"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flat") / "example"
    write_template(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The example, to be changed."""
    write_template(tmp_path / "folder")
    return tmp_path / "folder"


def prepared(folder: Path, out: Path, tasks: str | None = None) -> Store:
    prepare("flat", folder, out, tasks=tasks, settings={"film_side": 28}, say=quiet)
    return Store(out)


def test_every_row_of_the_example_is_read(example: Path) -> None:
    source = opened(example)
    events = events_of(source)
    found = Counter(row["variable"] for row in events)
    tables = ("events", "codes", "embeddings", "waves")
    rows = [row for name in tables for row in read(example, name)]
    assert found == Counter(row["variable"] for row in rows)
    assert not source.dropped
    (slide,) = (r for r in events if (r["stay_id"], r["variable"]) == (101, "slide"))
    (given,) = (r for r in read(example, "embeddings") if r["stay_id"] == 101)
    assert (slide["hours"], slide["available"], slide["value"]) == (0, 24, given["vector"])
    assert {r["value"] for r in events if r["variable"] == "diagnosis"} == {"I50.0", "J18.9"}


def test_categories_are_numbered_and_numbers_are_read_as_they_are(example: Path) -> None:
    events = events_of(opened(example))
    sexes = {row["stay_id"]: row["value"] for row in events if row["variable"] == "sex"}
    assert sexes == {100 + n: n % 2 for n in range(1, 61)}  # female, male
    ages = [row["value"] for row in events if row["variable"] == "age"]
    assert ages == [float(r["value"]) for r in read(example, "events") if r["variable"] == "age"]


def test_what_is_known_long_before_the_stay_counts_unless_it_is_a_series(folder: Path) -> None:
    rows = read(folder, "events")
    for minute, row in enumerate(rows):  # no two rows at one time, which may say the same
        if row["stay_id"] == "101" and row["variable"] in ("age", "heart_rate"):
            row["time"] = f"2030-01-01 {minute // 60:02}:{minute % 60:02}"
    write(folder, "events", rows)
    source = opened(folder)
    found = {r["variable"] for r in events_of(source) if r["stay_id"] == 101 and r["hours"] < -24}
    assert found == {"age"}
    assert source.dropped == {"events outside the stay": 12}


def test_a_value_out_of_range_is_dropped_and_counted(folder: Path) -> None:
    rows = read(folder, "events")
    next(row for row in rows if row["variable"] == "heart_rate")["value"] = 999
    write(folder, "events", rows)
    source = opened(folder)
    assert 999 not in [row["value"] for row in events_of(source)]
    assert source.dropped == {"events outside the plausible range": 1}


def test_an_event_that_stands_there_twice_counts_once(folder: Path) -> None:
    before = events_of(opened(folder))
    rows = read(folder, "events")
    same = next(row for row in rows if row["variable"] == "heart_rate")
    write(folder, "events", [*rows, same, same, {**same, "value": "81.5"}])
    source = opened(folder)
    assert len(events_of(source)) == len(before) + 1  # another value at that time is another event
    assert source.dropped == {"events that repeat another row": 2}


@pytest.mark.parametrize(
    ("died", "expected"),
    [
        ("", None),
        ("2031-01-05 12:00", datetime(2031, 1, 5, 12)),
        ("2031-01-05", datetime(2031, 1, 6)),  # by the end of that day
        ("2031-01-06", datetime(2031, 1, 6, 8)),  # or of the stay
        ("2031-01-06 09:00", None),  # after it
        ("2031-03-01", None),
    ],
)
def test_a_death_in_the_stay_is_its_end(folder: Path, died: str, expected: datetime | None) -> None:
    rows = read(folder, "subjects")
    rows[0]["died_at"] = died
    write(folder, "subjects", rows)
    source = opened(folder)
    admission = source.admissions().to_pylist()[0]
    died_there = expected is not None if died else None  # nobody has a time of death
    assert (admission["deathtime"], admission["died"]) == (expected, died_there)
    dates = source.subjects()["death_date"].to_pylist()
    assert dates[0] == (date.fromisoformat(died[:10]) if died else None)


def test_nobody_is_a_survivor_where_no_death_is_known(folder: Path, tmp_path: Path) -> None:
    assert set(opened(folder).admissions()["died"].to_pylist()) == {None}
    with pytest.raises(UserError, match="does not say who died"):
        prepared(folder, tmp_path / "s", "decompensation")
    rows = read(folder, "subjects")
    rows[0]["died_at"] = "2041-01-01"
    write(folder, "subjects", rows)
    assert set(opened(folder).admissions()["died"].to_pylist()) == {False}


def test_a_folder_without_questions_says_so(folder: Path, tmp_path: Path) -> None:
    (folder / "tasks" / "return_30d.toml").unlink()
    with pytest.raises(UserError, match="nothing is asked"):
        prepared(folder, tmp_path / "s")
    with pytest.raises(UserError, match="no folder"):
        prepared(folder / "none", tmp_path / "s")


def test_the_folders_tasks_are_asked(example: Path, tmp_path: Path) -> None:
    store = prepared(example, tmp_path / "s")
    assert list(store.tasks) == ["return_30d"]
    assert answers(store, "return_30d") == {
        f"{row['stay_id']}/48": float(row["value"]) for row in read(example, "labels")
    }
    named = prepared(example, tmp_path / "s2", "length_of_stay,return_30d")
    assert set(named.tasks) == {"return_30d", "length_of_stay"}


def test_faulty_tables_leave_nothing_behind(folder: Path, tmp_path: Path) -> None:
    rows = read(folder, "events")
    for row in rows:
        row["variable"] = "weight"
    write(folder, "events", rows)
    with pytest.raises(UserError, match=r"faults in the tables(.|\n)*row 2, column variable"):
        prepared(folder, tmp_path / "s")
    assert {path.name for path in tmp_path.iterdir()} == {"folder"}


def test_folders_that_flat_does_not_read_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no companions(.|\n)*--cxr"):
        prepare("flat", folder, tmp_path / "s", cxr=folder, say=quiet)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_that_came_later_is_among_the_tables_of_a_moment(
    example: Path, tmp_path: Path, seed: int
) -> None:
    moments = damaged(example, tmp_path / "d", seed)
    before, after = opened(example), opened(tmp_path / "d")
    starts = {int(r["stay_id"]): datetime.fromisoformat(r["start"]) for r in read(example, "stays")}
    limit = {stay: (moments[stay - 100] - start).total_seconds() / 3600
             for stay, start in starts.items()}  # fmt: skip
    known = [
        counted([row for row in events_of(source) if row["available"] <= limit[row["stay_id"]]])
        for source in (before, after)
    ]
    assert known[0] == known[1]
    for name in ("slide", "age", "heart_rate", "diagnosis", "ecg"):  # the test is about something
        assert any(f"'{name}'" in row for row in known[0])
    for table, column in (("images", "time"), ("documents", "available_at")):
        there = []
        for source in (before, after):
            found = getattr(source, table)()
            rows = found.to_pylist() if table == "images" else [
                row for batch in found for row in batch.to_pylist()
            ]  # fmt: skip
            there.append(counted([
                {k: v for k, v in row.items() if k != "document_id"}
                for row in rows if row[column] <= moments[row["subject_id"]]
            ]))  # fmt: skip
        assert there[0] == there[1]
        assert there[0]


def test_nothing_after_the_prediction_time_is_used(example: Path, tmp_path: Path) -> None:
    example = shutil.copytree(example, tmp_path / "whole")
    rows = read(example, "subjects")
    rows[0]["died_at"] = "2031-01-06"
    write(example, "subjects", rows)
    store = prepared(example, tmp_path / "s", HOURLY)
    seen: Counter[str] = Counter()
    for seed in range(2):
        moments = damaged(example, tmp_path / f"d{seed}", seed)
        other = prepared(tmp_path / f"d{seed}", tmp_path / f"s{seed}", HOURLY)
        both, different = same_inputs(store, other, moments)
        assert {task: +counts for task, counts in different.items() if +counts} == {}
        seen += Counter({name: total(both, name) for name in store.modalities})
        later = same_inputs(store, other, dict.fromkeys(moments, datetime.max))[1]
        assert all(total(later, name) for name in ("film", "note"))  # it would be noticed
    assert min(seen[name] for name in store.modalities) > 0
