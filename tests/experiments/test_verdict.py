"""The one function that judges."""

from dataclasses import replace

import numpy as np
import pytest

from flexcare.experiments.verdict import (
    REFUTED,
    SUPPORTED,
    UNDECIDED,
    Estimate,
    Value,
    estimate,
    judge,
    together,
)


def values(*numbers, drawn=()):
    return [Value(number, tuple(number + one for one in drawn)) for number in numbers]


def test_an_interval_is_students_over_the_paired_differences():
    told = estimate(values(0.5, 0.7, 0.6), values(0.1, 0.2, 0.3))
    assert told.value == pytest.approx(0.4)
    half = 4.302653 * 0.1 / 3**0.5  # t of 2 degrees of freedom, deviation of 0.4, 0.5, 0.3
    assert (told.low, told.high) == pytest.approx((0.4 - half, 0.4 + half))
    assert told.seeds == pytest.approx((0.4, 0.5, 0.3))


def test_the_drawing_of_patients_widens_an_interval():
    random = np.random.default_rng(0)
    drawn = random.normal(0, 0.1, 5000)
    alone = estimate(values(0.5, 0.7, 0.6))
    wide = estimate(values(0.5, 0.7, 0.6, drawn=drawn))
    seeds, both = alone.high - alone.value, wide.high - wide.value
    assert both / seeds == pytest.approx(np.sqrt((0.01 / 3 + 0.01) / (0.01 / 3)), rel=0.05)


def test_what_two_arms_share_of_the_drawing_cancels_out():
    drawn = np.random.default_rng(0).normal(0, 0.1, 100)
    paired = estimate(values(0.5, 0.7, drawn=drawn), values(0.4, 0.5, drawn=drawn))
    alone = estimate(values(0.5, 0.7), values(0.4, 0.5))
    assert paired == replace(alone, patients=True)
    assert not alone.patients


def test_seeds_without_a_value_do_not_count():
    told = estimate([*values(0.5, 0.7), None], [*values(0.1), None, *values(0.2)])
    assert (told.value, told.low) == (pytest.approx(0.4), None)
    assert estimate([None, None]).value is None


def test_equal_seeds_are_certain():
    told = estimate(values(0.0, 0.0, 0.0))
    assert (told.low, told.high) == (0, 0)
    assert judge(told, at_most=0) == SUPPORTED


@pytest.mark.parametrize(
    ("low", "high", "bound", "verdict"),
    [
        (0.1, 0.3, {"at_least": 0.1}, SUPPORTED),
        (0.05, 0.3, {"at_least": 0.1}, UNDECIDED),
        (0.0, 0.1, {"at_least": 0.1}, UNDECIDED),
        (0.0, 0.09, {"at_least": 0.1}, REFUTED),
        (-0.3, -0.1, {"at_most": -0.1}, SUPPORTED),
        (-0.3, 0.0, {"at_most": -0.1}, UNDECIDED),
        (-0.05, 0.0, {"at_most": -0.1}, REFUTED),
        (0.0, 0.0, {"at_most": 0}, SUPPORTED),
        (1e-9, 1e-9, {"at_most": 0}, REFUTED),
        # Two arms that are the same: neither is better.
        (0.0, 0.0, {"more_than": 0}, REFUTED),
        (0.0, 0.1, {"more_than": 0}, UNDECIDED),
        (1e-9, 0.1, {"more_than": 0}, SUPPORTED),
    ],
)
def test_a_bound_is_kept_by_the_whole_interval_or_by_none_of_it(low, high, bound, verdict):
    assert judge(Estimate((low + high) / 2, low, high), **bound) == verdict


def test_one_seed_decides_nothing():
    assert judge(estimate(values(5.0)), at_least=0) == UNDECIDED


def test_a_claim_stands_on_all_its_rules():
    assert together([SUPPORTED, SUPPORTED]) == SUPPORTED
    assert together([SUPPORTED, UNDECIDED]) == UNDECIDED
    assert together([SUPPORTED, UNDECIDED, REFUTED]) == REFUTED


def test_a_value_is_read_as_it_was_written():
    value = Value(0.25, (0.5, float("nan")))
    again = Value.of_json(value.to_json())
    assert again.value == 0.25
    assert again.drawn[0] == 0.5
    assert np.isnan(again.drawn[1])
