"""The Challenge 2012: descriptors, charted values, outcomes; nothing later and no outcome seen."""

from collections import Counter
from datetime import datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from challenges import (
    events_of,
    outcomes2012,
    pack,
    ready,
    record2012,
    some2012,
    truncate,
    write2012,
)
from flexcare.errors import UserError
from flexcare.features.variables import read_variables
from prepared import answers
from test_leakage import same_inputs

VARIABLES = read_variables(Path(str(files("flexcare.sources") / "physionet2012_variables.toml")))
START = datetime(2000, 1, 1)


def one(folder: Path, *rows: tuple[str, str, Any], **descriptors: Any) -> Path:
    """A folder with record 1 alone."""
    files_of_a = {"1.txt": record2012(1, *rows, **descriptors)}
    return write2012(folder, {"a": files_of_a}, {"a": outcomes2012((1, 5, -1, 0))})


@pytest.mark.parametrize("ending", [".tar.gz", ".tar.xz", ".tar", ".zip", ""])
def test_archives_and_folders_give_the_same(tmp_path: Path, ending: str) -> None:
    store = ready("physionet2012", some2012(tmp_path / "h", ending), tmp_path / "s")
    other = ready("physionet2012", some2012(tmp_path / "h0"), tmp_path / "s0")
    assert store.manifest["content"] == other.manifest["content"]
    assert len(store.manifest["source_files"]) == (4 if ending else 17)


def test_set_b_is_held_out_and_nobody_else(tmp_path: Path) -> None:
    store = ready("physionet2012", some2012(tmp_path / "h"), tmp_path / "s")
    split = dict(zip(*(store.samples[n].to_pylist() for n in ("subject_id", "split")), strict=True))
    assert {subject for subject, name in split.items() if name == "held_out"} == {13, 14, 15}


def test_outcomes_become_answers(tmp_path: Path) -> None:
    rows = [(1, -1, -1, 0), (2, 7, 365, 0), (3, 8, 366, 0), (4, 20, 9, 1), (5, 1, -23, 0),
            (6, 3, -23, 1)]  # fmt: skip
    files_of_a = {f"{n}.txt": record2012(n) for n in range(1, 8)}  # the seventh has no outcome
    folder = write2012(tmp_path / "h", {"a": files_of_a}, {"a": outcomes2012(*rows)})
    store = ready("physionet2012", folder, tmp_path / "s")
    found = {task: answers(store, task) for task in store.tasks}
    assert found["p2012_death"] == {"1": 0, "2": 0, "3": 0, "4": 1, "5": 0, "6": 1}
    assert found["p2012_long_stay"] == {"2": 0, "3": 1, "4": 1, "5": 0, "6": 0}
    assert found["p2012_survival"] == {"1": 0, "2": 1, "3": 0, "4": 1, "6": 1}
    assert found["p2012_remaining"] == {"2": 5, "3": 6, "4": 9, "6": 1}
    assert set(store.samples["hours"].to_pylist()) == {48.0}
    assert store.manifest["dropped"]["records without outcomes, kept"] == 1


def test_descriptors_are_static_and_a_weight_is_charted_too(tmp_path: Path) -> None:
    folder = one(tmp_path, ("00:00", "Weight", 90), ("01:30", "Weight", 91), ("01:30", "HR", 70),
                 ICUType=2, Weight=77, Gender=0)  # fmt: skip
    assert set(events_of("physionet2012", folder, VARIABLES)) == {
        (1, "age", 0, 0, 60.0), (1, "sex", 0, 0, 0.0), (1, "unit", 0, 0, 1.0),
        (1, "weight_at_admission", 0, 0, 77.0), (1, "weight", 0, 0, 90.0),
        (1, "weight", 5400, 5400, 91.0), (1, "heart_rate", 5400, 5400, 70.0),
    }  # fmt: skip


def test_minus_one_is_missing_and_units_are_converted(tmp_path: Path) -> None:
    rows = [("10:00", "pH", 735), ("11:00", "FiO2", 40), ("12:00", "Temp", -17.8)]
    folder = one(tmp_path / "h", *rows, Age=-1, Gender=-1, ICUType=-1, Weight=-1)
    found = {
        (name, value) for _, name, _, _, value in events_of("physionet2012", folder, VARIABLES)
    }
    assert found == {("ph", np.float32(7.35)), ("fraction_inspired_oxygen", np.float32(0.4))}
    store = ready("physionet2012", folder, tmp_path / "s")
    assert answers(store, "p2012_death") == {"1": 0}  # of unknown age and unit, and asked
    dropped = store.manifest["dropped"]
    assert dropped.pop("records without descriptors, kept") == 1
    assert dropped == {"events outside the plausible range": 1}


