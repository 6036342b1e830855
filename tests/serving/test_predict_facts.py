"""One patient's static fields, codes and vectors get the answer that the store's way gives."""

import numpy as np
import pytest
from random_bundle import random_bundle

from flexcare.errors import UserError
from flexcare.serving.predictor import Predictor, load
from prepared import quiet
from several import Ward, prepare_ward, ward

NAMES = {"hr": "heart_rate", "na": "sodium", "7": "lactate", "dx": "diagnosis", "rx": "drug"}
TASK = "in_hospital_mortality"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple:
    """A ward whose values are visible at once, its store, and a bundle for it."""
    one = ward(40)
    one.raw = [(*row[:4], row[3]) for row in one.raw]
    folder = tmp_path_factory.mktemp("facts")
    with pytest.MonkeyPatch.context() as patch:
        store = prepare_ward(one, folder / "w", patch)
    return one, store, load(random_bundle(store, folder / "b"), say=quiet)


def as_patient(one: Ward, store, sample) -> dict:
    """What the raw rows hold of a sample, as a person would write it."""
    own = [r for r in one.raw if r[0] == sample["subject_id"] and r[3] <= sample["hours"]]
    own.sort(key=lambda row: row[3])
    vectors = {(r[1], r[2]) for r in own if r[1] in ("slide", "biopsy")}
    return {
        "vitals": [(r[3], NAMES[r[1]], r[2]) for r in own if r[1] == "hr"],
        "labs": [(r[3], NAMES[r[1]], r[2]) for r in own if r[1] in ("na", "7")],
        "static": [(r[3], r[1], r[2]) for r in own
                   if r[1] in ("age", "unit", "weight") and r[2] != "none"],
        "codes": [(r[3], NAMES[r[1]], r[2]) for r in own if r[1] in ("dx", "rx")],
        "slides": np.array([store.vectors(item)[row] for item, row in vectors]).reshape(-1, 6),
    }  # fmt: skip


def test_patient_gets_the_answer_of_the_store(made) -> None:
    one, store, predictor = made
    rows = {row["sample_id"]: row for row in predictor.predict_store(store).to_pylist()}
    seen = set()
    for sample in store.samples.to_pylist()[::5]:
        expected = rows[sample["sample_id"]]
        found = predictor.predict(as_patient(one, store, sample), sample["hours"], [sample["task"]])
        known = set(expected["modalities"].split("+"))
        if "codes" in known and "codes" not in found.modalities:  # none that the model knows
            known.discard("codes")
        assert set(found.modalities.split("+")) == (known or {"none"})
        answer = list(found[sample["task"]].values())
        np.testing.assert_allclose(answer, expected["probabilities"], atol=1e-6)
        seen.add(found.modalities)
    assert len(seen) > 8
    assert "codes+labs+slides+static+vitals" in seen


def test_static_fields_may_be_a_table_and_codes_plain_texts(made) -> None:
    _, _, predictor = made
    patient = {"static": {"age": 60, "unit": "Medical"}, "codes": ["D", "g"]}
    triples = {
        "static": [(0, "unit", "medical"), (0, "age", 60)],
        "codes": [(0, "diagnosis", "D"), (0, "drug", "D"), (0, "g")],
    }
    for hours in (0, 24, None):
        assert predictor.predict(patient, hours) == predictor.predict(triples, hours)
    assert predictor.predict(patient).modalities == "codes+static"
    assert predictor.predict({"codes": ["D"]}, 5) != predictor.predict({"codes": ["D"]}, 50)
    vector = np.ones(6)
    assert predictor.predict({"slides": vector}) == predictor.predict({"slides": [vector.tolist()]})


def test_what_is_later_or_unknown_is_left_out_and_said(made) -> None:
    _, _, predictor = made
    known = {"static": [(1, "age", 60)], "codes": [(1, "D")]}
    expected = predictor.predict(known, 10)
    more = {
        "static": [(1, "age", 60), (11, "age", 70), (2, "age", 500)],
        "codes": [(1, "D"), (11, "g"), (1, "Q99")],
    }
    found = predictor.predict(more, 10)
    assert found == expected
    assert len(found.left_out) == 4
    empty = predictor.predict({"static": {}, "codes": ["Q99"], "slides": np.zeros((0, 6))}, 10)
    assert empty == predictor.predict({}, 10)
    assert empty.modalities == "none"


@pytest.mark.parametrize(
    ("patient", "told"),
    [
        ({"static": {"height": 3}}, "unknown variable in entry 0"),
        ({"static": {"unit": "surgery"}}, "unknown category of unit"),
        ({"static": 5}, "cannot be read"),
        ({"codes": "D"}, "the codes cannot be read"),
        ({"codes": [5]}, "entry 0 of the codes cannot be read"),
        ({"codes": [(1, "medicine", "D")]}, "unknown variable in entry 0 of the codes"),
        ({"codes": [("now", "D")]}, "hours of entry 0 of the codes is no number"),
        ({"slides": np.ones(5)}, "vectors of slides cannot be used"),
        ({"slides": np.full((2, 6), np.nan)}, "vectors of slides cannot be used"),
        ({"slides": [["a"] * 6]}, "vectors of slides cannot be used"),
    ],
)
def test_what_cannot_be_read_is_refused(made, patient, told) -> None:
    with pytest.raises(UserError, match=told):
        made[2].predict(patient, 10)


def test_codes_of_another_store_are_numbered_as_the_bundle_has_them(made, tmp_path) -> None:
    """The same patients with further codes, numbered otherwise, are answered alike."""
    one, store, predictor = made
    more = Ward(raw=list(one.raw), patients=one.patients)
    for subject in range(1, 41):
        more.add(subject, "dx", f"A{subject}", 71)
        more.add(subject, "dx", "0", 71)
    with pytest.MonkeyPatch.context() as patch:
        other = prepare_ward(more, tmp_path / "w", patch)
    assert store.manifest["scaling"]["codes"] != other.manifest["scaling"]["codes"]
    assert isinstance(predictor, Predictor)
    found, expected = (
        predictor.predict_store(other, tasks=[TASK]),
        predictor.predict_store(store, tasks=[TASK]),
    )
    assert found["sample_id"] == expected["sample_id"]
    np.testing.assert_allclose(
        np.stack(found["probabilities"].to_numpy()),
        np.stack(expected["probabilities"].to_numpy()),
        atol=1e-6,
    )
