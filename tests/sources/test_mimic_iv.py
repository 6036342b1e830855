"""Raw rows of MIMIC-IV become values: units, limits, texts, ties, whose they are, and the films."""

import csv
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from flexcare.features.variables import variable_set
from flexcare.sources.mimic_iv import MimicIV
from flexcare.store import Store
from hospital import (
    CELSIUS,
    FAHRENHEIT,
    GCS_EYE,
    GCS_MOTOR,
    GCS_VERBAL,
    GLUCOSE_CHART,
    GLUCOSE_LAB,
    HEART_RATE,
    HEIGHT_INCHES,
    OXYGEN,
    PH_LAB,
    REFILL,
    SATURATION,
    WEIGHT_POUNDS,
    Hospital,
    Row,
    at,
)  # fmt: skip
from prepared import Make, everything, prepare_there

Events = dict[str, list[tuple[float, float]]]


def one_stay(days: float = 3) -> tuple[Hospital, Row]:
    """A hospital with one patient, whose stay is charted an hour after admission."""
    hospital = Hospital()
    stay = hospital.patient(1, days=days)
    hospital.chart(stay, 1, CELSIUS, 37)
    return hospital, stay


def stored(store: Store, stay_id: int = 100) -> dict[str, np.ndarray[Any, Any]]:
    """The event arrays of one stay, with variables by name."""
    rows = store.samples.to_pylist()
    sample = next(row for row in rows if row["has_series"] and row["stay_id"] == stay_id)
    first, stop = sample["series_first"], sample["series_stop"]
    out: dict[str, np.ndarray[Any, Any]] = {n: a[first:stop] for n, a in store.events.items()}
    names = variable_set(store.modalities["series"].settings["variables"], "store").names
    return out | {"name": np.array(names)[out["variable"]]}


def of_variable(store: Store, name: str, stay_id: int = 100) -> list[tuple[float, float]]:
    """(hours, value) of a variable, in the order of the store."""
    events = stored(store, stay_id)
    chosen = events["name"] == name
    hours = (events["seconds"][chosen] / 3600).round(6)
    values = events["value"][chosen].astype(float).round(4)
    return list(zip(hours.tolist(), values.tolist(), strict=True))


