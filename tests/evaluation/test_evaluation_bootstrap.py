"""The bootstrap equals scikit-learn on rows that are really copied, ties and masks included."""

import numpy as np
import pytest

from flexcare.evaluation import bootstrap, ranking
from flexcare.evaluation.bootstrap import (
    FAMILIES,
    interval,
    resample,
    subject_copies,
)
from flexcare.evaluation.metrics import (
    METRICS,
    Answers,
    Undefined,
    column,
    measure,
    metrics_of,
    one_answer,
)

OUTPUTS = {"binary": 1, "multilabel": 5, "multiclass": 4}


def answers(kind, rows=80, subjects=25, seed=0, digits=1):
    """Coarse probabilities, so that most of them are tied."""
    rng = np.random.default_rng(seed)
    outputs = OUTPUTS[kind]
    width = 1 if kind == "multiclass" else outputs
    labels = rng.integers(0, outputs if kind == "multiclass" else 2, (rows, width)).astype(float)
    mask = rng.random((rows, width)) < (1 if kind == "multiclass" else 0.8)
    mask[:, 0] = True
    scores = rng.random((rows, outputs)).round(digits)
    if kind == "multiclass":
        scores = (scores + 0.1) / (scores + 0.1).sum(1, keepdims=True)
    labels = np.where(mask, labels, 0)
    return Answers(labels, mask, scores, rng.integers(0, subjects, rows))


