"""WHO: the filters of the cohort, deaths and ages, each against hand-made patients (SPEC 4)."""

from typing import Any

import numpy as np
import pytest

from flexcare.cohort.stays import age_at, death_in_icu
from flexcare.errors import UserError
from flexcare.store import Store
from hospital import HEART_RATE, Hospital, at
from prepared import Make, answers


def kept(store: Store) -> set[int]:
    """Stays of the cohort."""
    return set(store.samples["stay_id"].to_pylist())


def transfers() -> Hospital:
    """1: one stay; 2: a second stay, which is a transfer; 3: two plain stays; 4: moved."""
    hospital = Hospital()
    for subject in (1, 2, 3):
        hospital.patient(subject, days=2)
    hospital.stay(2, 20, 201, 50, 70, last_careunit="SICU")
    hospital.stay(3, 30, 301, 50, 70)
    hospital.patient(4, days=2)["last_careunit"] = "SICU"
    return hospital


@pytest.mark.parametrize(
    ("settings", "stays"),
    [
        ({"one_stay_first": True}, {100}),
        ({"one_stay_first": False}, {100, 200}),
        ({"one_stay": False}, {100, 200, 300, 301}),
    ],
)
def test_one_stay_and_transfers(make: Make, settings: dict[str, Any], stays: set[int]) -> None:
    assert kept(make(transfers(), tasks="phenotyping", **settings)) == stays


def test_the_presets_differ_in_the_order_of_the_filters(make: Make) -> None:
    assert kept(make(transfers(), "corrected", "phenotyping")) == {100}
    assert kept(make(transfers(), "paper", "phenotyping")) == {100, 200}
    assert kept(make(transfers(), "authors", "phenotyping")) == {100, 200}


def test_what_is_left_out_is_told_step_by_step(make: Make) -> None:
    steps = make(transfers(), tasks="phenotyping").manifest["cohort_flow"]
    counts = [(s["left_out"], s["remaining"]) for s in steps if s["unit"] == "stays"]
    assert counts == [(0, 6), (0, 6), (4, 2), (1, 1), (0, 1)]


@pytest.mark.parametrize(
    ("preset", "stays"), [("corrected", {200, 300, 400}), ("paper", {100, 200, 400})]
)
def test_age_is_that_of_admission_or_of_the_anchor(
    make: Make, preset: str, stays: set[int]
) -> None:
    """START is in 2150: anchored earlier, the patient is older by then."""
    hospital = Hospital()
    hospital.patient(1, days=2, age=18, year=2151)
    hospital.patient(2, days=2, age=18, year=2150)
    hospital.patient(3, days=2, age=16, year=2148)
    hospital.patient(4, days=2, age=91, year=2140)
    hospital.patient(5, days=2, age="", year=2140)
    assert kept(make(hospital, preset, "phenotyping")) == stays


def test_age_moves_with_the_year() -> None:
    time = np.array(["2155-12-31T23:00", "2150-01-01T00:00"], "M8[us]")
    anchor = np.array([60.0, 60.0]), np.array([2150, 2152])
    assert age_at(time, *anchor, "at_icu_admission").tolist() == [65, 58]
    assert age_at(time, *anchor, "anchor").tolist() == [60, 60]


def test_stays_without_times_length_or_admission_are_counted_and_left_out(make: Make) -> None:
    hospital = Hospital()
    for subject in range(1, 7):
        hospital.patient(subject, days=2)
    rows = hospital.tables["icu/icustays"]
    rows[1]["intime"] = ""
    rows[2]["outtime"] = "soon"
    rows[3]["hadm_id"] = 999
    rows[4]["los"] = ""
    rows[5]["los"] = -1
    store = make(hospital, tasks="phenotyping")
    assert kept(store) == {100}
    assert store.manifest["cohort_flow"][1]["left_out"] == 5
    assert store.manifest["dropped"] == {
        "icu/icustays: outtime cannot be read, taken as missing": 1
    }


def midnight_death() -> Hospital:
    """Patients who are alive after 48 h, of whom some die in hospital.

    1 dies in the afternoon, discharged at midnight before; 2 dies as discharged; 3 lives;
    4 has the flag without a time; 5 has a death time at discharge without the flag.
    """
    hospital = Hospital()
    for subject in range(1, 6):
        stay = hospital.patient(subject, days=2.5)
        hospital.chart(stay, 1, HEART_RATE, 80)
    rows = hospital.tables["hosp/admissions"]
    rows[0] |= {"dischtime": at(72), "deathtime": at(86), "hospital_expire_flag": 1}
    rows[1] |= {"deathtime": rows[1]["dischtime"], "hospital_expire_flag": 1}
    rows[3] |= {"hospital_expire_flag": 1}
    rows[4] |= {"deathtime": rows[4]["dischtime"]}
    return hospital


@pytest.mark.parametrize(
    ("preset", "dead"), [("corrected", {"100", "200", "400"}), ("paper", {"200", "500"})]
)
def test_death_in_hospital_is_the_flag_or_the_time(make: Make, preset: str, dead: set[str]) -> None:
    found = answers(
        make(midnight_death(), preset, "in_hospital_mortality"), "in_hospital_mortality"
    )
    assert set(found) == {"100", "200", "300", "400", "500"}
    assert {stay for stay, label in found.items() if label} == dead


def test_a_death_after_a_midnight_discharge_ends_the_admission(make: Make) -> None:
    hospital = midnight_death()
    for subject in (1, 2):
        hospital.summary(subject, subject * 10, "none", "a course")
        hospital.add("hosp/drgcodes", hadm_id=subject * 10, drg_type="HCFA", drg_code="1")
    asked = {}
    for preset in ("corrected", "paper"):
        samples = make(hospital, preset, "drg", drg_classes="all").samples.to_pylist()
        asked[preset] = {s["hadm_id"]: str(s["prediction_time"]) for s in samples}
    assert asked["corrected"] == {10: at(86), 20: at(70)}
    assert asked["paper"] == {10: at(72), 20: at(70)}


@pytest.mark.parametrize(
    ("death", "dod", "how", "dead"),
    [
        ("2150-01-02T10:00", "NaT", "date", True),
        ("2150-01-01T09:00", "NaT", "date", True),  # both ends belong to the stay
        ("2150-01-03T12:00", "NaT", "date", True),
        ("2150-01-03T12:01", "2150-01-03", "date", False),  # the time wins over the date
        ("NaT", "2150-01-01", "date", True),
        ("NaT", "2150-01-01", "midnight", False),  # midnight was before admission
        ("NaT", "2150-01-03", "midnight", True),
        ("NaT", "2150-01-04", "date", False),
        ("NaT", "NaT", "date", False),
    ],
)
def test_death_in_the_icu(death: str, dod: str, how: str, dead: bool) -> None:
    stay = np.array(["2150-01-01T09:00"], "M8[us]"), np.array(["2150-01-03T12:00"], "M8[us]")
    found = death_in_icu(*stay, np.array([death], "M8[us]"), np.array([dod], "M8[D]"), how)
    assert found.tolist() == [dead]


def test_an_empty_cohort_is_refused_with_what_left_everybody_out(make: Make) -> None:
    hospital = Hospital()
    hospital.patient(1, age=17)
    with pytest.raises(UserError, match="no ICU stay is left") as error:
        make(hospital)
    assert "younger than 18" in error.value.found
