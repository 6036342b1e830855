"""eICU's tables as tidy ones: ids, times, values, picks and answers."""

from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from eicu_tables import EXAM, URINE, Unit, everything
from flexcare.features.variables import read_variables
from flexcare.preparation import prepare
from flexcare.sources import eicu
from flexcare.sources.eicu import EICU
from flexcare.store import Store
from prepared import answers, quiet

VARIABLES = read_variables(Path(eicu.__file__).with_name("eicu_variables.toml"))
HOUR = 3600


def source(unit: Unit, folder: Path, **layout: Any) -> EICU:
    return EICU(unit.write(folder, **layout), duckdb.connect())


def events(
    source: EICU, clock: str = "storetime", kinds: tuple[str, ...] = ("time_series",)
) -> list[tuple[int, str, int, int, float]]:
    """Stay, variable, seconds, available and value of every event of these kinds, sorted."""
    stays = source.stays().sort_by("stay_id")
    ids = stays["stay_id"].to_pylist()
    rows = pa.concat_tables(list(source.events(stays, VARIABLES, clock))).to_pylist()
    names = VARIABLES.names
    return sorted(
        (ids[r["stay"]], names[r["variable"]], r["seconds"], r["available"], round(r["value"], 4))
        for r in rows
        if VARIABLES.variables[names[r["variable"]]].kind in kinds
    )


def documents(source: EICU) -> list[dict[str, Any]]:
    return sorted(
        (row for batch in source.documents() for row in batch.to_pylist()),
        key=lambda row: (row["hadm_id"], row["kind"], row["available_at"]),
    )


def by_column(table: pa.Table, key: str) -> dict[Any, dict[str, Any]]:
    return {row[key]: row for row in table.to_pylist()}


@pytest.mark.parametrize(
    "layout",
    [{"demo": True}, {}, {"ending": ".csv"}, {"demo": True, "ending": ".csv"}],
    ids=["demo", "full", "unpacked", "demo unpacked"],
)
def test_both_layouts_give_the_same_tables(tmp_path: Path, layout: dict[str, Any]) -> None:
    unit = everything(4)
    usual, other = source(unit, tmp_path / "a"), source(unit, tmp_path / "b", **layout)
    for name in ("subjects", "admissions", "stays", "answers"):
        assert getattr(usual, name)().equals(getattr(other, name)()), name
    assert documents(usual) == documents(other) != []
    assert events(usual) == events(other) != []


def test_unit_stays_of_one_hospital_stay_lie_on_one_time_line(tmp_path: Path) -> None:
    unit = Unit()
    unit.stay(1, 10, "002-7", hospitaladmitoffset=-90, unitdischargeoffset=600)
    unit.stay(2, 10, "002-7", hospitaladmitoffset=-2000, hospitaldischargestatus="Expired",
              hospitaldischargeoffset=500, unitdischargeoffset=499)  # fmt: skip
    unit.stay(3, 11, "021-7", age="> 89", gender="Male", hospitaldischargestatus="")
    unit.stay(4, 12, "002-17", hospitaldischargeyear="", ethnicity="")
    made = source(unit, tmp_path)
    stays = by_column(made.stays(), "stay_id")
    assert stays[1]["intime"] == datetime(2014, 7, 1, 11, 30)
    assert stays[2]["intime"] == datetime(2014, 7, 2, 19, 20)
    assert stays[1]["outtime"] == datetime(2014, 7, 1, 21, 30)
    assert stays[1]["los"] == pytest.approx(600 / 1440)
    assert stays[4]["intime"] is None
    admissions = by_column(made.admissions(), "hadm_id")
    assert admissions[10]["admittime"] == datetime(2014, 7, 1, 10)
    assert admissions[10]["died"] is True
    assert admissions[10]["deathtime"] == max(a["dischtime"] for a in [admissions[10]])
    assert admissions[11]["died"] is None
    subjects = by_column(made.subjects(), "subject_id")
    assert len(subjects) == 3  # neither 002-7 and 021-7 nor 002-7 and 002-17 are one
    assert subjects[21_000_000_007] | {"death_date": 0} == {
        "subject_id": 21_000_000_007, "sex": "M", "anchor_age": 90, "anchor_year": 2014,
        "death_date": 0,
    }  # fmt: skip


