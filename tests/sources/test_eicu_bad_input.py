"""eICU's tables when they are not as they should be: one clear error, or a counted drop."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from eicu_tables import Unit, everything
from flexcare.errors import UserError
from flexcare.preparation import prepare
from flexcare.store import Store
from prepared import quiet


def wrong_offset(unit: Unit) -> None:
    unit.lab(1, "soon", "sodium", 140)
    unit.lab(1, 60, "sodium", 140, revised="later")


def wrong_note_offset(unit: Unit) -> None:
    unit.note(1, "nan", "notes/a")
    unit.note(1, 5, "notes/b", entered="now")


def note_of_nobody(unit: Unit) -> None:
    unit.note(999, 5, "notes/c")


def impossible_age(unit: Unit) -> None:
    unit.tables["patient"][0]["age"] = "430"


def odd_age(unit: Unit) -> None:
    unit.tables["patient"][0]["age"] = "old"


@pytest.mark.parametrize(
    ("damage", "counted"),
    [
        (wrong_offset, {"events without a readable time": 1, "events without a store time": 1}),
        (wrong_note_offset, {"picks without a readable offset": 2}),
        (note_of_nobody, {"picks of no known stay": 1}),
        (impossible_age, {"patient: age cannot be read, taken as missing": 1}),
        (odd_age, {"patient: age cannot be read, taken as missing": 1}),
    ],
)
def test_what_cannot_be_read_is_counted(
    tmp_path: Path, damage: Callable[[Unit], None], counted: dict[str, int]
) -> None:
    unit = Unit()
    for number in (1, 2):
        unit.stay(number, number, f"002-{number}")
        unit.lab(number, 60, "sodium", 140)
        unit.note(number, 5, "notes/fine")
    damage(unit)
    folder = unit.write(tmp_path / "h")
    store = Store(prepare("eicu", folder, tmp_path / "s", tasks=["eicu_death"], say=quiet))
    of_a_stay_left_out = {"events of no stay of the cohort"}
    dropped = store.manifest["dropped"]
    assert {k: n for k, n in dropped.items() if k not in of_a_stay_left_out} == counted
    assert set(store.texts["text"].to_pylist()) == {"fine"}


def test_a_wrong_patient_id(tmp_path: Path) -> None:
    unit = everything(2)
    unit.tables["patient"][0]["uniquepid"] = "somebody"
    assert "uniquepid" in str(refused(unit.write(tmp_path / "h")))


def test_a_stay_told_twice(tmp_path: Path) -> None:
    unit = everything(2)
    unit.tables["patient"].append(unit.tables["patient"][0])
    assert "patientunitstayid is not unique" in str(refused(unit.write(tmp_path / "h")))


def test_a_hospital_stay_of_two_patients(tmp_path: Path) -> None:
    unit = everything(2)
    unit.stay(70, 101, "002-999")
    assert "hadm_id is not unique" in str(refused(unit.write(tmp_path / "h")))


@pytest.mark.parametrize(
    "name", ["patient", "lab", "note", "diagnosis", "intakeOutput", "hospital"]
)
def test_a_truncated_table(tmp_path: Path, name: str) -> None:
    unit = everything(3)
    unit.lab(1, 60, "sodium", 140)
    path = unit.write(tmp_path / "h") / f"{name}.csv.gz"
    path.write_bytes(path.read_bytes()[:-9])
    assert "checksum" in refused(tmp_path / "h").do


@pytest.mark.parametrize("name", ["los/dyn", "sepsis/outc"])
def test_a_truncated_grid(tmp_path: Path, name: str) -> None:
    folder = everything(3).write(tmp_path / "h", demo=True)
    path = folder / "hourly" / f"{name}.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    assert "grid" in str(refused(folder))


def test_a_missing_column(tmp_path: Path) -> None:
    folder = everything(2).write(tmp_path / "h")
    path = folder / "note.csv.gz"
    text = gzip.decompress(path.read_bytes()).decode().replace("noteenteredoffset", "entered")
    path.write_bytes(gzip.compress(text.encode()))
    assert "noteenteredoffset" in str(refused(folder))


def test_no_patients_and_no_folder(tmp_path: Path) -> None:
    (tmp_path / "h").mkdir()
    assert "patient" in str(refused(tmp_path / "h"))
    assert "no folder" in str(refused(tmp_path / "elsewhere"))


def refused(folder: Path) -> UserError:
    """The error of preparing, which leaves nothing behind."""
    before = set(folder.parent.iterdir())
    with pytest.raises(UserError) as caught:
        prepare("eicu", folder, folder.parent / "s", tasks=["eicu_death"], say=quiet)
    assert set(folder.parent.iterdir()) == before
    return caught.value
