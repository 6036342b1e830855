"""Calibration is learned from the tuning split alone, by a rule, and leaves the order as it was."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.isotonic import IsotonicRegression
from some_answers import INFOS, as_table, drawn, relabelled

from flexcare.evaluation.bootstrap import subject_copies
from flexcare.evaluation.calibration import FEWEST, ISOTONIC, Map, calibrated, fit
from flexcare.evaluation.evaluate import evaluate_tables
from flexcare.evaluation.metrics import Answers, measure, metrics_of

KINDS = sorted(INFOS)
FEW = ISOTONIC - 1  # subjects: too few for isotonic maps, whatever their labels


def log_loss(kind, answers, temperature):
    """From the definition, entry by entry."""
    p = answers.probabilities
    if kind == "multiclass":
        scaled = softmax(np.log(p) / temperature, axis=1)
        return -np.mean([np.log(q[int(c)]) for q, (c,) in zip(scaled, answers.labels, strict=True)])
    scaled = expit(np.log(p / (1 - p)) / temperature)
    right = np.where(answers.labels == 1, scaled, 1 - scaled)
    return -np.log(right[answers.mask]).mean()


def with_positives(subjects, each=1, of=400) -> Answers:
    """A yes-or-no task in which so many of the subjects have the outcome."""
    labels = np.repeat(np.arange(of) < subjects, each).astype(float)[:, None]
    said = np.clip(0.3 * labels + np.linspace(0.1, 0.6, len(labels))[:, None], 0, 1)
    return Answers(labels, np.ones_like(labels, bool), said, np.repeat(np.arange(of), each))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sharp", [0.5, 1.0, 3.0])
def test_temperature_has_the_lowest_log_loss_and_undoes_exaggeration(kind, sharp):
    tuning = drawn(kind, FEW, 1, sharp, each=6)
    found = fit(kind, tuning).temperature
    nearby = [log_loss(kind, tuning, found * factor) for factor in (0.8, 0.97, 1, 1.03, 1.25)]
    assert np.argmin(nearby) == 2
    assert found == pytest.approx(sharp, rel=0.2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("subjects", [FEW, 4 * ISOTONIC])
def test_exaggerated_answers_of_others_become_better_calibrated(kind, subjects):
    judged = drawn(kind, 1500, 2, sharp=3.0)
    copies = subject_copies(1500, 50, np.random.default_rng(0))
    found = calibrated(INFOS[kind], drawn(kind, subjects, 1, sharp=3.0), judged, copies)
    for name, value in found["metrics"].items():
        assert value["high"] < measure(name, kind, judged), name
    brier = found["metrics"]["brier"]
    assert brier["low"] <= brier["value"] <= brier["high"]
    assert sum(group["samples"] for group in found["calibration"]) == judged.mask.sum()


@pytest.mark.parametrize("kind", KINDS)
def test_a_temperature_changes_no_ranking_metric(kind):
    judged = drawn(kind, 300, 2)
    said = judged.probabilities.copy()
    if kind != "multiclass":
        said = said.round(2)  # ties, and single precision's neighbours of 0 and 1
        zero, one = np.float32([0, 1])
        edges = [zero, np.nextafter(zero, one), one, one, np.nextafter(one, zero)]
        said[:5] = np.array(edges, float)[:, None]
    judged = replace(judged, probabilities=said)
    scaled = replace(judged, probabilities=Map(2.5, {}).apply(kind, said))
    moved = {"brier", "calibration_error"}
    for name in metrics_of(kind):
        same = measure(name, kind, scaled) == measure(name, kind, judged)
        assert same == (name not in moved), name
    if kind != "multiclass":
        first, second = judged.probabilities.ravel(), scaled.probabilities.ravel()
        order = np.argsort(first, kind="stable")
        np.testing.assert_array_equal(np.diff(first[order]) > 0, np.diff(second[order]) > 0)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_judged_split_enters_the_fit(kind):
    tuning, judged = drawn(kind, 500, 1, 2.0), drawn(kind, 300, 2, 2.0)

    def told(tuning, judged):
        tables = {"m": as_table(kind, judged)}, {"m": as_table(kind, tuning, split="tuning")}
        info = INFOS[kind]
        result = evaluate_tables(tables[0], {info.name: info}, 20, tuning=tables[1])
        model = result["tasks"][info.name]["models"]["m"]
        found = model["calibrated"]
        # What the map makes of the judged probabilities, and what the sets hold of them.
        said = [(group["samples"], group["predicted"]) for group in found["calibration"]]
        learned = (found["temperature"], found["isotonic"], said, model["conformal"]["set_size"])
        return learned, found["metrics"]

    learned, metrics = told(tuning, judged)
    again, others = told(tuning, relabelled(judged, 3))
    assert again == learned
    assert metrics["brier"]["value"] != others["brier"]["value"]
    anew, _ = told(relabelled(tuning, 3), judged)
    assert anew[0] != learned[0] or anew[2] != learned[2]
    assert anew[3] != learned[3]


def test_the_rule_counts_subjects_with_the_rarer_outcome():
    assert fit("binary", with_positives(FEWEST - 1)).reason
    assert fit("binary", with_positives(FEWEST - 1, each=50)).reason
    few = fit("binary", with_positives(FEWEST))
    assert (few.reason, few.isotonic) == ("", {})
    assert few.temperature is not None
    assert not fit("binary", with_positives(ISOTONIC - 1, each=5)).isotonic
    many = fit("binary", with_positives(ISOTONIC))
    assert list(many.isotonic) == [0]
    assert many.temperature is None
    assert not fit("binary", with_positives(201)).isotonic  # 199 have it not


def test_classes_never_have_an_isotonic_map_and_labels_each_their_own():
    assert fit("multiclass", drawn("multiclass", 1000, 1)).isotonic == {}
    labels = drawn("multilabel", 700, 1)
    rare = np.flatnonzero(labels.labels[:, 2])[ISOTONIC // 2 :]
    labels.labels[rare, 2] = 0
    found = fit("multilabel", labels)
    assert list(found.isotonic) == [0, 1]
    assert found.temperature is not None
    told = calibrated(INFOS["multilabel"], labels, labels, np.ones((3, 700), np.int16))
    assert told["isotonic"] == ["x", "y"]


def test_isotonic_map_is_scikit_learns():
    tuning, judged = drawn("binary", 600, 1, 2.0), drawn("binary", 100, 2, 2.0)
    model = IsotonicRegression(out_of_bounds="clip")
    model.fit(tuning.probabilities[:, 0], tuning.labels[:, 0])
    expected = model.predict(judged.probabilities[:, 0])
    found = fit("binary", tuning).apply("binary", judged.probabilities)[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_without_tuning_samples_there_is_no_map_and_a_reason(kind):
    nobody = drawn(kind, 5, 1).rows(np.zeros(10, bool))
    found = calibrated(INFOS[kind], nobody, drawn(kind, 50, 2), np.ones((2, 50), np.int16))
    assert found["reason"] == "fewer than 10 tuning subjects have the rarer outcome"
    assert found["metrics"] == {}