def test_odd_rows_are_counted(tmp_path: Path) -> None:
    rows = [("10:00", "Pulse", 70), ("ten", "HR", 70), ("11:00", "HR", "fast"), ("12:00", "HR", 71),
            ("48:01", "HR", 72), ("13:00", "HR,", 73), ("48:00", "HR", 74)]  # fmt: skip
    store = ready("physionet2012", one(tmp_path / "h", *rows, Age=190), tmp_path / "s")
    assert store.manifest["dropped"] == {
        "impossible ages, taken as missing": 1,
        "rows of parameters that no variable names": 1,
        "set-a.tar.gz: lines with another number of fields": 1,
        "events without a readable time": 1,
        "events without a usable value": 1,
        "events outside the stay": 1,
    }
    assert store.samples["group:age_band"].to_pylist()[0] is None


def test_a_record_without_descriptors_is_kept_under_its_name(tmp_path: Path) -> None:
    nothing = dict.fromkeys(("RecordID", "Age", "Gender", "Height", "ICUType", "Weight"))
    store = ready("physionet2012", one(tmp_path / "h", ("01:00", "HR", 70), **nothing),
                  tmp_path / "s")  # fmt: skip
    assert answers(store, "p2012_death") == {"1": 0}
    assert store.manifest["dropped"] == {"records without descriptors, kept": 1}


def test_nothing_after_the_prediction_time_is_used_and_no_outcome(tmp_path: Path) -> None:
    """Asked at 24 h; rows after that altered, added and removed, and every outcome changed."""
    (tmp_path / "early.toml").write_text(
        'question = "?"\nkind = "binary"\nclasses = ["x"]\nask = "icu_admission + 24h"\n'
        'label = { rule = "answer", name = "in_hospital_death" }\n'
    )
    tasks = f"p2012_death,{tmp_path / 'early.toml'}"
    folders = [tmp_path / "h", tmp_path / "h1"]
    some2012(folders[0])
    draw = np.random.default_rng(0)
    sets: dict[str, dict[str, str]] = {"a": {}, "b": {}}
    some2012(folders[1], "")
    for name in sets:
        for file in (folders[1] / f"set-{name}").iterdir():
            lines = file.read_text().splitlines()
            past = [line for line in lines if line.startswith("Time") or line < "24:00"]
            future = [line for line in lines if line not in past and draw.random() < 0.5]
            future = [line.rsplit(",", 1)[0] + f",{draw.integers(3, 9)}" for line in future]
            added = [f"{h}:01,{p},5" for h in range(24, 48) for p in ("Lactate", "Weight", "HR")]
            sets[name][file.name] = "\n".join(past + sorted(future + added)) + "\n"
    numbers = {name: [int(file.removesuffix(".txt")) for file in sets[name]] for name in sets}
    changed = {n: outcomes2012(*((i, 3 * i, 2, 1) for i in numbers[n])) for n in sets}
    write2012(tmp_path / "h2", sets, changed)
    store = ready("physionet2012", folders[0], tmp_path / "s", tasks)
    other = ready("physionet2012", tmp_path / "h2", tmp_path / "s2", tasks)
    moments = {subject: START + timedelta(hours=24) for subject in range(1, 16)}
    for causal in (False, True):
        seen, different = same_inputs(store, other, moments, causal)
        assert {task: +counts for task, counts in different.items()} == {
            "p2012_death": Counter(), "early": Counter(),
        }  # fmt: skip
        assert sum(seen["early"].values()) >= 15
    _, different = same_inputs(store, other, dict.fromkeys(moments, datetime.max))
    assert sum(different["p2012_death"].values()) > 0  # the comparison would notice


def test_changed_outcomes_alone_change_no_input(tmp_path: Path) -> None:
    folder = some2012(tmp_path / "h")
    store = ready("physionet2012", folder, tmp_path / "s")
    for name, numbers in (("a", range(1, 13)), ("b", range(13, 16))):
        text = outcomes2012(*((n, 30 - n, 2 if n % 2 else -1, n % 2) for n in numbers))
        (folder / f"Outcomes-{name}.txt").write_text(text)
    other = ready("physionet2012", folder, tmp_path / "s1")
    _, different = same_inputs(store, other, dict.fromkeys(range(1, 16), datetime.max))
    assert not sum(sum(counts.values()) for counts in different.values())
    assert store.samples["label"] != other.samples["label"]


