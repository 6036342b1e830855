"""Which ANSWER: every rule against hand-made patients (SPEC 4)."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flexcare.errors import UserError
from hospital import FINDINGS, HEART_RATE, START, Hospital, at
from prepared import Make, answers


def charted(**patient: Any) -> Hospital:
    """One patient with one value an hour after admission."""
    hospital = Hospital()
    hospital.chart(hospital.patient(1, **patient), 1, HEART_RATE, 80)
    return hospital


def test_decompensation_is_death_in_hospital_within_24_hours(make: Make) -> None:
    hospital = charted(days=2, death=48)  # at 48 h, in the ICU
    ward = hospital.patient(2, days=1)  # dies on the ward, 30 h after admission
    hospital.chart(ward, 1, HEART_RATE, 80)
    hospital.tables["hosp/admissions"][1] |= {
        "deathtime": at(30), "dischtime": at(30), "hospital_expire_flag": 1,
    }  # fmt: skip
    found = answers(make(hospital, tasks="decompensation"), "decompensation")
    want = {f"100/{t}": float(t >= 24) for t in range(5, 49)}
    assert found == want | {f"200/{t}": float(t >= 6) for t in range(5, 25)}


def test_decompensation_of_the_flag_without_a_time_counts_to_discharge(make: Make) -> None:
    hospital = charted(days=1)
    hospital.tables["hosp/admissions"][0] |= {"dischtime": at(34), "hospital_expire_flag": 1}
    found = answers(make(hospital, tasks="decompensation"), "decompensation")
    assert found == {f"100/{t}": float(t >= 10) for t in range(5, 25)}


def test_decompensation_after_a_midnight_discharge(make: Make) -> None:
    """Dead at 30 h, discharged at midnight (24 h): alive in hospital in the paper's eyes."""
    hospital = charted(days=1.2)
    hospital.tables["hosp/admissions"][0] |= {
        "deathtime": at(30), "dischtime": at(24), "hospital_expire_flag": 1,
    }  # fmt: skip
    for preset, dies in (("corrected", True), ("paper", False)):
        store = make(hospital, preset, "decompensation", hours="every")
        found = answers(store, "decompensation")
        assert found == {f"100/{t}": float(dies and t >= 6) for t in range(5, 29)}


def test_length_of_stay_has_its_edges_at_whole_days(make: Make) -> None:
    found = answers(make(charted(days=15), tasks="length_of_stay"), "length_of_stay")
    edges = [(24 * (15 - days), days) for days in (1, 2, 3, 4, 5, 6, 7, 8, 14)]
    for number, (hour, _) in enumerate(edges, start=1):
        assert found[f"100/{hour}"] == number  # exactly so many days remain
        assert found[f"100/{hour + 1}"] == number - 1
    assert found["100/360"] == 0


READMISSION = [  # what follows the first stay of three days, discharged at 82 h; the label
    ("nothing", {}, 0.0),
    ("return after 29 days", {"again": 82 + 29 * 24}, 1.0),
    ("return after 30 days", {"again": 82 + 30 * 24}, 0.0),
    ("dead 29 dates later", {"dod": "2150-02-02"}, 1.0),
    ("dead 31 dates later", {"dod": "2150-02-04"}, 0.0),
    ("dead on the ward", {"death": 80}, 1.0),
    ("dead in the ICU", {"death": 71}, None),
]


@pytest.mark.parametrize(("name", "events", "label"), READMISSION, ids=[r[0] for r in READMISSION])
def test_readmission(make: Make, name: str, events: dict[str, Any], label: float | None) -> None:
    hospital = charted(days=3, dod=events.get("dod", ""))
    if "death" in events:
        hospital.tables["hosp/admissions"][0] |= {
            "deathtime": at(events["death"]), "dischtime": at(events["death"]),
            "hospital_expire_flag": 1,
        }  # fmt: skip
    if "again" in events:
        hospital.admission(1, 11, events["again"], events["again"] + 50)
        hospital.stay(1, 11, 101, events["again"] + 1, events["again"] + 40)
    hospital.patient(2)
    for preset in ("corrected", "paper"):
        found = answers(make(hospital, preset, "readmission"), "readmission")
        assert found.pop("200") == 0
        found.pop("101", None)
        assert found == ({} if label is None else {"100": label})


