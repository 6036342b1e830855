"""One patient as plain values gets the answer that the store's way gives, whatever is known."""

import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from random_bundle import random_bundle

from flexcare.features.text import HashedNgrams
from flexcare.serving.predictor import load
from hospital import GCS_EYE, GCS_MOTOR, GCS_VERBAL, HEART_RATE, OXYGEN, PH_LAB, START, picture
from prepared import quiet

NAMES = {
    HEART_RATE: ("heart_rate", 1),
    OXYGEN: ("fraction_inspired_oxygen", 0.01),
    PH_LAB: ("ph", 1),
    GCS_EYE: ("gcs_eye", 1),
    GCS_MOTOR: ("gcs_motor", 1),
    GCS_VERBAL: ("gcs_verbal", 1),
}
SERIES = [(1, "heart_rate", 90), (2, "gcs_eye", "To Pain"), (3, "ph", 7.2), (9, "heart_rate", 70)]
FILM = np.random.default_rng(0).integers(0, 255, (50, 40), dtype=np.uint8)
KNOWN = {"series": SERIES, "film": FILM, "note": ["asthma since childhood", "no effusion"]}
TASK = "in_hospital_mortality"


def hours_from(text, start):
    return (np.datetime64(text, "us") - start) / np.timedelta64(1, "h")


def raw_series(hospital, sample, start, stop):
    """The stay's charted values and labs, as the tables have them."""
    charts = [r for r in hospital.tables["icu/chartevents"] if r["stay_id"] == sample["stay_id"]]
    labs = [
        r
        for r in hospital.tables["hosp/labevents"]
        if r["subject_id"] == sample["subject_id"]
        and start <= np.datetime64(r["charttime"]) <= stop
    ]
    for row in charts + labs:
        name, scale = NAMES[row["itemid"]]
        hours = hours_from(row["charttime"], start)
        if hours <= sample["series_hours"]:
            yield hours, name, row["valuenum"] * scale


def raw_film(hospital, sample, start, folder):
    """The film asked about, or the last one of the stay before the question."""
    number = sample["subject_id"] - 10_000_000
    first = np.datetime64(START) + np.timedelta64(30 * number, "h")
    hours = hours_from(sample["prediction_time"], first)
    study = 600 + number if hours > 30 else 500 + number
    there = [p for p in hospital.films if f"/s{study}/" in p]
    assert len(there) == 1
    return folder / "cxr" / there[0]


def as_patient(hospital, store, sample, folder):
    """What the raw tables hold of a sample, and the texts of its documents."""
    patient = {}
    if sample["has_series"]:
        (stay,) = [r for r in hospital.tables["icu/icustays"] if r["stay_id"] == sample["stay_id"]]
        start, stop = np.datetime64(stay["intime"]), np.datetime64(stay["outtime"])
        patient["series"] = list(raw_series(hospital, sample, start, stop))
    if sample["has_film"]:
        patient["film"] = raw_film(hospital, sample, START, folder)
    if sample["has_note"]:
        patient["note"] = store.texts["text"].take(sample["text_rows"]).to_pylist()
    return patient


def test_patient_gets_the_answer_of_the_store(hospital, raw, store, predictor):
    table = predictor.predict_store(store)
    rows = {row["sample_id"]: row for row in table.to_pylist()}
    samples = store.samples.to_pylist()
    hourly = [s for s in samples if store.tasks[s["task"]].hourly][::41]
    others = [s for s in samples if not store.tasks[s["task"]].hourly]
    seen = set()
    for sample in hourly + others:
        patient = as_patient(hospital, store, sample, raw)
        hours = sample["series_hours"] if sample["has_series"] else None
        found = predictor.predict(patient, hours, [sample["task"]])
        answer = found[sample["task"]]
        assert list(answer) == list(store.tasks[sample["task"]].classes)
        np.testing.assert_allclose(
            list(answer.values()), rows[sample["sample_id"]]["probabilities"], atol=1e-6
        )
        assert found.modalities == rows[sample["sample_id"]]["modalities"]
        seen.add(found.modalities)
    assert {"film+note+series", "note+series"} <= seen


def test_model_that_reads_less_reads_the_same_part(hospital, raw, store, tmp_path):
    predictor = load(random_bundle(store, tmp_path / "b", max_bins=9, max_pieces=3), say=quiet)
    table = predictor.predict_store(store, "train", ["phenotyping"])
    samples = [s for s in store.samples.to_pylist() if s["task"] == "phenotyping"]
    rows = {s["sample_id"]: s for s in samples}
    for row in table.to_pylist():
        patient = as_patient(hospital, store, rows[row["sample_id"]], raw)
        found = predictor.predict(patient, row["hours"], ["phenotyping"])["phenotyping"]
        assert list(found.values()) == pytest.approx(row["probabilities"], abs=1e-6)


