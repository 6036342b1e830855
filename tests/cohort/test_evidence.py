"""Which film and which texts a sample may use (SPEC 4): nothing from later on."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

import flexcare.cohort.evidence as evidence
from flexcare.store import Store
from hospital import HEART_RATE, Hospital, Row
from prepared import Make


def charted(subject: int = 1, start: float = 0) -> tuple[Hospital, Row]:
    hospital = Hospital()
    stay = hospital.patient(subject, start, days=4)
    hospital.chart(stay, start + 1, HEART_RATE, 80)
    return hospital, stay


def texts(store: Store, sample: str) -> list[str]:
    """What a sample reads, in order."""
    row = store.samples["sample_id"].to_pylist().index(sample)
    every = store.texts["text"].to_pylist()
    return [every[i] for i in store.samples["text_rows"][row].as_py()]


def test_the_note_is_what_was_available_the_latest_first(make: Make) -> None:
    hospital, _ = charted(start=1000)
    for hadm, start, history in ((11, 100, "first"), (12, 300, "second"), (13, 2000, "later")):
        hospital.admission(1, hadm, start, start + 50)
        hospital.summary(1, hadm, history, f"{history} course")
    hospital.summary(1, 10, "this admission", "this course")
    hospital.report(1, 1001, "early report")
    hospital.report(1, 1040, "late report", stored=1047.9)
    hospital.report(1, 1041, "too late", stored=1048.1)
    hospital.report(2, 500, "of another")
    hospital.complaint(1, 77, 990, "pain")
    store = make(hospital, tasks="in_hospital_mortality")
    assert texts(store, "in_hospital_mortality/100") == [
        "second", "second course", "first", "first course", "late report", "early report", "pain",
    ]  # fmt: skip


def test_a_document_available_at_the_prediction_time_is_read(make: Make) -> None:
    hospital, _ = charted()
    hospital.report(1, 40, "in time", stored=48)
    assert texts(make(hospital, tasks="in_hospital_mortality"), "in_hospital_mortality/100") == [
        "in time"
    ]


def test_a_report_that_nobody_stored_is_never_available(make: Make) -> None:
    hospital, _ = charted()
    hospital.report(1, 3, "unstored")["storetime"] = ""
    hospital.report(1, 3, "unreadable")["storetime"] = "last night"
    hospital.report(1, 3, "seen")
    store = make(hospital, tasks="in_hospital_mortality")
    assert texts(store, "in_hospital_mortality/100") == ["seen"]
    assert store.manifest["dropped"] == {"texts of no known admission or time": 2}


def test_texts_of_the_admission_are_none_of_another_one(make: Make) -> None:
    """For sources that do not tell the order of a subject's admissions."""
    hospital, _ = charted()
    hospital.admission(1, 11, -200, -100)
    for hadm, hours, text in ((11, -150, "earlier"), (10, 5, "own"), ("", 6, "of no admission")):
        hospital.report(1, hours, text)["hadm_id"] = hadm
    name = "in_hospital_mortality"
    assert texts(make(hospital, tasks=name, texts_of="admission"), f"{name}/100") == ["own"]
    assert len(texts(make(hospital, tasks=name), f"{name}/100")) == 3


@pytest.mark.parametrize("most", [1, 3, 20])
def test_a_sample_reads_the_latest_texts_up_to_the_setting(make: Make, most: int) -> None:
    hospital, _ = charted()
    for hour in range(12):
        hospital.report(1, hour, f"number {hour}")
    store = make(hospital, tasks="in_hospital_mortality", max_texts=most)
    expected = [f"number {hour}" for hour in range(11, -1, -1)][:most]
    assert texts(store, "in_hospital_mortality/100") == expected


def test_the_paper_reads_the_past_history_of_its_own_admission(make: Make) -> None:
    hospital, _ = charted()
    hospital.admission(1, 11, -200, -100)
    hospital.summary(1, 11, "earlier", "earlier course")
    hospital.summary(1, 10, "own", "own course")
    hospital.report(1, 3, "report")
    store = make(hospital, "paper", "in_hospital_mortality,drg", drg_classes="all")
    assert texts(store, "in_hospital_mortality/100") == ["own"]