@pytest.mark.parametrize(("preset", "label"), [("corrected", 1.0), ("paper", 0.0)])
def test_a_return_counts_among_all_or_among_kept_stays(
    make: Make, preset: str, label: float
) -> None:
    """The second stay is moved between units, so it is not kept."""
    hospital = charted(days=3)
    hospital.admission(1, 11, 200, 300)
    hospital.stay(1, 11, 101, 201, 260, last_careunit="SICU")
    assert answers(make(hospital, preset, "readmission"), "readmission") == {"100": label}


def test_a_second_stay_of_the_same_admission_is_no_return(make: Make) -> None:
    hospital = charted(days=2)
    hospital.tables["hosp/admissions"][0]["dischtime"] = at(200)
    hospital.stay(1, 10, 101, 100, 150)
    found = answers(make(hospital, tasks="readmission", one_stay=False), "readmission")
    assert found == {"100": 0, "101": 0}


def test_a_return_is_looked_up_after_the_whole_admission(make: Make) -> None:
    hospital = charted(days=2)
    hospital.tables["hosp/admissions"][0]["dischtime"] = at(200)
    hospital.stay(1, 10, 101, 100, 150)
    hospital.admission(1, 11, 300, 400)
    hospital.stay(1, 11, 102, 301, 350)
    found = answers(make(hospital, tasks="readmission", one_stay=False), "readmission")
    assert found == {"100": 1, "101": 1, "102": 0}


@pytest.mark.parametrize(("preset", "label"), [("corrected", 0.0), ("paper", 1.0)])
def test_a_death_30_dates_after_discharge(make: Make, preset: str, label: float) -> None:
    """Discharged at 10 o'clock, dead at an unknown hour: as midnight, that is under 30 days."""
    hospital = charted(days=3, dod="2150-02-03")
    assert answers(make(hospital, preset, "readmission"), "readmission") == {"100": label}


@pytest.mark.parametrize(("preset", "label"), [("corrected", None), ("paper", 1.0)])
def test_a_date_of_death_on_the_day_of_admission(
    make: Make, preset: str, label: float | None
) -> None:
    """Taken as midnight, the death of a patient admitted at 9 o'clock was before the stay."""
    hospital = Hospital()
    hospital.patient(1, start=9, days=0.5, dod="2150-01-01")
    hospital.tables["hosp/admissions"][0]["hospital_expire_flag"] = 1
    hospital.patient(2)
    found = answers(make(hospital, preset, "readmission"), "readmission")
    assert found.get("100") == label


def test_phenotypes_are_ccs_categories_of_versioned_codes(make: Make) -> None:
    hospital = charted()
    hospital.patient(2)
    for code, version in (("N179", 10), ("4280", 9), ("N1831", 10), ("I4820", 10), ("99999", 10)):
        hospital.add("hosp/diagnoses_icd", hadm_id=10, icd_code=code, icd_version=version)
    hospital.add("hosp/diagnoses_icd", hadm_id=20, icd_code="N179", icd_version=9)  # no such code
    hospital.add("hosp/diagnoses_icd", hadm_id=20, icd_code="N179", icd_version="ten")
    hospital.add("hosp/diagnoses_icd", hadm_id=99, icd_code="N179", icd_version=10)
    hospital.add("hosp/diagnoses_icd", icd_code="N179", icd_version=10)
    store = make(hospital, tasks="phenotyping")
    found = answers(store, "phenotyping")
    names = np.array(store.tasks["phenotyping"].classes)
    assert set(names[np.array(found["100"]) == 1]) == {
        "Acute and unspecified renal failure",
        "Congestive heart failure; nonhypertensive",
        "Chronic kidney disease",
        "Cardiac dysrhythmias",
    }
    assert sum(found["200"]) == 0
    assert store.manifest["counts"]["diagnosis codes"] == {
        "by their longest known prefix": 2,
        "in the CCS table": 3,
        "without category": 2,
    }
    assert len(names) == 25