def test_every_subset_gets_the_answer_of_the_store(hospital, raw, store, predictor):
    (sample,) = [s for s in store.samples.to_pylist() if s["sample_id"].startswith(TASK)][:1]
    whole = as_patient(hospital, store, sample, raw)
    gone = {"series": {"has_series": False}, "film": {"film_row": -1}, "note": {"text_rows": []}}
    for count in range(4):
        for names in itertools.combinations(gone, count):
            row = dict(sample)
            for name in names:
                row |= gone[name] | {f"has_{name}": False}
            store.__dict__["samples"] = pa.Table.from_pylist([row], schema=store.samples.schema)
            (expected,) = predictor.predict_store(store, tasks=[TASK]).to_pylist()
            patient = {name: value for name, value in whole.items() if name not in names}
            found = predictor.predict(patient, sample["hours"], [TASK])
            assert list(found[TASK].values()) == pytest.approx(expected["probabilities"], abs=1e-6)
            assert found.modalities == expected["modalities"]


@pytest.mark.parametrize("count", range(4))
def test_every_subset_of_modalities_is_answered(predictor, count):
    for names in itertools.combinations(KNOWN, count):
        found = predictor.predict({name: KNOWN[name] for name in names}, 24)
        assert found.modalities == ("+".join(sorted(names)) or "none")
        assert list(found) == list(predictor.tasks)
        for task, answer in found.items():
            assert list(answer) == list(predictor.tasks[task].classes)
            assert all(0 < chance < 1 for chance in answer.values())
            if predictor.tasks[task].kind == "multiclass":
                assert sum(answer.values()) == pytest.approx(1)


def test_every_modality_matters_and_a_missing_one_may_be_none(predictor):
    whole = predictor.predict(KNOWN, 24)
    for name in KNOWN:
        less = predictor.predict({**KNOWN, name: None}, 24)
        assert less == predictor.predict({k: v for k, v in KNOWN.items() if k != name}, 24)
        assert less != whole


def test_only_the_tasks_asked_are_answered(predictor):
    found = predictor.predict(KNOWN, 24, tasks=["readmission", TASK])
    assert list(found) == ["readmission", TASK]
    whole = predictor.predict(KNOWN, 24)
    for task in found:
        assert found[task] == pytest.approx(whole[task], abs=1e-6)


finite = st.floats(-1e30, 1e30)
entries = st.tuples(
    st.floats(-48, 48), st.sampled_from(["heart_rate", "ph", "glucose", "weight"]), finite
)


@given(series=st.lists(entries, max_size=8), hours=st.floats(0, 48))
@settings(max_examples=40, deadline=None)
def test_any_finite_values_are_answered_and_later_ones_have_no_influence(predictor, series, hours):
    found = predictor.predict({"series": series}, hours, [TASK])
    assert all(math.isfinite(chance) for chance in found[TASK].values())
    assert found == predictor.predict(
        {"series": [one for one in series if one[0] <= hours]}, hours, [TASK]
    )


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ((2, "heart_rate", 400), "outside the plausible range 0 to 350 1/min"),
        ((5.1, "heart_rate", 80), "after the prediction time"),
        ((-25, "heart_rate", 80), "more than 24 h before ICU admission"),
    ],
)
def test_what_preparation_would_drop_is_left_out_and_said(predictor, entry, reason):
    patient = {"series": [(1, "heart_rate", 90), (3, "ph", 7.2)]}
    expected = predictor.predict(patient, 5)
    found = predictor.predict({"series": [*patient["series"], entry]}, 5)
    assert found == expected
    assert expected.left_out == []
    (told,) = found.left_out
    assert entry[1] in told
    assert reason in told


def test_value_exactly_at_the_prediction_time_counts(predictor):
    hours = 100_003 / 3600  # whole seconds that no float of hours holds exactly
    known = [(1, "heart_rate", 90)]
    found = predictor.predict({"series": [*known, (hours, "heart_rate", 150)]}, hours)
    assert found.left_out == []
    assert found != predictor.predict({"series": known}, hours)


