"""Stores of hand-made hospitals, and what a test asks of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flexcare.preparation import prepare
from flexcare.store import Store
from hospital import GCS_EYE, GCS_MOTOR, GCS_VERBAL, HEART_RATE, OXYGEN, PH_LAB, Hospital, Row

Make = Callable[..., Store]


def prepare_there(
    folder: Path, out: Path, preset: str = "corrected", tasks: str | None = None, **settings: Any
) -> Store:
    """Prepare a written hospital with all its companions; films of 28 pixels unless told so."""
    there: dict[str, Any] = {n: folder / n for n in ("cxr", "note", "ed") if (folder / n).is_dir()}
    options = {"film_side": 28} | settings
    prepare(
        "mimic-iv", folder, out, preset=preset, tasks=tasks, settings=options, say=quiet, **there
    )
    return Store(out)


def quiet(line: str) -> None:
    """Say nothing."""


def answers(store: Store, task: str) -> dict[str, Any]:
    """Labels by what follows the task's name in the sample id; None where masked."""
    out: dict[str, Any] = {}
    for row in store.samples.to_pylist():
        if row["task"] == task:
            known = zip(row["label"], row["label_mask"], strict=True)
            label = [value if there else None for value, there in known]
            out[row["sample_id"].removeprefix(f"{task}/")] = label[0] if len(label) == 1 else label
    return out


def everything(subjects: int = 8) -> Hospital:
    """Patients with series, films, notes, complaints and codes; every third one dies in the ICU,
    every fourth one comes again after 20 days."""
    hospital = Hospital()
    for number in range(1, subjects + 1):
        subject = 10_000_000 + number
        start = 30.0 * number
        days = 2.5 + number % 3
        death = start + 24 * days - 0.5 if number % 3 == 0 else None
        stay = hospital.patient(subject, start, days, death, age=40 + 5 * number)
        _observe(hospital, stay, start, number)
        hospital.report(subject, start - 20 * 24, f"old scar number {number}")
        hospital.report(subject, start + 10, f"new effusion number {number}")
        hospital.summary(subject, subject * 10, f"asthma since {number}", f"day {number} improved")
        hospital.complaint(subject, 900 + number, start - 4, f"cough for {number} days")
        findings = {"Edema": "1.0", "Pneumonia": "0.0" if number % 2 else "-1.0", "No_Finding": ""}
        bright = 20 * number % 200
        hospital.film(
            subject, 500 + number, start + 6, f"d{number}a", brightness=bright, **findings
        )
        hospital.film(subject, 600 + number, start + 30, f"d{number}b", brightness=90, Edema="0.0")
        hospital.add("hosp/diagnoses_icd", hadm_id=subject * 10, icd_code="N179", icd_version=10)
        hospital.add("hosp/drgcodes", hadm_id=subject * 10, drg_type="HCFA", drg_code="190")
        if number % 4 == 0:
            _again(hospital, subject, start + 24 * days + 20 * 24)
    return hospital


def _observe(hospital: Hospital, stay: Row, start: float, number: int) -> None:
    """Some charted values and one lab, all over the first two days and before them."""
    hospital.chart(stay, start - 3, HEART_RATE, 70 + number)
    for hour in (0.5, 1.25, 7, 20, 47.5, 55):
        hospital.chart(stay, start + hour, HEART_RATE, 80 + hour + number, stored=start + hour + 2)
    hospital.chart(stay, start + 3, OXYGEN, 40)
    for item, value in ((GCS_EYE, 3), (GCS_MOTOR, 5), (GCS_VERBAL, 2 + number % 3)):
        hospital.chart(stay, start + 9, item, value, stored=start + 9 + value)
    hospital.lab(stay["subject_id"], start + 12, PH_LAB, 7.3, stored=start + 14)


def _again(hospital: Hospital, subject: int, start: float) -> None:
    """A second admission with a stay, whose notes include the first one's summary."""
    hadm = subject * 10 + 1
    hospital.admission(subject, hadm, start - 2, start + 60)
    stay = hospital.stay(subject, hadm, subject * 100 + 1, start, start + 50)
    hospital.chart(stay, start + 1, HEART_RATE, 99)
    hospital.summary(subject, hadm, "asthma still", "second course")
    hospital.add("hosp/drgcodes", hadm_id=hadm, drg_type="HCFA", drg_code="191")