def copied(given, copies):
    """The rows of `given`, each as often as its subject was drawn."""
    return given.rows(np.repeat(np.arange(len(given.labels)), copies[given.subjects]))


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_copies_of_subjects_equal_copied_rows(kind):
    given = answers(kind)
    copies = subject_copies(25, 12, np.random.default_rng(1))
    drawn = resample(kind, given, copies)
    for name in metrics_of(kind):
        expected = [measure(name, kind, copied(given, row)) for row in copies]
        np.testing.assert_allclose(drawn[name], expected, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("exact", [1, bootstrap.EXACT])
@pytest.mark.parametrize("digits", [2, 6])
def test_many_stretches_of_ties_equal_copied_rows_in_either_precision(monkeypatch, exact, digits):
    monkeypatch.setattr(bootstrap, "EXACT", exact)
    monkeypatch.setattr(bootstrap, "TOGETHER", 3)  # parts of 3 and 1 resamples
    monkeypatch.setattr(ranking, "STRETCH", 64)
    given = answers("binary", rows=1000, subjects=300, digits=digits)
    assert len(ranking.rank(column(given, 0), 300).stretches) > 1
    copies = subject_copies(300, 4, np.random.default_rng(2))
    drawn = resample("binary", given, copies)
    for name in ("average_precision", "auroc", "min_se_ppv"):
        expected = [measure(name, "binary", copied(given, row)) for row in copies]
        np.testing.assert_allclose(drawn[name], expected, rtol=1e-12, err_msg=name)


def test_running_sums_in_steps_equal_those_from_tie_to_tie():
    given = answers("binary", rows=3000, subjects=300, digits=9)
    found = ranking.rank(column(given, 0), 300)
    assert [len(hits.indptr) - 1 for hits, *_ in found.stretches][:2] == 2 * [ranking.STRETCH]
    order = np.argsort(-given.probabilities[:, 0])
    copies = subject_copies(300, 5, np.random.default_rng(2))
    drawn = copies.T.astype(np.float32)
    positive = given.labels[order, 0] == 1
    expected = np.cumsum(drawn[given.subjects[order[positive]]], axis=0, dtype=np.float64)
    before, got = np.zeros(5, np.float32), []
    for hits, *_ in found.stretches:
        running = ranking._running(hits @ drawn, before)
        got.append(running[np.argsort(ranking._steps(0, len(running)))])
        before = running[-1]
    np.testing.assert_array_equal(np.concatenate(got)[: len(expected)], expected)
    assert len(expected) % ranking.LEVEL  # the last group is padded


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rate", [0.04, 0.96])
def test_rare_answers_with_ties_equal_copied_rows_or_are_undefined_in_both(seed, rate):
    rng = np.random.default_rng(seed)
    labels = (rng.random((60, 1)) < rate).astype(float)
    labels[:2, 0] = 0, 1
    scores = rng.integers(0, 3, (60, 1)) / 2
    given = Answers(labels, np.ones((60, 1), bool), scores, rng.integers(0, 10, 60))
    copies = subject_copies(10, 20, rng)
    drawn = resample("binary", given, copies)
    for name in ("average_precision", "auroc", "min_se_ppv"):
        for row, value in zip(copies, drawn[name], strict=True):
            try:
                assert value == pytest.approx(measure(name, "binary", copied(given, row)))
            except Undefined:
                assert np.isnan(value)


def test_a_resample_without_the_likeliest_subjects_who_alone_are_positive_has_no_value():
    scores, labels = np.array([[0.9], [0.8], [0.1]]), np.array([[1.0], [1.0], [0.0]])
    given = Answers(labels, np.ones((3, 1), bool), scores, np.arange(3))
    drawn = resample("binary", given, np.array([[0, 0, 3], [1, 1, 1]], np.int16))
    for name in ("average_precision", "auroc", "min_se_ppv"):
        np.testing.assert_array_equal(drawn[name], [np.nan, 1])


def test_classes_that_a_resample_lacks_are_no_part_of_its_macro_f1():
    given = answers("multiclass", rows=12, subjects=6)
    copies = subject_copies(6, 20, np.random.default_rng(1))
    expected = [METRICS["macro_f1"].functions["multiclass"](copied(given, row)) for row in copies]
    drawn = resample("multiclass", given, copies)["macro_f1"]
    np.testing.assert_allclose(drawn, expected, rtol=1e-12)
    assert any(len(np.unique(copied(given, row).labels)) < 4 for row in copies)


def test_labels_by_themselves_equal_copied_rows():
    given = answers("multilabel")
    copies = subject_copies(25, 6, np.random.default_rng(3))
    drawn = resample("multilabel", given, copies)
    for k in range(OUTPUTS["multilabel"]):
        pairs = column(given, k)
        single = Answers(
            pairs.outcome[:, None],
            np.ones((len(pairs.outcome), 1), bool),
            pairs.probability[:, None],
            pairs.subjects,
        )
        for name in ("average_precision", "auroc"):
            expected = [measure(name, "binary", copied(single, row)) for row in copies]
            np.testing.assert_allclose(drawn[name][:, k], expected, rtol=1e-12)


def test_every_metric_has_an_interval():
    for kind in FAMILIES:
        drawn = resample(kind, answers(kind), subject_copies(25, 2, np.random.default_rng(0)))
        assert set(metrics_of(kind)) <= set(drawn)


def test_every_draw_holds_as_many_subjects_as_there_are():
    copies = subject_copies(40, 30, np.random.default_rng(0))
    assert (copies.sum(1) == 40).all()
    assert (copies == subject_copies(40, 30, np.random.default_rng(0))).all()


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    truth, caught = 0.7602, 0  # of two unit normals one deviation apart
    for _ in range(60):
        labels = (rng.random((300, 1)) < 0.4).astype(float)
        scores = 1 / (1 + np.exp(-(labels + rng.normal(size=(300, 1)))))
        given = Answers(labels, np.ones_like(labels, bool), scores, np.arange(300))
        drawn = resample("binary", given, subject_copies(300, 200, rng))
        span = interval(drawn["auroc"])
        caught += span["low"] <= truth <= span["high"]
    assert 51 <= caught <= 60


def test_many_samples_of_one_subject_widen_the_interval():
    rng = np.random.default_rng(0)
    labels = np.repeat((rng.random((100, 1)) < 0.4).astype(float), 20, axis=0)
    scores = np.repeat(rng.random((100, 1)), 20, axis=0)
    widths = []
    for subjects in (np.arange(2000), np.repeat(np.arange(100), 20)):
        given = Answers(labels, np.ones_like(labels, bool), scores, subjects)
        copies = subject_copies(int(subjects.max()) + 1, 200, rng)
        span = interval(resample("binary", given, copies)["auroc"])
        widths.append(span["high"] - span["low"])
    assert widths[1] > 3 * widths[0]


def test_no_interval_where_most_resamples_have_no_value():
    assert interval(np.array([0.5, np.nan, np.nan]))["low"] is None
    assert one_answer(np.zeros(3)) == "all 3 labels are 0"