def test_an_empty_section_is_an_absent_note(make: Make) -> None:
    hospital, _ = charted()
    hospital.summary(1, 10, "  \n ", "own course")
    store = make(hospital, "paper", "in_hospital_mortality")
    assert store.samples["has_note"].to_pylist() == [False]
    assert "note" not in store.modalities


def test_drg_reads_the_course_of_its_own_admission(make: Make) -> None:
    hospital, _ = charted()
    hospital.admission(1, 11, 500, 600)
    for hadm in (10, 11):
        hospital.summary(1, hadm, "history", f"course {hadm}")
        hospital.add("hosp/drgcodes", hadm_id=hadm, drg_type="HCFA", drg_code="1")
    for preset in ("corrected", "paper"):
        store = make(hospital, preset, "drg", drg_classes="all")
        assert [texts(store, f"drg/{hadm}") for hadm in (10, 11)] == [["course 10"], ["course 11"]]


def test_a_film_is_never_read_with_its_own_report(make: Make) -> None:
    """Reports charted near the film may be its own, however early they were stored."""
    hospital, _ = charted()
    hospital.film(1, 5, 20, "a", Edema="1.0")
    hospital.report(1, 20, "own", stored=20)
    hospital.report(1, 18.5, "near", stored=18.6)
    hospital.report(1, 19.9, "own, by another clock", stored=19.9)
    hospital.report(1, 10, "of the film before", stored=12)
    hospital.report(1, 10, "stored too late", stored=21)
    store = make(hospital, tasks="diagnosis,in_hospital_mortality")
    assert texts(store, "diagnosis/5") == ["of the film before"]
    assert len(texts(store, "in_hospital_mortality/100")) == 5


def test_the_paper_reads_for_a_film_the_history_of_its_admission(make: Make) -> None:
    hospital, _ = charted()
    hospital.summary(1, 10, "own", "own course")
    hospital.film(1, 5, 20, "a", Edema="1.0")
    hospital.film(1, 6, 900, "b", Edema="1.0")
    store = make(hospital, "paper", "diagnosis")
    assert (texts(store, "diagnosis/5"), texts(store, "diagnosis/6")) == (["own"], [])


def test_only_the_eight_first_texts_are_kept(make: Make) -> None:
    hospital, _ = charted()
    for number in range(12):
        hospital.report(1, number, f"report {number}")
    assert texts(make(hospital, tasks="in_hospital_mortality"), "in_hospital_mortality/100") == [
        f"report {number}" for number in range(11, 3, -1)
    ]


def film_of(store: Store, sample: str) -> int | None:
    """Brightness of the film that a sample uses."""
    row = store.samples["sample_id"].to_pylist().index(sample)
    film = store.samples["film_row"][row].as_py()
    return round(float(store.films[film, :, -4:].mean()), -1) if film >= 0 else None


def test_the_film_is_the_last_of_the_stay_so_far(make: Make) -> None:
    hospital, _ = charted()
    for study, hours in ((1, -1), (2, 0.5), (3, 47), (4, 49), (5, 95), (6, 97)):
        hospital.film(1, study, hours, f"d{study}", brightness=20 * study)
    hospital.film(2, 7, 47.5, "x", brightness=200)
    hospital.summary(1, 10, "none", "course")
    hospital.add("hosp/drgcodes", hadm_id=10, drg_type="HCFA", drg_code="1")
    tasks = "in_hospital_mortality,decompensation,phenotyping,drg"
    store = make(hospital, tasks=tasks, drg_classes="all")
    assert film_of(store, "in_hospital_mortality/100") == 60
    assert film_of(store, "decompensation/100/5") == 40
    assert film_of(store, "decompensation/100/50") == 80
    assert film_of(store, "phenotyping/100") == 100
    assert film_of(store, "drg/10") == 120  # up to discharge from hospital


