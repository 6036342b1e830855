"""WHEN each question is asked, and of whom."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexcare.cohort.asks import last_before, parse_ask
from flexcare.errors import UserError
from flexcare.store import Store
from hospital import HEART_RATE, Hospital, at
from prepared import Make, answers


def hours_of(store: Store, task: str, stay: int = 100) -> list[float]:
    rows = store.samples.to_pylist()
    return [r["hours"] for r in rows if r["task"] == task and r["stay_id"] == stay]


def charted(hours: float = 1, **patient: float) -> Hospital:
    """One patient with one value."""
    hospital = Hospital()
    hospital.chart(hospital.patient(1, **patient), hours, HEART_RATE, 80)
    return hospital


def test_mortality_is_asked_at_48_hours_of_stays_that_last_so_long(make: Make) -> None:
    hospital = Hospital()
    for subject, days, first in ((1, 2, 48), (2, 1.99, 1), (3, 3, 48.1), (4, 3, 1), (5, 3, -1)):
        hospital.chart(hospital.patient(subject, days=days), first, HEART_RATE, 80)
    hospital.patient(6, days=3)
    store = make(hospital, tasks="in_hospital_mortality")
    assert set(answers(store, "in_hospital_mortality")) == {"100", "400"}
    assert store.samples["prediction_time"].to_pylist()[0].isoformat(" ") == at(48)


@pytest.mark.parametrize(
    ("first", "hours"),
    [
        (0.5, [5, 6, 7, 8, 9]),
        (4.5, [5, 6, 7, 8, 9]),
        (6, [6, 7, 8, 9]),
        (6.01, [7, 8, 9]),
        (9.2, []),
        (-2, []),
    ],
)
def test_hours_are_asked_over_4_and_from_the_first_observation(
    make: Make, first: float, hours: list[float]
) -> None:
    hospital = charted(first, days=9.5 / 24)
    hospital.chart(hospital.patient(2, days=2), 1, HEART_RATE, 80)
    store = make(hospital, tasks="decompensation,length_of_stay")
    assert hours_of(store, "decompensation") == hours
    assert hours_of(store, "length_of_stay") == hours


def test_the_last_hour_of_a_whole_number_of_hours_is_asked(make: Make) -> None:
    """Lengths in days with six decimals: 2.208333 days are 53 hours, of which nothing is lost."""
    hospital = Hospital()
    for subject, length in enumerate((77, 53, 103), start=1):
        stay = hospital.patient(subject, days=length / 24)
        stay["los"] = round(length / 24, 6)
        hospital.chart(stay, 1, HEART_RATE, 80)
        hospital.chart(stay, length, HEART_RATE, 90)
    store = make(hospital, tasks="decompensation")
    ends = [max(hours_of(store, "decompensation", stay)) for stay in (100, 200, 300)]
    assert ends == [77, 53, 103]
    assert store.manifest["dropped"] == {}


def test_nothing_is_asked_after_death(make: Make) -> None:
    """The patient dies at 9.5 h, is in the books until 20 h, discharged at midnight before."""
    hospital = charted(days=20 / 24)
    hospital.tables["hosp/admissions"][0] |= {
        "deathtime": at(9.5), "dischtime": at(0), "hospital_expire_flag": 1,
    }  # fmt: skip
    for preset in ("corrected", "paper"):
        store = make(hospital, preset, "decompensation,length_of_stay", hours="every")
        assert hours_of(store, "decompensation") == [5, 6, 7, 8, 9]
        stays = hours_of(store, "length_of_stay")
        assert stays == ([5, 6, 7, 8, 9] if preset == "corrected" else list(range(5, 21)))


def test_one_hour_a_stay_is_drawn_by_hash_separately_for_each_task(make: Make) -> None:
    def drawn(subjects: range, **settings: int) -> dict[str, dict[int, float]]:
        hospital = Hospital()
        for subject in subjects:
            hospital.chart(hospital.patient(subject, days=5), 1, HEART_RATE, 80)
        store = make(hospital, "paper", "decompensation,length_of_stay", **settings)
        rows = store.samples.to_pylist()
        assert len({r["sample_id"] for r in rows}) == len(rows) == 2 * len(subjects)
        return {
            task: {r["stay_id"]: r["hours"] for r in rows if r["task"] == task}
            for task in ("decompensation", "length_of_stay")
        }

    few, many = drawn(range(5, 15)), drawn(range(1, 21))
    for task, hours in few.items():
        assert hours.items() <= many[task].items()
        assert len(set(many[task].values())) > 5
        assert min(many[task].values()) >= 5
        assert max(many[task].values()) <= 120
    assert many["decompensation"] != many["length_of_stay"]
    assert drawn(range(1, 21), seed=1) != many


def test_films_are_asked_once_a_study_at_its_last_ap_film(make: Make) -> None:
    hospital = charted()
    hospital.film(1, 5, 10, "a", Edema="1.0")
    hospital.film(1, 5, 11, "b")
    hospital.film(1, 5, 12, "c", view="LATERAL")
    hospital.film(1, 6, 200, "d", Edema="0.0")
    hospital.film(1, 7, 13, "e", Edema="-1.0")  # no usable label
    hospital.film(1, 8, 14, "f")  # no label at all
    rows = make(hospital, tasks="diagnosis").samples.to_pylist()
    assert [(r["sample_id"], r["hours"], r["stay_id"], r["hadm_id"]) for r in rows] == [
        ("diagnosis/5", 11 + 0.25 / 3600, 100, 10),
        ("diagnosis/6", None, None, None),
    ]


@pytest.mark.parametrize(("preset", "studies"), [("corrected", {"2"}), ("paper", {"1", "2", "3"})])
def test_films_of_minors_are_asked_in_the_paper_only(
    make: Make, preset: str, studies: set[str]
) -> None:
    hospital = charted()
    hospital.subject(2, age=17)
    hospital.film(1, 2, 10, "a", Edema="1.0")
    hospital.film(2, 1, 10, "b", Edema="1.0")
    hospital.film(3, 3, 10, "c", Edema="1.0")  # of nobody the tables know
    assert set(answers(make(hospital, preset, "diagnosis"), "diagnosis")) == studies


def test_only_films_ask_for_adults(make: Make) -> None:
    hospital = charted()
    hospital.subject(2, age=10)
    hospital.admission(2, 20, 0, 50)
    for subject in (1, 2):
        hospital.summary(subject, subject * 10, "none", "well")
        hospital.add("hosp/drgcodes", hadm_id=subject * 10, drg_type="HCFA", drg_code="1")
    assert set(answers(make(hospital, tasks="drg", drg_classes="all"), "drg")) == {"10", "20"}


def test_drg_is_asked_at_discharge_of_admissions_with_a_course(make: Make) -> None:
    hospital = charted()
    for hadm, course in ((10, "well"), (11, ""), (12, "better"), (13, "unbilled")):
        if hadm > 10:
            hospital.admission(1, hadm, 100 * hadm, 100 * hadm + 50)
        hospital.summary(1, hadm, "none", course)
        if hadm < 13:
            hospital.add("hosp/drgcodes", hadm_id=hadm, drg_type="HCFA", drg_code=str(hadm))
    rows = make(hospital, tasks="drg", drg_classes="all").samples.to_pylist()
    assert [(r["hadm_id"], r["stay_id"], str(r["prediction_time"])) for r in rows] == [
        (10, 100, at(82)),
        (12, None, at(1250)),
    ]


@pytest.mark.parametrize("ask", ["icu_admission", "every hour after", "noon", "icu_admission + 2d"])
def test_an_unknown_time_is_refused(ask: str) -> None:
    with pytest.raises(UserError, match="unknown time to ask"):
        parse_ask(ask)


def test_times_are_parsed() -> None:
    assert parse_ask("icu_admission + 48h") == ("icu_admission +", 48)
    assert parse_ask("every hour after 1.5h") == ("every hour after", 1.5)
    assert parse_ask("film") == ("film", 0)


pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), max_size=8)


@given(pairs, pairs)
def test_last_before_equals_the_obvious_search(
    known: list[tuple[int, int]], asked: list[tuple[int, int]]
) -> None:
    known = sorted(known)
    columns = [np.array([pair[i] for pair in known], np.int64) for i in (0, 1)]
    questions = [np.array([pair[i] for pair in asked], np.int64) for i in (0, 1)]
    times, moments = columns[1].astype("M8[us]"), questions[1].astype("M8[us]")
    found = last_before(columns[0], times, questions[0], moments)
    want = [
        max((i for i, (g, t) in enumerate(known) if g == group and t <= time), default=-1)
        for group, time in asked
    ]
    assert found.tolist() == want
