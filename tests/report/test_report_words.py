"""Sentences are computed from the numbers, and say no more than these."""

from dataclasses import replace

import pytest
from fake_content import companions

from flexcare.report.content import ALONE, TOGETHER
from flexcare.report.scale import domain, heat, mark, shares
from flexcare.report.words import (
    companions_sentence,
    decimal,
    listed,
    percent,
    span,
    verdict,
    verdicts,
    with_span,
)


def difference(reading, value=0.07, low=0.03, high=0.1, against="trees"):
    gap = {"value": value, "low": low, "high": high, "reason": ""}
    return {"against": against, "reading": reading, **gap}


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.5444, "0.54"),
        (0.0444, "0.044"),
        (0.0, "0.00"),
        (-0.2, "−0.20"),
        (None, "–"),
        (-1e-9, "0.00"),
    ],
)
def test_decimals(number, text):
    assert decimal(number) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0.136, "14 %"), (0.0136, "1.4 %"), (0, "0 %"), (None, "–")]
)
def test_percent(share, text):
    assert percent(share) == text


def test_an_interval_has_the_decimals_of_its_value():
    assert with_span({"value": 0.05, "low": 0.04, "high": 0.21}) == "0.050 (0.040–0.210)"
    assert span({"value": 0.01, "low": -0.02, "high": 0.03}) == "(−0.020 to 0.030)"
    assert span({"value": None, "low": None, "high": None}) == ""


def test_lists():
    assert [listed(x) for x in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_verdicts_in_words():
    assert verdict(difference("better"))[1] == "better than trees by 0.070 (0.030–0.100)"
    worse = difference("worse", -0.07, -0.1, -0.03)
    assert verdict(worse) == ("worse", "trees are better here, by 0.070 (0.030–0.100)")
    assert verdict(difference("unclear"))[1] == "no clear difference from trees"
    unknown = difference("unknown", None, None, None) | {"reason": "all 3 labels are 0"}
    assert verdict(unknown)[1] == "cannot be compared with trees: all 3 labels are 0"


def test_a_win_over_the_majority_is_not_worth_a_line_but_a_loss_is():
    win, loss = difference("better", against="majority"), difference("unclear", against="majority")
    assert len(verdicts([difference("better"), win])) == 1
    assert len(verdicts([difference("better"), loss])) == 2


def test_opening_sentence_is_computed():
    text = companions_sentence(companions())
    assert text.startswith(
        "AUROC 0.93 together, 0.52 alone, best single modality 0.55 (film only)."
    )
    assert "made this one answerable" in text


def test_opening_sentence_claims_nothing_where_intervals_overlap():
    given = companions()
    runs = [
        replace(run, held_out={given.task: {"value": 0.6, "low": 0.5, "high": 0.7}})
        for run in given.runs
    ]
    assert "does not show" in companions_sentence(replace(given, runs=runs))


def test_opening_sentence_without_a_run_alone_compares_nothing():
    given = companions()
    runs = [run for run in given.runs if run.role in (TOGETHER, "film only")]
    text = companions_sentence(replace(given, runs=runs))
    assert text == "AUROC 0.93 together, best single modality 0.55 (film only)."
    assert ALONE not in text


def test_scale_holds_all_intervals_and_ends_at_tenths():
    values = [{"value": 0.52, "low": 0.43, "high": 0.6}, {"value": None, "low": None, "high": None}]
    assert domain(values) == (0.4, 0.6)
    assert domain(values, 1.0) == (0.4, 1.0)
    assert domain([]) == (0.0, 1.0)
    drawn = mark(values[0], (0.4, 0.6))
    assert (drawn["dot"], drawn["left"], drawn["width"]) == (60.0, 15.0, 85.0)


def test_shares_of_nothing_are_zero():
    assert shares([0, 0]) == [0.0, 0.0]
    assert shares([1, 3]) == [0.25, 0.75]
    assert heat([], ["a"], [])["rows"] == []