def test_the_film_of_a_drg_may_be_older_than_the_icu_stay(make: Make) -> None:
    hospital, _ = charted()
    hospital.film(1, 1, -1.5, "a", brightness=40)
    hospital.film(1, 2, -3, "b", brightness=80)  # before admission
    hospital.summary(1, 10, "none", "course")
    hospital.add("hosp/drgcodes", hadm_id=10, drg_type="HCFA", drg_code="1")
    store = make(hospital, tasks="drg,phenotyping", drg_classes="all")
    assert (film_of(store, "drg/10"), film_of(store, "phenotyping/100")) == (40, None)


def test_a_film_has_the_series_of_its_stay_over_4_hours_and_once_something_was_seen(
    make: Make,
) -> None:
    hospital, _ = charted()
    stay_two = hospital.patient(2, days=4)
    hospital.chart(stay_two, 30, HEART_RATE, 80)
    for study, subject, hours in ((1, 1, 3.9), (2, 1, 4.5), (3, 2, 29), (4, 2, 31), (5, 1, 97)):
        hospital.film(subject, study, hours, f"d{study}", Edema="1.0")
    rows = make(hospital, tasks="diagnosis").samples.to_pylist()
    found = {r["sample_id"][-1]: (r["has_series"], r["series_hours"]) for r in rows}
    part = 0.25 / 3600  # of the films' times
    assert found == {
        "1": (False, 0.0), "2": (True, 4.5 + part), "3": (False, 0.0), "4": (True, 31 + part),
        "5": (False, 0.0),
    }  # fmt: skip


def test_the_series_of_a_drg_is_the_whole_stay(make: Make) -> None:
    hospital, stay = charted()
    hospital.chart(stay, 95, HEART_RATE, 90)
    hospital.summary(1, 10, "none", "course")
    hospital.add("hosp/drgcodes", hadm_id=10, drg_type="HCFA", drg_code="1")
    row = make(hospital, tasks="drg", drg_classes="all").samples.to_pylist()[0]
    assert (row["series_hours"], row["hours"], row["has_series"]) == (96, 106, True)
    assert row["series_stop"] - row["series_first"] == 2


def obvious(
    order: NDArray[np.int64],
    subjects: NDArray[np.int64],
    last: NDArray[np.int64],
    texts: list[dict[str, Any]],
    most: int,
    before: NDArray[np.int64] | None,
) -> list[list[int]]:
    """View by view: the texts of the subject up to a place, sorted by what is read first."""
    kinds = ["discharge_summary", "radiology_report", "chief_complaint"]
    out = []
    for number, place in enumerate(last):
        rows = [int(order[i]) for i in range(place + 1) if subjects[i] == subjects[place]]
        if before is not None:
            rows = [
                i
                for i in rows
                if texts[i]["kind"] != "radiology_report"
                or (texts[i]["time"] is not None and texts[i]["time"] < before[number])
            ]
        rows.sort(key=lambda i: (kinds.index(texts[i]["kind"]), -texts[i]["available_at"], i))
        out.append(rows[:most])
    return out


@pytest.mark.parametrize("seed", range(6))
def test_all_views_at_once_equal_one_view_after_another(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "VIEWS", 7)
    generator = np.random.default_rng(seed)
    kinds = ["chief_complaint", "radiology_report", "discharge_summary"]
    rows = [
        {
            "subject_id": int(generator.integers(4)),
            "kind": kinds[generator.integers(3)],
            "time": int(generator.integers(9)) if generator.random() < 0.9 else None,
            "available_at": int(generator.integers(9)),
        }
        for _ in range(60)
    ]
    subjects = np.array([row["subject_id"] for row in rows])
    order = np.lexsort(([row["available_at"] for row in rows], subjects))
    last = generator.integers(-1, 60, 40)
    moment = pa.timestamp("us")
    kind = pa.schema([("kind", pa.string()), ("time", moment), ("available_at", moment)])
    texts = pa.Table.from_pylist(rows, schema=kind)
    for before in (None, generator.integers(0, 9, 40)):
        times = None if before is None else before.astype("M8[us]")
        for most in (1, 8):
            found = evidence._first_texts(order, subjects[order], last, texts, most, times)
            assert found.to_pylist() == obvious(order, subjects[order], last, rows, most, before)