BAD = {
    "truncated": ("checksum", lambda folder: truncate(folder / "set-a.tar.gz")),
    "cut in the middle": ("checksum", lambda folder: truncate(folder / "set-a.tar.gz", 400)),
    "no archive": ("checksum", lambda folder: (folder / "set-b.tar.gz").write_text("nothing")),
    "empty archive": ("no record", lambda folder: pack(folder / "set-a.tar.gz", {})),
    "another header": ("other columns", lambda folder: pack(
        folder / "set-a.tar.gz", {"1.txt": record2012(1), "2.txt": "Time;Parameter;Value\n"})),
    "a column renamed": ("Parameter", lambda folder: pack(
        folder / "set-a.tar.gz", {"1.txt": record2012(1).replace("Parameter", "Name")})),
    "no number": ("record number", lambda folder: pack(
        folder / "set-a.tar.gz", {"one.txt": record2012(1)})),
    "twice in a set": ("not unique", lambda folder: pack(
        folder / "set-a.tar.gz", {"1.txt": record2012(1), "01.txt": record2012(1)})),
    "in both sets": ("both sets", lambda folder: pack(
        folder / "set-a.tar.gz", {"13.txt": record2012(13)})),
    "another RecordID": ("not their name", lambda folder: pack(
        folder / "set-a.tar.gz", {"1.txt": record2012(2)})),
    "no outcomes": (
        r"Outcomes-b is missing(?s:.*)\.txt", lambda folder: (folder / "Outcomes-b.txt").unlink()),
    "outcomes twice": ("not unique", lambda folder: (folder / "Outcomes-a.txt").write_text(
        outcomes2012((1, 2, 3, 0), (1, 2, 3, 1)))),
    "outcomes without a column": ("Survival", lambda folder: (folder / "Outcomes-a.txt").write_text(
        outcomes2012((1, 2, 3, 0)).replace("Survival", "Days"))),
    "impossible outcome": ("no class", lambda folder: (folder / "Outcomes-a.txt").write_text(
        outcomes2012((1, 2, 3, 7)))),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    word, damage = BAD[name]
    folder = some2012(tmp_path / "h")
    damage(folder)
    with pytest.raises(UserError, match=word):
        ready("physionet2012", folder, tmp_path / "s")
    assert [path.name for path in tmp_path.iterdir()] == ["h"]


def test_another_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not the Challenge 2012"):
        ready("physionet2012", tmp_path, tmp_path / "s")


def test_a_changed_archive_is_not_taken_from_an_earlier_store(tmp_path: Path) -> None:
    from flexcare.preparation import prepare

    folder, said = some2012(tmp_path / "h"), list[str]()
    ready("physionet2012", folder, tmp_path / "s")
    prepare("physionet2012", folder, tmp_path / "s1", reuse=tmp_path / "s", say=said.append)
    assert "vitals, labs, static: taken from s" in said
    pack(folder / "set-b.tar.gz", {"13.txt": record2012(13, ("01:00", "HR", 99))})
    said.clear()
    prepare("physionet2012", folder, tmp_path / "s2", reuse=tmp_path / "s", say=said.append)
    assert "vitals, labs, static: taken from s" not in said


def test_the_real_sets(open_data: Path, tmp_path: Path) -> None:
    """554 and 568 deaths of 4,000 each, as published; 60 and 54 lengths of stay are unknown."""
    folder = open_data / "physionet2012"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    store = ready("physionet2012", folder, tmp_path / "s")
    found: Counter[tuple[str, bool]] = Counter()
    deaths: Counter[bool] = Counter()
    for row in store.samples.to_pylist():
        found[row["task"], row["split"] == "held_out"] += 1
        if row["task"] == "p2012_death":
            deaths[row["split"] == "held_out"] += int(row["label"][0])
    assert deaths == {False: 554, True: 568}
    assert found["p2012_death", False] == found["p2012_death", True] == 4000
    assert (found["p2012_long_stay", False], found["p2012_long_stay", True]) == (3940, 3946)
    assert (found["p2012_survival", False], found["p2012_survival", True]) == (4000, 3999)
    assert (found["p2012_remaining", False], found["p2012_remaining", True]) == (3939, 3944)
    assert set(store.manifest["dropped"]) == {"events outside the plausible range"}
