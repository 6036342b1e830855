"""Conformal sets hold the true answer as often as promised, of subjects with many samples too."""

import numpy as np
import pytest
from some_answers import INFOS, drawn

from flexcare.evaluation.bootstrap import subject_copies
from flexcare.evaluation.conformal import TARGET, YES, coverage, describe, fit, threshold
from flexcare.evaluation.metrics import Answers

KINDS = sorted(INFOS)


@pytest.mark.parametrize("subjects", [9, 10, 57, 200])
def test_one_sample_a_subject_gives_the_textbook_quantile(subjects):
    scores = np.random.default_rng(subjects).random(subjects)
    place = int(np.ceil((subjects + 1) * TARGET - 1e-9))
    assert threshold(scores, np.arange(subjects)) == np.sort(scores)[place - 1]


def test_fewer_than_nine_subjects_promise_nothing_however_many_samples():
    scores = np.random.default_rng(0).random(800)
    assert threshold(scores, np.repeat(np.arange(8), 100)) == np.inf
    assert threshold(scores, np.repeat(np.arange(16), 50)) < np.inf


def test_a_new_subject_is_covered_as_often_as_promised_though_samples_of_one_are_alike():
    """Half of the subjects have one sample, and high scores; the others have thirty low ones."""
    rng = np.random.default_rng(0)
    people, kept, pooled = 39, [], []

    def subject():
        many = rng.random() < 0.5
        return rng.normal(0 if many else 2, 1) + 0.3 * rng.normal(size=30 if many else 1)

    for _ in range(2000):
        samples = [subject() for _ in range(people)]
        scores = np.concatenate(samples)
        whose = np.repeat(np.arange(people), [len(own) for own in samples])
        new = rng.choice(subject())
        kept.append(new <= threshold(scores, whose))
        pooled.append(new <= threshold(scores, np.arange(len(scores))))
    assert TARGET - 0.02 < np.mean(kept) < TARGET + 1 / (people + 1) + 0.02
    assert np.mean(pooled) < TARGET - 0.1  # which the weights are for


@pytest.mark.parametrize("kind", KINDS)
def test_answers_of_new_subjects_are_covered_as_often_as_promised(kind):
    every = subject_copies(4000, 2, np.random.default_rng(0))
    judged = drawn(kind, 4000, 99, sharp=4.0)
    found = [
        coverage(kind, judged, fit(kind, drawn(kind, 99, seed, sharp=4.0)), every)[0][0]
        for seed in range(40)
    ]
    assert TARGET - 0.01 < np.mean(found) < TARGET + 0.02


def slowly(kind, answers, thresholds, copies, only):
    """Coverage and size from the definition: sets as sets, subjects one by one."""
    each = []
    for question in range(thresholds.shape[0]):
        if not np.isfinite(thresholds[question]).all():
            continue
        shares, sizes, weights = [], [], []
        for subject, count in enumerate(copies):
            right, size = [], []
            for row in np.flatnonzero(answers.subjects == subject):
                true = int(answers.labels[row, question])
                if not answers.mask[row, question] or (only is not None and true != only):
                    continue
                p = answers.probabilities[row]
                chances = p if kind == "multiclass" else [1 - p[question], p[question]]
                limits = 1 - thresholds[question] - 1e-12
                held = {k for k, chance in enumerate(chances) if chance >= limits[k]}
                right.append(true in held)
                size.append(len(held))
            if right:
                shares.append(np.mean(right))
                sizes.append(np.mean(size))
                weights.append(count)
        if sum(weights):
            each.append([np.average(shares, weights=weights), np.average(sizes, weights=weights)])
    return np.mean(each, axis=0)


@pytest.mark.parametrize("only", [None, YES])
@pytest.mark.parametrize("kind", KINDS)
def test_coverage_and_size_are_those_of_sets_made_one_by_one(kind, only):
    answers = drawn(kind, 14, 5)
    answers = answers.rows(np.arange(len(answers.labels)) % 5 > 0)  # subjects of 1 or 2 samples
    thresholds = fit(kind, drawn(kind, 40, 1), each=kind != "multiclass")
    if kind == "multilabel":
        thresholds[1, 0] = np.inf
    copies = subject_copies(14, 4, np.random.default_rng(0))
    found = np.array(coverage(kind, answers, thresholds, copies, only))
    for column, row in enumerate([np.ones(14), *copies]):
        expected = slowly(kind, answers, thresholds, row, only)
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-9)


def test_a_threshold_for_each_answer_covers_those_who_seldom_have_the_outcome():
    tuning, judged = (drawn("binary", 4000, seed, level=-4.0) for seed in (1, 2))
    copies = subject_copies(4000, 100, np.random.default_rng(0))
    told, _ = describe(INFOS["binary"], tuning, judged, copies)
    assert told["coverage"]["value"] == pytest.approx(TARGET, abs=0.02)
    assert told["outcomes"]["with"]["high"] < 0.5
    for outcome in ("with", "without"):
        assert told["each"][outcome]["value"] == pytest.approx(TARGET, abs=0.04)


def test_labels_and_tasks_with_too_few_subjects_are_named():
    tuning, judged = drawn("multilabel", 30, 1), drawn("multilabel", 60, 2)
    tuning.mask[16:, 2] = False
    copies = np.ones((3, 60), np.int16)
    told, thresholds = describe(INFOS["multilabel"], tuning, judged, copies)
    assert told["left_out"] == ["z"]
    assert np.isfinite(thresholds).all(1).tolist() == [True, True, False]
    told, thresholds = describe(INFOS["multilabel"], tuning.rows(np.arange(16)), judged, copies)
    assert thresholds is None
    assert told["coverage"]["value"] is None
    assert told["set_size"]["reason"] == "8 tuning subjects are too few to promise 90%"
    nobody = tuning.rows(np.zeros(60, bool))
    assert describe(INFOS["multilabel"], nobody, judged, copies)[1] is None


def test_a_wider_set_covers_more_and_nothing_depends_on_the_order_of_rows():
    tuning, judged = drawn("multiclass", 100, 1), drawn("multiclass", 200, 2)
    copies = np.ones((1, 200), np.int16)
    low, high = (np.full((1, 4), limit) for limit in (0.4, 0.9))
    (less, fewer), (more, larger) = (
        coverage("multiclass", judged, limits, copies) for limits in (low, high)
    )
    assert less[0] < more[0]
    assert fewer[0] < larger[0]
    order = np.random.default_rng(0).permutation(200)
    shuffled = Answers(
        tuning.labels[order],
        tuning.mask[order],
        tuning.probabilities[order],
        tuning.subjects[order],
    )
    np.testing.assert_array_equal(fit("multiclass", shuffled), fit("multiclass", tuning))