def test_uncertain_and_blank_findings_are_unknown(make: Make) -> None:
    hospital = charted()
    hospital.film(1, 5, 10, "a", Edema="1.0", Pneumonia="-1.0", No_Finding="", Fracture="0.0")
    store = make(hospital, tasks="diagnosis")
    assert store.tasks["diagnosis"].classes == FINDINGS
    want: list[float | None] = [None] * 14
    want[FINDINGS.index("Edema")], want[FINDINGS.index("Fracture")] = 1.0, 0.0
    assert answers(store, "diagnosis") == {"5": want}
    assert [v for v in store.samples["label"].to_pylist()[0] if v] == [1.0]


def drg_hospital() -> Hospital:
    """Twenty patients with a DRG code of their own number modulo 3; number 13 has a code alone."""
    hospital = Hospital()
    for subject in range(1, 21):
        hospital.patient(subject)
        hospital.summary(subject, subject * 10, "none", f"course {subject}")
        code = "999" if subject == 13 else str(subject % 3)
        hospital.add("hosp/drgcodes", hadm_id=subject * 10, drg_type="HCFA", drg_code=code)
        hospital.add("hosp/drgcodes", hadm_id=subject * 10, drg_type="APR", drg_code="777")
    return hospital


def test_drg_classes_come_from_the_training_split(make: Make) -> None:
    hospital = drg_hospital()
    seed = next(s for s in range(50) if split_of_13(make, hospital, s) != "train")
    store = make(hospital, tasks="drg", seed=seed)
    assert store.tasks["drg"].classes == ("0", "1", "2")
    found = answers(store, "drg")
    assert found == {str(s * 10): float(s % 3) for s in range(1, 21) if s != 13}
    last = store.manifest["cohort_flow"][-1]
    assert (last["left_out"], last["reason"]) == (1, "label never seen in the training split")
    every = make(hospital, "authors", tasks="drg", seed=seed)
    assert every.tasks["drg"].classes == ("0", "1", "2", "999")
    assert len(answers(every, "drg")) == 20


def split_of_13(make: Make, hospital: Hospital, seed: int) -> str:
    from flexcare.cohort.splits import split_of
    from flexcare.schema import SPLITS

    return SPLITS[split_of(np.array([13]), seed)[0]]


def test_of_two_drgs_the_first_by_name_counts(make: Make) -> None:
    for rows in (("5", "3"), ("3", "5")):
        hospital = charted()
        hospital.summary(1, 10, "none", "well")
        for code in rows:
            hospital.add("hosp/drgcodes", hadm_id=10, drg_type="HCFA", drg_code=code)
        store = make(hospital, tasks="drg", drg_classes="all")
        assert store.tasks["drg"].classes == ("3",)


def label_file(path: Path, **columns: Any) -> str:
    """A MEDS label file with these columns beside the subjects' and the times'."""
    count = len(next(iter(columns.values())))
    table = {
        "subject_id": pa.array([1, 1, 2, 9][:count], pa.int64()),
        "prediction_time": pa.array([at(10), at(500), at(10), at(10)][:count]).cast(
            pa.timestamp("us")
        ),
    }
    pq.write_table(pa.table(table | columns), path)
    return str(path)


