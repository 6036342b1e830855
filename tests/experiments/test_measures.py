"""Measures against what is known of them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from flexcare.evaluation.routing import divergence, mutual
from flexcare.experiments.measures.conflict import conflict, reached_after
from flexcare.experiments.measures.mask import similarity, summed
from flexcare.experiments.measures.planted import _by_kind, needs_of, probe, shapley_value
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


def test_probes_are_means_over_single_modalities_of_each_kind():
    table = {
        "columns": ["film", "note", "series", "film+note"],
        "values": [[0.5, 0.4, 0.9, 0.0], [0.8, 0.5, 0.5, 0.0], [None, 0.7, 0.6, 0.0],
                   [0.7, 0.8, None, 0.0]],
    }  # fmt: skip
    found = {name: one.value for name, one in _by_kind(table, TRUTH).items()}
    assert found == pytest.approx({"own": 0.8, "foreign": 0.5, "shared": 0.75})


def test_similarity_is_that_of_a_loop_over_samples():
    generator = torch.Generator().manual_seed(0)
    combined = torch.randn(6, 3, 8, generator=generator)
    present = torch.tensor([[1, 1, 0]] * 4 + [[1, 0, 1]] * 2).bool()
    combined[~present] = torch.nan
    parts = summed(combined[:3], present[:3]) + summed(combined[3:], present[3:])
    table = similarity(["a", "b", "a+b"], parts)
    assert table["rows"] == table["columns"] == ["a", "b", "a+b"]

    def alike(samples, one, other):
        z = combined.numpy()
        return np.mean([abs(np.corrcoef(z[k, one], z[k, other])[0, 1]) for k in samples])

    first, second = alike(range(4), 0, 1), alike(range(4, 6), 0, 2)
    values = [[None, first, second], [first, None, None], [second, None, None]]
    for row, expected in zip(table["values"], values, strict=True):
        assert row == pytest.approx(expected, abs=1e-3)


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


def cosines(step, one, other, third):
    """A line of gradients.jsonl of three tasks; None: the third has no gradient."""
    table = [[1, one, other], [one, 1, third], [other, third, 1]]
    silent = {"norm": [0, 0, 0], "cosine": [[None] * 3] * 3}
    return {"step": step, "groups": {"pooling": silent, "all": {"norm": [1] * 3, "cosine": table}}}


def test_cosines_are_averaged_over_pairs_and_steps(tmp_path):
    lines = [cosines(0, 0.5, -0.5, -0.6), cosines(4, 0.2, None, None)]
    (tmp_path / "gradients.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = conflict(SimpleNamespace(path=tmp_path))
    assert {name: one.value for name, one in found.values.items()} == pytest.approx(
        {"cosine": -0.1, "negative": 0.5}
    )
    table = found.shown["cosine"]
    assert (table["rows"], table["columns"]) == (["all", "pooling"], ["step 0", "step 4"])
    assert table["values"] == [[-0.2, 0.2], [0, 0]]


def test_of_a_training_that_was_not_measured_there_are_no_cosines(tmp_path):
    found = conflict(SimpleNamespace(path=tmp_path))
    assert not found.values
    assert not found.shown


def test_what_costs_twice_as_much_has_come_half_as_far():
    means = [0.5, 0.6, 0.8, 0.9]
    assert reached_after(means, 1) == 0.9
    assert reached_after(means, 0.9) == 0.9
    assert reached_after(means, 2) == pytest.approx(0.6)
    assert reached_after(means, 1.6) == pytest.approx(0.7)
    assert reached_after(means, 5) is None
    assert reached_after([None, 0.6], 2) is None
    assert reached_after([None], 1) is None