def test_a_value_is_visible_once_entered(tmp_path: Path) -> None:
    unit = Unit()
    unit.stay(1, 10)
    unit.lab(1, 60, "creatinine", 1.5, revised=90)
    unit.lab(1, 120, "creatinine", 1.7)
    unit.lab(1, 180, "creatinine", 1.9, revised=100)  # never before it was drawn
    unit.add("intakeOutput", patientunitstayid=1, intakeoutputoffset=30,
             intakeoutputentryoffset=700, cellpath=URINE, cellvaluenumeric=50)  # fmt: skip
    unit.add("respiratoryCharting", patientunitstayid=1, respchartoffset=30,
             respchartentryoffset=31, respchartvaluelabel="FiO2", respchartvalue=40)  # fmt: skip
    unit.add("nurseCharting", patientunitstayid=1, nursingchartoffset=10,
             nursingchartentryoffset=20, nursingchartcelltypevalname="Temperature (F)",
             nursingchartvalue=98.6)  # fmt: skip
    for score, value in (("Eyes", 3), ("Motor", 5), ("Verbal", 2)):
        path = f"{EXAM}Neurologic/GCS/{score} Score/{value}"
        unit.add("physicalExam", patientunitstayid=1, physicalexamoffset=5,
                 physicalexampath=path, physicalexamvalue=value)  # fmt: skip
    assert events(source(unit, tmp_path)) == [
        (1, "creatinine", 3600, 5400, 1.5),
        (1, "creatinine", 7200, 7200, 1.7),
        (1, "creatinine", 10800, 10800, 1.9),
        (1, "fraction_inspired_oxygen", 1800, 1860, 0.4),
        (1, "gcs_eye", 300, 300, 2),
        (1, "gcs_motor", 300, 300, 4),
        (1, "gcs_total", 300, 300, 10),
        (1, "gcs_verbal", 300, 300, 1),
        (1, "temperature", 600, 1200, 37),
        (1, "urine_output", 1800, 42000, 50),
    ]


def test_a_row_of_the_grid_is_visible_when_its_hour_is_over(tmp_path: Path) -> None:
    unit = Unit()
    unit.stay(1, 10, unitdischargeoffset=200)
    for hour in range(4):  # the last hour is not over when the stay ends
        unit.hour(1, hour, hr=80.0 + hour, crea=None, urine=5.0)
    for clock in ("storetime", "charttime"):
        made = source(unit, tmp_path / clock, demo=True)
        assert events(made, clock) == [
            (1, "heart_rate", at, at, value)
            for at, value in ((HOUR - 1, 80), (2 * HOUR - 1, 81), (3 * HOUR - 1, 82))
        ]


def test_the_grid_is_not_read_where_the_tables_are_there(tmp_path: Path) -> None:
    unit = Unit()
    unit.stay(1, 10)
    unit.hour(1, 0, hr=80.0, crea=1.0)
    unit.lab(1, 70, "creatinine", 2)
    assert events(source(unit, tmp_path)) == [(1, "creatinine", 4200, 4200, 2)]


def test_of_the_monitor_the_last_value_of_each_hour_is_kept(tmp_path: Path) -> None:
    unit = Unit()
    unit.stay(1, 10)
    for at, rate, saturation in ((-5, 60, ""), (5, 70, 91), (55, 75, ""), (60, 80, 95)):
        unit.add("vitalPeriodic", patientunitstayid=1, observationoffset=at, heartrate=rate,
                 sao2=saturation)  # fmt: skip
    unit.add("vitalAperiodic", patientunitstayid=1, observationoffset=7, noninvasivemean=66)
    unit.add("vitalAperiodic", patientunitstayid=1, observationoffset=8, noninvasivemean=67)
    assert events(source(unit, tmp_path)) == [
        (1, "heart_rate", -300, -300, 60),
        (1, "heart_rate", 3300, 3300, 75),
        (1, "heart_rate", 3600, 3600, 80),
        (1, "mean_blood_pressure", 420, 420, 66),
        (1, "mean_blood_pressure", 480, 480, 67),
        (1, "oxygen_saturation", 300, 300, 91),
        (1, "oxygen_saturation", 3600, 3600, 95),
    ]


def test_static_is_what_the_unit_knows_at_its_door(tmp_path: Path) -> None:
    unit = Unit()
    unit.stay(1, 10, age="> 89", hospitaladmitoffset=-150, unitadmittime24="05:59:00",
              unitadmitsource="PACU", dischargeweight=70)  # fmt: skip
    unit.add("hospital", hospitalid=7, numbedscategory="<100", teachingstatus="f", region="")
    found = events(source(unit, tmp_path), kinds=("static",))
    assert {(seconds, available) for _, _, seconds, available, _ in found} == {(0, 0)}
    shown = {}
    for _, name, _, _, value in found:
        categories = VARIABLES.variables[name].categories
        shown[name] = categories[int(value)] if categories else value
    assert shown == {
        "age": 90, "sex": "Female", "height": 170, "weight": 80, "unit": "MICU",
        "unit_admission": "admit", "unit_visit": 1, "unit_source": "Recovery Room",
        "hours_in_hospital": 2.5, "hour_of_day": "0-5", "hospital_beds": "<100",
        "hospital_teaches": "no",
    }  # fmt: skip


