"""A group that is served worse is named with the number that says so; no other group is."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from some_answers import INFOS, as_table, drawn

from flexcare.evaluation.breakdown import WARN_SUBJECTS
from flexcare.evaluation.evaluate import evaluate_tables

SECOND = {"binary": "auroc", "multilabel": "macro_auroc", "multiclass": "accuracy"}


def judged(kind, answers, sexes, tuning=None, resamples=200):
    info = INFOS[kind]
    fitted = None if tuning is None else {"m": as_table(kind, tuning, split="tuning")}
    table = as_table(kind, answers, list(sexes))
    result = evaluate_tables({"m": table}, {info.name: info}, resamples, tuning=fitted)
    return result["tasks"][info.name]["models"]["m"]


def spoiled(answers, rows, seed=7):
    """The same with answers of others in these rows."""
    said = answers.probabilities.copy()
    said[rows] = said[np.random.default_rng(seed).permutation(rows)]
    return replace(answers, probabilities=said)


@pytest.mark.parametrize("kind", sorted(INFOS))
def test_a_group_with_worse_answers_is_named_with_both_numbers(kind):
    answers = drawn(kind, 600, 1)
    sexes = np.where(answers.subjects < 200, "F", "M")
    model = judged(kind, spoiled(answers, np.flatnonzero(sexes == "F")), sexes, drawn(kind, 400, 2))
    found = model["under_served"]
    assert [(one["key"], one["group"], one["number"]) for one in found] == [
        ("sex", "F", SECOND[kind]),
        ("sex", "F", "coverage"),
    ]
    rows = {row["group"]: row for row in model["subgroups"]["sex"]}
    second = rows["F"]["metrics"][SECOND[kind]]["value"]
    expected = second - model["metrics"][SECOND[kind]]["value"]  # every label has both answers
    assert found[0]["value"] == pytest.approx(expected, abs=2e-6)
    assert found[0]["high"] < 0
    assert found[1]["high"] < model["conformal"]["target"]
    assert found[1]["value"] == rows["F"]["coverage"]["value"]


@pytest.mark.parametrize("kind", sorted(INFOS))
def test_groups_that_are_served_alike_are_not_named(kind):
    answers = drawn(kind, 600, 1)
    sexes = np.where(answers.subjects % 2, "F", "M")
    assert judged(kind, answers, sexes, drawn(kind, 400, 2))["under_served"] == []


def test_no_group_is_named_where_the_sets_of_all_cover_less_than_promised():
    answers = drawn("multiclass", 600, 1)
    worse = spoiled(answers, np.arange(len(answers.labels)))
    sexes = np.where(answers.subjects % 2, "F", "M")
    model = judged("multiclass", worse, sexes, drawn("multiclass", 400, 2))
    assert model["conformal"]["coverage"]["high"] < model["conformal"]["target"]
    rows = model["subgroups"]["sex"]
    assert any(row["coverage"]["high"] < model["conformal"]["target"] for row in rows)
    assert model["under_served"] == []


def test_a_group_that_is_seldom_ill_is_not_accused_of_its_rarity():
    """Average precision falls with the share of positives; the ranking is as good."""
    rng = np.random.default_rng(0)
    answers = drawn("binary", 2000, 1, each=1)
    rare = answers.subjects < 1000
    labels = (rng.random(2000) < np.where(rare, 0.05, 0.5)).astype(float)
    said = expit(rng.normal(size=2000) + 2 * labels - 1)
    answers = replace(answers, labels=labels[:, None], probabilities=said[:, None])
    model = judged("binary", answers, np.where(rare, "F", "M"))
    rows = model["subgroups"]["sex"]
    assert (
        rows[0]["metrics"]["average_precision"]["high"]
        < (model["metrics"]["average_precision"]["low"])
    )
    assert model["under_served"] == []


def test_groups_too_small_to_trust_their_interval_are_not_named():
    answers = drawn("binary", 600, 1)
    sexes = np.where(answers.subjects < WARN_SUBJECTS - 1, "F", "M")
    bad = spoiled(answers, np.flatnonzero(sexes == "F"))
    model = judged("binary", bad, sexes, drawn("binary", 400, 2))
    assert model["under_served"] == []
    difference = model["subgroups"]["sex"][0]["difference"]
    assert difference["reason"] == f"fewer than {WARN_SUBJECTS} subjects"
    assert difference["value"] is None


def test_a_group_with_few_positives_has_no_difference():
    answers = drawn("binary", 600, 1)
    women = np.flatnonzero(answers.subjects < 200)
    answers.labels[women[16:], 0] = 0
    model = judged("binary", answers, np.where(answers.subjects < 200, "F", "M"))
    difference = model["subgroups"]["sex"][0]["difference"]
    assert difference["reason"] == "fewer than 10 subjects with the rarer answer"


@pytest.mark.parametrize("kind", sorted(INFOS))
def test_a_group_of_everybody_differs_from_everybody_by_exactly_nothing(kind):
    answers = drawn(kind, 100, 1)
    row = judged(kind, answers, ["F"] * 200)["subgroups"]["sex"][0]
    found = [row["difference"][key] for key in ("value", "low", "high")]
    assert found == pytest.approx([0, 0, 0], abs=1e-6)
    assert row["metrics"][SECOND[kind]]["low"] < row["metrics"][SECOND[kind]]["high"]


def test_a_group_is_compared_on_the_labels_that_it_has():
    """Women never have the label that is easiest to tell, and are served alike."""
    answers = drawn("multilabel", 600, 1)
    women = answers.subjects % 2 == 0
    answers.labels[women, 0] = 0
    answers.probabilities[:, 0] = np.where(answers.labels[:, 0], 0.9, 0.1)
    model = judged("multilabel", answers, np.where(women, "F", "M"))
    row = model["subgroups"]["sex"][0]
    labels = [of["auroc"]["value"] for of in model["classes"]]
    assert row["metrics"]["macro_auroc"]["value"] < model["metrics"]["macro_auroc"]["low"]
    expected = row["metrics"]["macro_auroc"]["value"] - np.mean(labels[1:])
    assert row["difference"]["value"] == pytest.approx(expected, abs=2e-6)
    assert model["under_served"] == []


def test_without_tuning_predictions_there_are_no_sets_and_no_calibration():
    model = judged("binary", drawn("binary", 100, 1), ["F"] * 200)
    assert model["calibrated"] is None
    assert model["conformal"] is None
    assert "coverage" not in model["subgroups"]["sex"][0]