def test_value_before_admission_seeds_but_is_no_observation(predictor):
    alone = predictor.predict({"series": [(-3, "heart_rate", 150)]}, 5)
    assert alone.modalities == "none"
    assert "nothing observed" in alone.left_out[0]
    later = [(3, "ph", 7.2)]
    seeded = predictor.predict({"series": [(-3, "heart_rate", 150), *later]}, 5)
    assert seeded != predictor.predict({"series": later}, 5)


def test_of_equal_times_the_last_one_given_wins(predictor):
    first, second = (2, "heart_rate", 60), (2, "heart_rate", 120)
    both = predictor.predict({"series": [first, second]}, 5)
    assert both == predictor.predict({"series": [second]}, 5)
    assert both != predictor.predict({"series": [second, first]}, 5)


def test_order_of_other_times_does_not_matter(predictor):
    series = [*SERIES, (1.2, "heart_rate", 60), (1.8, "heart_rate", 140)]
    found = predictor.predict({"series": series[::-1]}, 24)
    assert found == predictor.predict({"series": series}, 24)


def test_later_value_of_an_hour_wins(predictor):
    later, earlier = (1.8, "heart_rate", 140), (1.2, "heart_rate", 60)
    found = predictor.predict({"series": [later, earlier]}, 5)
    assert found == predictor.predict({"series": [later]}, 5)


def test_hours_that_rounding_made_a_hair_smaller_are_the_same(predictor):
    found = predictor.predict({"series": [(math.nextafter(3, 0), "heart_rate", 140)]}, 5)
    assert found == predictor.predict({"series": [(3, "heart_rate", 140)]}, 5)


def test_category_may_be_its_name_a_text_or_its_score(predictor):
    ways = ["2", " to pain ", "2 To pain", 2, 2.0, "2.0"]
    answers = [predictor.predict({"series": [(1, "gcs_eye", way)]}, 5) for way in ways]
    assert all(answer == answers[0] for answer in answers)
    assert answers[0] != predictor.predict({"series": [(1, "gcs_eye", 3)]}, 5)


def test_derived_variable_is_derived_where_its_parts_share_a_time(predictor):
    parts = [(2, "gcs_eye", 3), (2, "gcs_motor", 5), (2, "gcs_verbal", 2)]
    derived = predictor.predict({"series": parts}, 5)
    assert derived == predictor.predict({"series": [*parts, (2, "gcs_total", 10)]}, 5)
    apart = [*parts[:2], (2.5, "gcs_verbal", 2)]
    assert predictor.predict({"series": apart}, 5) != predictor.predict(
        {"series": [*apart, (2, "gcs_total", 10)]}, 5
    )


def test_picture_and_its_file_are_the_same_film(predictor, tmp_path):
    (tmp_path / "film.jpg").write_bytes(picture(80, 32, 40))
    grey = simplejpeg.decode_jpeg(picture(80, 32, 40), colorspace="GRAY")[..., 0]
    found = predictor.predict({"film": tmp_path / "film.jpg"})
    assert found == predictor.predict({"film": str(tmp_path / "film.jpg")})
    assert found == predictor.predict({"film": grey})
    assert found != predictor.predict({"film": grey[:, ::-1]})


def test_document_is_read_as_preparation_reads_it(predictor):
    report = {"kind": "radiology_report", "text": "TECHNIQUE: AP\nIMPRESSION:\n clear lungs \n"}
    complaint = {"kind": "chief_complaint", "text": " cough "}
    expected = predictor.predict({"note": ["clear lungs", "cough"]})
    assert predictor.predict({"note": [report, complaint]}) == expected
    assert predictor.predict({"note": [report, "cough\n"]}) == expected
    assert predictor.predict({"note": report}) == predictor.predict({"note": "clear lungs"})
    assert predictor.predict({"note": ["cough", report]}) != expected


@pytest.mark.parametrize("note", ["", " \n", [], [""], {"kind": "radiology_report", "text": "x"}])
def test_note_without_a_text_is_an_absent_note(predictor, note):
    found = predictor.predict({"note": note})
    assert found == predictor.predict({})
    assert (found.modalities, found.left_out) == ("none", ["note: no text"])


class Recorder(HashedNgrams):
    """Keeps the texts it is given."""

    def embed(self, texts):
        self.texts = list(texts)
        return super().embed(texts)


def test_encoder_is_given_what_preparation_would_give_it(bundle_folder):
    predictor = load(bundle_folder)
    predictor.reader.encoder = encoder = Recorder()
    predictor.predict({"note": [" cough\n", "", " "]})
    assert encoder.texts == ["cough"]