def test_a_meds_label_file_is_a_task_as_it_is(make: Make, tmp_path: Path) -> None:
    hospital = charted()
    hospital.patient(2)
    file = label_file(tmp_path / "sepsis.parquet", boolean_value=[True, False, None, True])
    store = make(hospital, tasks=file)
    assert answers(store, "sepsis") == {"0": 1.0, "1": 0.0}
    rows = store.samples.to_pylist()
    assert [r["hours"] for r in rows] == [10, None]
    assert [r["stay_id"] for r in rows] == [100, None]
    assert [r["has_series"] for r in rows] == [True, False]
    left_out = [s["left_out"] for s in store.manifest["cohort_flow"] if "sepsis" in s["unit"]]
    assert left_out == [1, 0, 1]  # an unknown subject, then one without a value


def test_classes_of_a_label_file_are_its_values_in_the_training_split(
    make: Make, tmp_path: Path
) -> None:
    hospital = charted()
    hospital.patient(2)
    file = label_file(tmp_path / "ward.parquet", categorical_value=["b", "a", "b"])
    store = make(hospital, tasks=file, drg_classes="all")
    assert store.tasks["ward"].classes == ("a", "b")
    assert answers(store, "ward") == {"0": 1, "1": 0, "2": 1}


def test_label_rows_without_a_time_are_left_out(make: Make, tmp_path: Path) -> None:
    table = pa.table(
        {
            "subject_id": pa.array([1, None, 1], pa.int64()),
            "prediction_time": pa.array([None, START, START], pa.timestamp("us")),
            "boolean_value": [True, True, False],
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    store = make(charted(), tasks=str(tmp_path / "x.parquet"))
    assert answers(store, "x") == {"2": 0.0}


def test_zoned_times_of_a_label_file_are_refused(make: Make, tmp_path: Path) -> None:
    table = {"subject_id": [1], "prediction_time": pa.array([START], pa.timestamp("us", "UTC"))}
    pq.write_table(pa.table(table | {"boolean_value": [True]}), tmp_path / "z.parquet")
    with pytest.raises(UserError, match="not a naive timestamp"):
        make(charted(), tasks=str(tmp_path / "z.parquet"))


def own_task(path: Path, text: str) -> str:
    path.write_text('question = "?"\nkind = "binary"\nclasses = ["yes"]\n' + text)
    return str(path)


def test_a_task_of_ones_own_needs_no_code(make: Make, tmp_path: Path) -> None:
    file = own_task(tmp_path / "early.toml", 'ask = "icu_admission + 6h"\n'
                    'label = { rule = "death_within", hours = 12 }')  # fmt: skip
    hospital = charted(days=2, death=17)
    hospital.chart(hospital.patient(2, days=2, death=19), 1, HEART_RATE, 80)
    assert answers(make(hospital, tasks=file), "early") == {"100": 1, "200": 0}


@pytest.mark.parametrize("rule", ["death_in_hospital", "remaining_stay", "return_or_death"])
def test_a_rule_never_answers_from_a_stranger(make: Make, tmp_path: Path, rule: str) -> None:
    """A film outside every stay and admission has no answer, rather than the last patient's."""
    file = own_task(tmp_path / "own.toml", f'ask = "film"\nlabel = {{ rule = "{rule}", days = 30,'
                    " day_edges = [1] }")  # fmt: skip
    hospital = charted()
    hospital.film(1, 5, 10, "a")
    hospital.film(1, 6, 500, "b")
    store = make(hospital, tasks=file)
    assert set(answers(store, "own")) == {"5"}
    assert store.manifest["cohort_flow"][-1]["left_out"] in (0, 1)
    assert sum(s["left_out"] for s in store.manifest["cohort_flow"] if "own" in s["unit"]) == 1


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ('label = { rule = "death_witin", hours = 24 }', "Did you mean 'death_within'"),
        ("label = { hours = 24 }", "unknown label rule"),
        ('label = { rule = "death_within" }', "lacks a parameter"),
    ],
)
def test_a_wrong_rule_is_refused(make: Make, tmp_path: Path, label: str, message: str) -> None:
    file = own_task(tmp_path / "own.toml", f'ask = "every hour after 4h"\n{label}')
    with pytest.raises(UserError, match=message):
        make(charted(), tasks=file)
