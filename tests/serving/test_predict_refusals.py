"""What cannot be used of a patient is refused, with the reason and the next step."""

import math

import numpy as np
import pytest

from flexcare.errors import UserError
from flexcare.serving.bundle import load_bundle
from flexcare.serving.predictor import Predictor, load

SERIES = [(1, "heart_rate", 90), (2, "gcs_eye", "To Pain")]
FILM = np.zeros((50, 40), np.uint8)
KNOWN = {"series": SERIES, "film": FILM, "note": "no effusion"}


BAD = {
    "variable": ({"series": [(1, "hart_rate", 80)]}, 5, "Did you mean 'heart_rate'"),
    "no name": ({"series": [(1, ["heart_rate"], 80)]}, 5, "unknown variable in entry 0"),
    "modality": ({"films": FILM}, 5, "Did you mean 'film'"),
    "category": ({"series": [(1, "gcs_eye", "5 to pain")]}, 5, "Did you mean '2 to pain'"),
    "score": ({"series": [(1, "gcs_eye", 7)]}, 5, "unknown category of gcs_eye"),
    "nan": ({"series": [(1, "heart_rate", math.nan)]}, 5, "a finite number, 1/min"),
    "infinite": ({"series": [(1, "heart_rate", math.inf)]}, 5, "a finite number"),
    "nan category": ({"series": [(1, "gcs_eye", math.nan)]}, 5, "unknown category"),
    "text": ({"series": [(1, "heart_rate", "fast")]}, 5, "found:    a str"),
    "nan time": ({"series": [(math.nan, "heart_rate", 80)]}, 5, "hours of heart_rate"),
    "pair": ({"series": [(1, "heart_rate")]}, 5, "entry 0 of the series"),
    "no list": ({"series": 5}, 5, "the series cannot be read"),
    "table": ({"series": {"heart_rate": 80}}, 5, "the series cannot be read"),
    "no hours": ({"series": SERIES}, None, "Give hours="),
    "nan hours": ({}, math.nan, "prediction time"),
    "negative hours": ({}, -1, "prediction time"),
    "seconds": ({"series": SERIES}, 10**7, "0 to 87,840"),
    "text hours": ({}, "48", "prediction time"),
    "float film": ({"film": FILM / 255}, 5, "ndarray of float64, shape (50, 40)"),
    "colour film": ({"film": np.stack([FILM] * 3, 2)}, 5, "shape (50, 40, 3)"),
    "empty film": ({"film": FILM[:0]}, 5, "shape (0, 40)"),
    "no film": ({"film": "no/such.jpg"}, 5, "No such file"),
    "note": ({"note": 5}, 5, "found:    a int"),
    "kind": ({"note": {"kind": "radiology", "text": "x"}}, 5, "Did you mean 'radiology_report'"),
    "document": ({"note": {"text": "secret"}}, 5, "whole documents"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_refused_with_a_reason(predictor, name):
    patient, hours, told = BAD[name]
    with pytest.raises(UserError) as error:
        predictor.predict(patient, hours)
    assert told in str(error.value)
    assert "secret" not in str(error.value)


def test_file_that_is_no_jpeg_is_refused_without_its_name(predictor, tmp_path):
    (tmp_path / "p123.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match="no JPEG") as error:
        predictor.predict({"film": tmp_path / "p123.jpg"})
    assert "p123" not in str(error.value)


def test_unknown_and_no_task_are_refused(predictor):
    with pytest.raises(UserError, match="Did you mean 'readmission'"):
        predictor.predict({}, tasks=["readmision"])
    with pytest.raises(UserError, match="nothing to ask"):
        predictor.predict({}, tasks=[])


def test_notes_of_another_encoder_are_refused_but_only_notes(bundle_folder):
    bundle = load_bundle(bundle_folder)
    (note,) = [info for info in bundle.modalities if info.kind == "text"]
    note.settings["encoder"] = "clinical-0123"
    predictor = Predictor(bundle)
    assert predictor.predict({"series": SERIES}, 5).modalities == "series"
    with pytest.raises(UserError, match=r"expected: clinical-0123\n.*load\(bundle, text_encoder="):
        predictor.predict({"note": "cough"})
    with pytest.raises(UserError, match="clinical-0123"):
        Predictor(bundle, "hashed")


def test_encoder_that_fits_may_be_named(bundle_folder):
    expected = load(bundle_folder).predict({"note": "cough"})
    assert load(bundle_folder, text_encoder="hashed").predict({"note": "cough"}) == expected
    with pytest.raises(UserError, match="unknown text encoder 'nowhere'"):
        load(bundle_folder, text_encoder="nowhere")


def test_imported_network_says_that_it_cannot_read_a_patient(bundle_folder):
    bundle = load_bundle(bundle_folder)
    bundle.scaling = {}
    for info in bundle.modalities:
        info.settings.clear()
    predictor = Predictor(bundle)
    for name in KNOWN:
        with pytest.raises(UserError):
            predictor.predict({name: KNOWN[name]}, 24)
    assert predictor.predict({}).modalities == "none"