def test_a_pick_is_a_text_once_a_hospital_stay_from_its_entry_on(tmp_path: Path) -> None:
    unit = Unit()
    unit.stay(1, 10)
    unit.stay(2, 10, hospitaladmitoffset=-6000)
    unit.stay(3, 11)
    smoking = "notes/Progress Notes/Social History/Smoking Status/Smoking Status daily/daily"
    unit.note(1, 10, smoking, entered=100)
    unit.note(1, 20, smoking, entered=50)
    unit.note(2, 5, smoking, entered=5)  # days later
    unit.note(3, 30, smoking)
    unit.note(1, 10, "notes/Progress Notes/Assessment and Plan/View Options/System View")
    unit.note(1, 10, "notes/Progress Notes/Past History/Past History Obtain Options/Performed")
    unit.diagnosis(1, 60, "renal|disorder of kidney|acute renal failure")
    unit.add("admissionDx", patientunitstayid=1, admitdxenteredoffset=9,
             admitdxpath="admission diagnosis|All Diagnosis|Non-operative|Sepsis, GI",
             admitdxname="Sepsis, GI")  # fmt: skip
    found = [
        (row["hadm_id"], row["kind"], row["available_at"], row["text"])
        for row in documents(source(unit, tmp_path))
    ]
    said = "Social History, Smoking Status daily, daily"
    assert found == [
        (10, "admission_diagnosis", datetime(2014, 7, 1, 11, 9), "Non-operative, Sepsis, GI"),
        (
            10, "charted_diagnosis", datetime(2014, 7, 1, 12),
            "renal, disorder of kidney, acute renal failure",
        ),
        (10, "progress_note", datetime(2014, 7, 1, 11, 50), said),
        (11, "progress_note", datetime(2014, 7, 1, 11, 30), said),
    ]  # fmt: skip


def test_answers(tmp_path: Path) -> None:
    unit = Unit()
    unit.stay(1, 10, hospitaldischargestatus="Expired", unitdischargeoffset=26 * 60 + 30)
    unit.stay(2, 11, hospitaldischargestatus="")
    unit.stay(3, 12)
    for hour in range(27):
        unit.answer("aki", 1, hour, hour > 20)
    unit.diagnosis(1, 1440, "renal|early")
    unit.diagnosis(1, 1441, "Renal|late")
    unit.diagnosis(1, 1441, "pulmonary|late")
    unit.diagnosis(2, 3, "pulmonary|early")
    made = source(unit, tmp_path, demo=True)
    rows = [tuple(row.values()) for row in made.answers().to_pylist()]
    whole = {(stay, name): value for stay, name, hours, value in rows if hours is None}
    assert whole == {
        (1, "hospital_death"): 1, (2, "hospital_death"): None, (3, "hospital_death"): 0,
        (1, "later diagnosis: renal"): None, (1, "later diagnosis: pulmonary"): 1,
        (2, "later diagnosis: renal"): 0, (2, "later diagnosis: pulmonary"): None,
    }  # fmt: skip
    hourly = sorted((hours, value) for _, name, hours, value in rows if name == "aki")
    assert hourly == [(hour + 1, float(hour > 20)) for hour in range(26)]
    assert made.dropped["aki: hours not over when the stay ends"] == 1


def test_nothing_of_a_hospital_stay_is_evidence_for_another(tmp_path: Path) -> None:
    """Which of a patient's hospital stays came first is not known."""
    stores = []
    for other in (False, True):
        unit = Unit()
        for number in range(1, 9):
            unit.stay(number, number, f"002-{number}")
            unit.lab(number, 60, "sodium", 140)
            unit.note(number, 5, f"own/{number}")
            if other:
                unit.stay(50 + number, 50 + number, f"002-{number}", age=61,
                          hospitaldischargeyear=2014 + number % 2)  # fmt: skip
                unit.note(50 + number, 5, f"foreign/{number}")
                unit.lab(50 + number, 60, "sodium", 120)
        folder = unit.write(tmp_path / f"h{other}")
        out = tmp_path / f"s{other}"
        stores.append(Store(prepare("eicu", folder, out, tasks=["eicu_death"], say=quiet)))
    for store in stores:
        texts = store.texts["text"].to_pylist()
        for row in store.samples.to_pylist():
            whose = "own" if row["stay_id"] < 50 else "foreign"
            assert [texts[i].split(",")[0] for i in row["text_rows"]] == [whose]
            number = row["stay_id"] % 50
            assert [texts[i].split(", ")[1] for i in row["text_rows"]] == [str(number)]
    assert len(stores[1].samples) == 2 * len(stores[0].samples) == 16


