"""Sections of documents: from a known header, whatever its case, to the next header."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexcare.features.notes import note_rules, parts, sections

RULES = note_rules()
SUMMARY = """
Name: ___   Unit No: ___

Chief Complaint:
chest pain

PAST MEDICAL HISTORY:
1. asthma: since childhood
2. gout

Social History:
___
Brief Hospital Course: improved.
# Pneumonia: treated
Medications on Admission:
none
Discharge Condition:
"""


def test_sections_run_from_header_to_header() -> None:
    found = sections(SUMMARY, RULES)
    assert found["past medical history"] == "1. asthma: since childhood\n2. gout"
    assert found["brief hospital course"] == "improved.\n# Pneumonia: treated"
    assert found["chief complaint"] == "chest pain"
    assert "discharge condition" not in found  # empty


def test_a_header_in_the_middle_of_a_line_is_none() -> None:
    text = "Past Medical History:\ngout, see Impression: none\nImpression: clear"
    assert sections(text, RULES)["past medical history"] == "gout, see Impression: none"


def test_other_spellings_are_the_same_section() -> None:
    assert sections("PMH: gout", RULES) == {"past medical history": "gout"}
    assert sections("Hospital Course: well", RULES) == {"brief hospital course": "well"}
    assert sections("Discharge Diagnosis: a\nDischarge Diagnoses: b", RULES) == {
        "discharge diagnosis": "a",
        "discharge diagnoses": "b",
    }


def test_the_first_of_two_equal_sections_that_is_not_empty_wins() -> None:
    text = "Impression:\n\nFindings: x\nImpression: first\nImpression: second"
    assert sections(text, RULES)["impression"] == "first"


def test_windows_line_ends_make_no_difference() -> None:
    want = {k: v.split() for k, v in sections(SUMMARY, RULES).items()}
    found = sections(SUMMARY.replace("\n", "\r\n"), RULES)
    assert {k: v.split() for k, v in found.items()} == want


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("discharge_summary", ["past medical history", "brief hospital course"]),
        ("radiology_report", []),
        ("chief_complaint", ["whole"]),
    ],
)
def test_each_kind_of_document_keeps_its_parts(kind: str, names: list[str]) -> None:
    assert list(parts(kind, SUMMARY, RULES)) == names


def test_an_empty_document_has_no_part() -> None:
    assert parts("chief_complaint", " \n", RULES) == {}
    assert parts("discharge_summary", "", RULES) == {}


@given(st.text(max_size=200))
def test_any_text_is_read(text: str) -> None:
    for body in sections(text, RULES).values():
        assert body.strip() == body != ""
