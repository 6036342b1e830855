"""Metrics: masked labels, one-answer labels, and values that can be checked by hand."""

import numpy as np
import pytest

from flexcare.errors import UserError
from flexcare.evaluation.metrics import METRICS, Undefined, measure, measure_arrays, metrics_of


def binary(labels, scores, mask=None):
    mask = np.ones(len(labels), bool) if mask is None else np.array(mask)
    return [np.array(a, float)[:, None] for a in (labels, mask, scores)]


def value(name, kind, labels, mask, scores):
    return measure_arrays(name, kind, labels, mask, scores)


def test_average_precision_is_the_step_sum_not_the_trapezoid():
    labels, mask, scores = binary([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1])
    assert value("average_precision", "binary", labels, mask, scores) == pytest.approx(
        0.5 * 1 + 0.5 * 2 / 3
    )


def test_ties_are_worth_half_a_win_in_auroc():
    labels, mask, scores = binary([1, 0, 0], [0.5, 0.5, 0.1])
    assert value("auroc", "binary", labels, mask, scores) == pytest.approx(0.75)


@pytest.mark.parametrize("kind", ["binary", "multilabel", "multiclass"])
def test_masked_labels_change_nothing(kind):
    rng = np.random.default_rng(0)
    outputs = {"binary": 1, "multilabel": 4, "multiclass": 4}[kind]
    width = 1 if kind == "multiclass" else outputs
    high = 4 if kind == "multiclass" else 2
    labels = rng.integers(0, high, (60, width)).astype(float)
    mask = rng.random((60, width)) < 0.6
    scores = rng.dirichlet(np.ones(outputs + 1), 60)[:, :outputs]
    other = np.where(mask, labels, 1 - labels.clip(0, 1))
    for name in metrics_of(kind):
        assert value(name, kind, labels, mask, scores) == value(name, kind, other, mask, scores)


@pytest.mark.parametrize("answer", [0, 1])
@pytest.mark.parametrize("kind", ["binary", "multilabel", "multiclass"])
def test_labels_with_one_answer_are_refused_with_a_reason(kind, answer):
    outputs = {"binary": 1, "multilabel": 3, "multiclass": 3}[kind]
    labels = np.full((10, 1 if kind == "multiclass" else outputs), float(answer))
    scores = np.full((10, outputs), 1 / 3)
    for name in metrics_of(kind):
        with pytest.raises(Undefined, match=r"both answers|labels are"):
            value(name, kind, labels, np.ones_like(labels), scores)


def test_no_labels_at_all_are_refused():
    labels, _, scores = binary([1, 0], [0.5, 0.2])
    with pytest.raises(Undefined, match="no sample has a label"):
        value("brier", "binary", labels, np.zeros_like(labels), scores)


def test_a_label_with_one_answer_is_left_out_of_the_macro_mean_not_counted_as_half():
    labels = np.array([[1, 0], [0, 0], [1, 0], [0, 0]], float)
    scores = np.array([[0.9, 0.3], [0.1, 0.2], [0.8, 0.1], [0.2, 0.9]])
    everywhere = np.ones_like(labels)
    assert value("macro_auroc", "multilabel", labels, everywhere, scores) == 1.0
    assert value("macro_average_precision", "multilabel", labels, everywhere, scores) == 1.0


def test_kappa_measures_distance_in_class_numbers_even_where_classes_are_absent():
    labels = np.array([[0.0], [0.0], [9.0], [9.0]])
    near, far = np.eye(10)[[0, 1, 9, 9]], np.eye(10)[[0, 9, 9, 9]]
    mask = np.ones_like(labels)
    kappas = [value("quadratic_kappa", "multiclass", labels, mask, p) for p in (near, far)]
    assert kappas[0] > 0.98
    assert kappas[1] == pytest.approx(0.5)


def test_calibration_error_of_a_forecaster_who_says_what_happens_is_zero():
    labels, mask, scores = binary([1, 0, 0, 0, 1, 1], [0.25] * 4 + [1.0] * 2)
    assert value("calibration_error", "binary", labels, mask, scores) == pytest.approx(0)
    worse = scores * 0.2
    assert value("calibration_error", "binary", labels, mask, worse) == pytest.approx(0.4)


def test_brier_of_classes_sums_over_classes():
    labels = np.array([[0.0], [1.0]])
    scores = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert value("brier", "multiclass", labels, np.ones_like(labels), scores) == pytest.approx(1.0)


def test_smaller_of_sensitivity_and_precision():
    labels, mask, scores = binary([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1])
    assert value("min_se_ppv", "binary", labels, mask, scores) == pytest.approx(2 / 3)


def test_a_metric_of_another_kind_of_task_is_refused():
    labels, mask, scores = binary([1, 0], [0.9, 0.1])
    with pytest.raises(UserError, match="metric for a binary task"):
        value("macro_auroc", "binary", labels, mask, scores)


def test_every_metric_says_what_it_means():
    assert all(metric.label and metric.meaning and metric.functions for metric in METRICS.values())
    assert measure.__doc__