def test_the_usual_tasks_are_prepared(tmp_path: Path) -> None:
    store = Store(prepare("eicu", everything().write(tmp_path / "h", demo=True), tmp_path / "s",
                          tasks=["eicu_death", "eicu_stay_3d", "eicu_sepsis", "eicu_remaining"],
                          say=quiet))  # fmt: skip
    assert set(store.modalities) == {"vitals", "labs", "static", "note"}
    died = answers(store, "eicu_death")
    assert died == {key: float(int(key) % 50 % 5 == 0) for key in died if int(key) < 80} | {
        key: 0 for key in died if int(key) > 80
    }
    assert set(answers(store, "eicu_stay_3d").values()) == {0}
    sepsis = answers(store, "eicu_sepsis")
    assert sepsis["4/31"] == 0  # row 30 of the grid
    assert sepsis["4/32"] == 1


def test_a_changed_patient_table_is_read_anew_with_reuse(tmp_path: Path) -> None:
    unit = everything(4)
    stores = []
    for number, reuse in enumerate((None, tmp_path / "s0", tmp_path / "s1", None)):
        if number == 2:
            unit.tables["patient"][0]["admissionheight"] = 155
        folder, told = unit.write(tmp_path / "h"), list[str]()
        prepare("eicu", folder, tmp_path / f"s{number}", tasks=["eicu_death"], reuse=reuse,
                say=told.append)  # fmt: skip
        taken = any(": taken from" in line for line in told)
        assert taken == (number == 1)
        stores.append(Store(tmp_path / f"s{number}").manifest["content"])
    assert stores[0] == stores[1] != stores[2] == stores[3]


# The open demo.


@pytest.fixture(scope="module")
def demo(open_data: Path) -> EICU:
    return EICU(open_data / "eicu_demo", duckdb.connect())


def test_the_demo_has_its_known_counts(demo: EICU) -> None:
    assert [len(demo.stays()), len(demo.admissions()), len(demo.subjects())] == [2520, 2174, 1841]
    rows = demo.answers()
    counts: dict[str, list[float]] = {}
    for name, hours, value in zip(*(rows[n].to_pylist() for n in ("name", "hours", "value")),
                                  strict=True):  # fmt: skip
        if hours is not None or name == "hospital_death":
            counts.setdefault(name, []).append(np.nan if value is None else value)
    summed = {name: (len(v), np.isnan(v).sum(), np.nansum(v)) for name, v in counts.items()}
    assert summed == {
        "hospital_death": (2520, 28, 212), "sepsis": (41_722, 0, 802), "aki": (76_866, 0, 8_747),
    }  # fmt: skip
    # Whole grids: 42,524 and 78,205 hours, of which each stay's last is not over when it ends.
    late = {n: demo.dropped[f"{n}: hours not over when the stay ends"] for n in ("sepsis", "aki")}
    assert late == {"sepsis": 42_524 - 41_722, "aki": 78_205 - 76_866}


def test_the_demo_has_its_known_events_and_texts(demo: EICU) -> None:
    found = events(demo)
    in_grid = {(stay, at) for stay, _, at, _, _ in found if at % HOUR == HOUR - 1}
    assert len({stay for stay, _ in in_grid}) == 2_267 - 1  # one has only urine there
    texts = documents(demo)
    assert len(texts) == 101_916
    assert len({row["hadm_id"] for row in texts}) == 2_123
    assert demo.dropped["picks without a readable offset"] == 0


def test_static_fields_are_not_taken_from_a_store_made_of_another_patient_table(
    tmp_path: Path,
) -> None:
    unit, tasks = everything(12), "eicu_death"
    old = prepare("eicu", unit.write(tmp_path / "a"), tmp_path / "old", tasks=tasks, say=quiet)
    for row in unit.tables["patient"]:
        row["admissionweight"] = 95
    folder = unit.write(tmp_path / "a")
    fresh = prepare("eicu", folder, tmp_path / "fresh", tasks=tasks, say=quiet)
    new = prepare("eicu", folder, tmp_path / "new", tasks=tasks, reuse=old, say=quiet)
    assert Store(new).manifest == Store(fresh).manifest != Store(old).manifest