CASES = [
    (OXYGEN, 40, "fraction_inspired_oxygen", 0.4),
    (OXYGEN, 21, "fraction_inspired_oxygen", 0.21),
    (OXYGEN, 0.21, "fraction_inspired_oxygen", 0.21),
    (OXYGEN, 1, "fraction_inspired_oxygen", 1.0),
    (OXYGEN, 100, "fraction_inspired_oxygen", 1.0),
    (OXYGEN, 101, "fraction_inspired_oxygen", None),
    (OXYGEN, 0.2, "fraction_inspired_oxygen", None),
    (WEIGHT_POUNDS, 200, "weight", 90.7185),
    (HEIGHT_INCHES, 70, "height", 177.8),
    (FAHRENHEIT, 98.6, "temperature", 37.0),
    (CELSIUS, 26, "temperature", 26.0),
    (CELSIUS, 98.6, "temperature", None),
    (SATURATION, 0.97, "oxygen_saturation", 97.0),
    (SATURATION, 1, "oxygen_saturation", 100.0),
    (SATURATION, 97, "oxygen_saturation", 97.0),
    (SATURATION, 100.5, "oxygen_saturation", None),
    (HEART_RATE, -1, "heart_rate", None),
    (HEART_RATE, 1e300, "heart_rate", None),
    (HEART_RATE, "inf", "heart_rate", None),
    (HEART_RATE, "nan", "heart_rate", None),
    (HEART_RATE, "fast", "heart_rate", None),
    (HEART_RATE, "", "heart_rate", None),
    (HEART_RATE, " 71 ", "heart_rate", 71),
]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Each case of CASES charted at its own hour."""
    hospital, stay = one_stay()
    for number, (item, raw, _, _) in enumerate(CASES):
        hospital.chart(stay, 2 + number, item, raw)
    folder = tmp_path_factory.mktemp("cases")
    return prepare_there(hospital.write(folder / "h"), folder / "s", tasks="phenotyping")


@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_value_is_converted_and_checked(cases: Store, number: int) -> None:
    _, _, variable, value = CASES[number]
    found = [v for h, v in of_variable(cases, variable) if h == 2 + number]
    assert found == ([] if value is None else [value])


def test_every_value_that_is_left_out_is_counted(cases: Store) -> None:
    assert sum(cases.manifest["dropped"].values()) == sum(case[3] is None for case in CASES)


def test_limits_belong_to_the_range_for_every_numeric_variable(make: Make, spec: Path) -> None:
    """The limits themselves are kept, what lies beyond them is dropped and counted."""
    hospital, stay = one_stay()
    converted = {OXYGEN, WEIGHT_POUNDS, HEIGHT_INCHES, FAHRENHEIT}
    with (spec / "variables.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "numeric"]
    want: Events = {}
    for row in rows:
        items = [int(i) for i in row["mimic_iv_items"].split(";") if i.isdigit()]
        item = next((i for i in items if i >= 200_000 and i not in converted), None)
        if item is None:
            continue
        low, high = float(row["low"]), float(row["high"])
        span = (high - low) / 1000
        low = max(low, 1.5) if item == SATURATION else low  # at or under 1 is a fraction there
        hospital.chart(stay, 10, item, low)
        hospital.chart(stay, 11, item, high)
        hospital.chart(stay, 12, item, float(row["low"]) - span)
        hospital.chart(stay, 13, item, high + span)
        want[row["variable"]] = [(10, low), (11, high)]
    store = make(hospital, tasks="phenotyping")
    got = {name: [e for e in of_variable(store, name) if e[0] >= 10] for name in want}
    assert got == {name: [(h, round(v, 4)) for h, v in rows] for name, rows in want.items()}
    assert len(want) == 11
    assert store.manifest["dropped"] == {"events outside the plausible range": 22}


def test_a_text_wins_over_the_number(make: Make) -> None:
    hospital, stay = one_stay()
    hospital.chart(stay, 2, GCS_EYE, 4, text="None")
    hospital.chart(stay, 3, GCS_EYE, 2, text="4 Spontaneously")
    hospital.chart(stay, 4, GCS_EYE, 2, text="somewhere")
    hospital.chart(stay, 5, GCS_EYE, 9, text="somewhere")
    hospital.chart(stay, 6, REFILL, "", text="Abnormal >3 Seconds")
    hospital.chart(stay, 7, REFILL, "", text="Normal <3 Seconds")
    store = make(hospital, tasks="phenotyping")
    categories = store.modalities["series"].settings["variables"]["gcs_eye"]["categories"]
    assert [categories[int(v)] for _, v in of_variable(store, "gcs_eye")] == ["1", "4", "2"]
    assert of_variable(store, "capillary_refill_rate") == [(6, 1), (7, 0)]
    assert store.manifest["dropped"] == {"events without a usable value": 1}


def test_what_could_not_be_tested_counts_1_and_is_counted(make: Make) -> None:
    hospital, stay = one_stay()
    hospital.chart(stay, 2, GCS_VERBAL, 0, text="No Response-ETT")
    hospital.chart(stay, 3, GCS_VERBAL, 0, text="1.0 ET/Trach")
    hospital.chart(stay, 4, GCS_VERBAL, 5, text="Oriented")
    store = make(hospital, tasks="phenotyping")
    assert of_variable(store, "gcs_verbal") == [(2, 0), (3, 0), (4, 4)]  # category numbers
    assert store.manifest["dropped"] == {"events not testable, kept with their lowest score": 2}


def test_the_gcs_total_needs_its_three_parts_at_one_time(make: Make) -> None:
    hospital, stay = one_stay()
    for hours, eye, motor, verbal in ((2, 4, 6, 5), (3, 1, 1, 1), (5, 3, 5, None)):
        hospital.chart(stay, hours, GCS_EYE, eye)
        hospital.chart(stay, hours, GCS_MOTOR, motor)
        if verbal:
            hospital.chart(stay, hours, GCS_VERBAL, verbal)
    hospital.chart(stay, 5.25, GCS_VERBAL, 4)
    assert of_variable(make(hospital, tasks="phenotyping"), "gcs_total") == [(2, 15), (3, 3)]


def test_the_gcs_total_is_known_when_its_last_part_is(make: Make) -> None:
    hospital, stay = one_stay()
    for item, value, stored_at in ((GCS_EYE, 4, 2), (GCS_MOTOR, 6, 4), (GCS_VERBAL, 5, 3)):
        hospital.chart(stay, 2, item, value, stored=stored_at)
    hospital.chart(stay, 2, GCS_EYE, 1, stored=6)  # corrected later
    events = stored(make(hospital, tasks="phenotyping", clock="storetime"))
    total = events["name"] == "gcs_total"
    assert events["seconds"][total].tolist() == [7200, 7200]
    assert events["available"][total].tolist() == [4 * 3600, 6 * 3600]
    assert events["value"][total].tolist() == [15, 12]


@pytest.mark.parametrize("clock", ["charttime", "storetime"])
def test_of_equal_times_the_later_storetime_the_later_item_and_the_larger_value_win(
    make: Make, clock: str
) -> None:
    hospital, stay = one_stay()
    hospital.chart(stay, 2, HEART_RATE, 90, stored=3)
    hospital.chart(stay, 2, HEART_RATE, 70, stored=4)
    hospital.lab(1, 5, GLUCOSE_LAB, 300)
    hospital.chart(stay, 5, GLUCOSE_CHART, 100)
    hospital.chart(stay, 6, HEART_RATE, 75)
    hospital.chart(stay, 6, HEART_RATE, 71)
    hospital.tables["icu/chartevents"].reverse()
    store = make(hospital, tasks="phenotyping", clock=clock)
    assert of_variable(store, "heart_rate") == [(2, 90), (2, 70), (6, 71), (6, 75)]
    assert of_variable(store, "glucose") == [(5, 300), (5, 100)]


def test_the_clock_says_when_a_value_became_visible(make: Make) -> None:
    hospital, stay = one_stay()
    hospital.chart(stay, 2, HEART_RATE, 90, stored=5)
    hospital.chart(stay, 3, HEART_RATE, 91, stored=1)  # stored before its time: seen at its time
    hospital.chart(stay, 4, HEART_RATE, 92)["storetime"] = ""
    seen = {}
    for clock in ("charttime", "storetime"):
        store = make(hospital, tasks="phenotyping", clock=clock)
        events = stored(store)
        seen[clock] = (events["available"][events["name"] == "heart_rate"] / 3600).tolist()
        dropped = {"events without a store time": 1} if clock == "storetime" else {}
        assert store.manifest["dropped"] == dropped
    assert seen == {"charttime": [2, 3, 4], "storetime": [5, 3]}


def test_seconds_are_never_rounded_towards_the_past(make: Make) -> None:
    hospital, stay = one_stay()
    hospital.chart(stay, 2, HEART_RATE, 90)["charttime"] = "2150-01-01 01:59:59.600"
    events = stored(make(hospital, tasks="phenotyping"))
    rate = events["name"] == "heart_rate"
    assert events["seconds"][rate].tolist() == [7199]
    assert events["available"][rate].tolist() == [7200]


def test_a_store_time_centuries_away_is_no_accident(make: Make) -> None:
    hospital, stay = one_stay()
    hospital.chart(stay, 2, HEART_RATE, 90)["storetime"] = "2999-01-01 00:00:00"
    events = stored(make(hospital, tasks="phenotyping", clock="storetime"))
    assert events["available"][events["name"] == "heart_rate"].tolist() == [2**31 - 1]


def test_laboratory_rows_belong_to_a_stay_by_subject_and_time(make: Make) -> None:
    hospital, _ = one_stay()
    other = hospital.patient(2, start=5)
    hospital.chart(other, 6, CELSIUS, 37)
    hospital.lab(1, 10, PH_LAB, 7.31, hadm="")
    hospital.lab(1, 11, PH_LAB, 7.32, hadm=999)
    hospital.lab(1, -23.5, PH_LAB, 7.33)  # may seed
    hospital.lab(1, -25, PH_LAB, 7.34)
    hospital.lab(1, 73, PH_LAB, 7.35)  # after the stay of three days
    hospital.lab(3, 10, PH_LAB, 7.36)  # nobody's
    store = make(hospital, tasks="phenotyping")
    assert of_variable(store, "ph", 100) == [(-23.5, 7.33), (10, 7.31), (11, 7.32)]
    assert of_variable(store, "ph", 200) == []
    assert store.manifest["dropped"] == {"events of no stay of the cohort": 3}


def test_one_laboratory_row_may_seed_the_next_stay_too(make: Make) -> None:
    hospital = Hospital()
    first = hospital.patient(1, days=2)
    hospital.admission(1, 11, 50, 100)
    second = hospital.stay(1, 11, 101, 52, 90)
    hospital.chart(first, 1, CELSIUS, 37)
    hospital.chart(second, 53, CELSIUS, 37)
    hospital.lab(1, 40, PH_LAB, 7.3)
    store = make(hospital, tasks="phenotyping")
    assert of_variable(store, "ph", 100) == [(40, 7.3)]
    assert of_variable(store, "ph", 101) == [(-12, 7.3)]


def test_chart_rows_belong_to_their_stay_within_its_length(make: Make) -> None:
    hospital, stay = one_stay(days=2)
    stranger = stay | {"stay_id": 555}
    hospital.chart(stranger, 2, HEART_RATE, 60)
    for hours, value in ((-24, 61), (-24.1, 62), (48, 63), (48.1, 64)):
        hospital.chart(stay, hours, HEART_RATE, value)
    hospital.chart(stay, 5, HEART_RATE, 65)["charttime"] = "yesterday"
    store = make(hospital, tasks="phenotyping")
    assert of_variable(store, "heart_rate") == [(-24, 61), (48, 63)]
    assert store.manifest["dropped"] == {
        "events of no stay of the cohort": 1,
        "events outside the stay": 2,
        "events without a readable time": 1,
    }


def test_output_rows_count_where_the_dictionary_says_so(make: Make, tmp_path: Path) -> None:
    hospital, _ = one_stay()
    hospital.tables["icu/d_items"] = [{"itemid": 226559, "linksto": "outputevents"}]
    hospital.tables["icu/outputevents"] = [
        {"stay_id": 100, "charttime": at(2), "storetime": at(2), "itemid": 226559, "value": 250}
    ]
    mine = tmp_path / "mine.toml"
    mine.write_text(f'[urine]\nunit = "mL"\nitems = [226559]\nnormal = 50\n'
                    f'[temperature]\nunit = "C"\nitems = [{CELSIUS}]\nnormal = 37\n')  # fmt: skip
    assert of_variable(make(hospital, tasks="phenotyping", variables=str(mine)), "urine") == [
        (2, 250)
    ]


def test_films_are_ap_and_the_latest_then_the_larger_name_wins(make: Make) -> None:
    hospital, _ = one_stay()
    hospital.film(1, 5, 3, "a", brightness=10)
    hospital.film(1, 6, 20, "b", brightness=20)
    hospital.film(1, 6, 20, "c", brightness=30, Edema="1.0")
    hospital.film(1, 7, 21, "d", view="PA", brightness=40)
    hospital.film(1, 8, 22, "e", view="AP ", brightness=50)
    hospital.film(1, 9, 49, "f", brightness=60)  # after the question
    hospital.film(1, 4, -1, "z", brightness=70)  # before the stay
    store = make(hospital, tasks="in_hospital_mortality")
    assert store.films.shape == (1, 28, 28)
    assert abs(int(store.films[0, :, -1].mean()) - 30) <= 2


def test_the_time_of_a_study_gets_back_its_zeros(make: Make) -> None:
    hospital, _ = one_stay()
    for study, clock in enumerate(["93015.5", "5", "0.0", "235959.999"], start=1):
        hospital.film(1, study, 1, f"d{study}", Edema="1.0")["StudyTime"] = clock
    samples = make(hospital, tasks="diagnosis").samples.to_pylist()
    assert {row["sample_id"]: str(row["prediction_time"])[11:] for row in samples} == {
        "diagnosis/1": "09:30:15.500000",
        "diagnosis/2": "00:00:05",
        "diagnosis/3": "00:00:00",
        "diagnosis/4": "23:59:59.999000",
    }


def test_a_film_without_a_readable_time_is_counted(make: Make) -> None:
    hospital, _ = one_stay()
    hospital.film(1, 1, 1, "a", Edema="1.0")
    hospital.film(1, 2, 1, "b", Edema="1.0")["StudyDate"] = "spring"
    store = make(hospital, tasks="diagnosis")
    assert len(store.samples) == 1
    assert store.manifest["dropped"] == {"films without a readable time, study or subject": 1}


def test_impossible_ages_are_missing_and_counted(tmp_path: Path) -> None:
    hospital = Hospital()
    for subject, age in enumerate((60, 350, -1), 1):
        hospital.subject(subject, age=age)
    source = MimicIV(hospital.write(tmp_path / "h"), duckdb.connect())
    assert source.subjects()["anchor_age"].to_pylist() == [60, None, None]
    assert source.dropped == {"impossible ages, taken as missing": 2}


def test_plain_and_compressed_tables_give_the_same_store(tmp_path: Path) -> None:
    hospital = everything(4)
    stores = [
        prepare_there(hospital.write(tmp_path / f"h{ending}", ending), tmp_path / f"s{ending}")
        for ending in (".csv", ".csv.gz")
    ]
    assert stores[0].manifest["content"] == stores[1].manifest["content"]


def test_optional_companions_may_be_absent(make: Make, tmp_path: Path) -> None:
    hospital, _ = one_stay()
    for name in ("hosp/drgcodes", "note/discharge", "ed/edstays", "ed/triage"):
        del hospital.tables[name]
    hospital.report(1, 3, "clear")
    assert make(hospital, tasks="phenotyping").samples["has_note"].to_pylist() == [True]
    for name in [n for n in hospital.tables if n.split("/")[0] in ("cxr", "note")]:
        del hospital.tables[name]
    assert set(make(hospital, tasks="phenotyping,readmission").modalities) == {"series"}
