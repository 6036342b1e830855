"""Measures against what is known of them."""

import numpy as np
import pytest

from flexcare.evaluation.routing import divergence, mutual
from flexcare.experiments.measures.planted import needs_of, probe, shapley_value
from flexcare.sources.synthetic.truth import truth

TRUTH = truth(0, 100)


def test_what_is_independent_has_no_mutual_information():
    assert mutual(np.outer([1.0, 2.0, 3.0], [4.0, 1.0])) == pytest.approx(0, abs=1e-12)
    assert mutual(np.eye(4)) == pytest.approx(2)


def test_divergence_goes_from_nothing_to_one_bit():
    assert divergence(np.array([2.0, 2.0]), np.array([1.0, 1.0])) == pytest.approx(0, abs=1e-12)
    assert divergence(np.array([1.0, 0.0]), np.array([0.0, 5.0])) == pytest.approx(1)
    one, two = np.array([0.9, 0.1]), np.array([0.5, 0.5])
    assert 0 < divergence(one, two) < 1
    assert divergence(one, two) == pytest.approx(divergence(two, one))


def game(worth):
    """The Shapley values of a game of three."""
    names = ("film", "note", "series")
    return {name: shapley_value(worth, name, names) for name in names}


def test_shapley_values_share_out_what_all_add_together():
    random = np.random.default_rng(0)
    sets = [(), ("film",), ("note",), ("series",), ("film", "note"), ("film", "series"),
            ("note", "series"), ("film", "note", "series")]  # fmt: skip
    worth = {one: float(random.random()) for one in sets}
    values = game(worth)
    assert sum(values.values()) == pytest.approx(worth[sets[-1]] - worth[()])


def test_shapley_values_of_needing_two_are_halves():
    names = ("film", "note", "series")
    sets = [tuple(n for i, n in enumerate(names) if k >> i & 1) for k in range(8)]
    worth = {one: 0.5 + 0.4 * float({"film", "note"} <= set(one)) for one in sets}
    assert game(worth) == pytest.approx({"film": 0.2, "note": 0.2, "series": 0.0})


def test_a_probe_reads_what_is_there_and_nothing_else():
    random = np.random.default_rng(0)
    x, other = random.normal(size=(2, 400, 8))
    y = (x[:, 0] + x[:, 3] > 0).astype(int)
    train, test = slice(200), slice(200, None)
    assert probe((x[train], y[train]), (x[test], y[test])) > 0.95
    assert abs(probe((other[train], y[train]), (other[test], y[test])) - 0.5) < 0.15
    assert probe((x[:30], y[:30]), (x[test], y[test])) is None  # too few to learn from


@pytest.mark.parametrize(
    ("task", "label", "matter"),
    [
        ("planted_film", "Other lower respiratory disease", {"film"}),
        ("planted_shared", "Shock", {"series", "film", "note"}),
        ("planted_series_note", "Gastrointestinal hemorrhage", {"series", "note"}),
        ("readmission", "death or return", {"film", "note"}),
    ],
)
def test_which_modalities_matter_is_read_from_the_truth(task, label, matter):
    needs = needs_of(TRUTH, task, label)
    assert {name for name, how in needs.items() if how != "noise"} == matter


def test_a_coin_needs_nothing():
    assert needs_of(TRUTH, "phenotyping", "Cardiac dysrhythmias") is None
