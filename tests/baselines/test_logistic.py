"""Logistic regression: gaps, far values and columns that say nothing; the strength is chosen."""

import numpy as np
import pytest

from flexcare.baselines import logistic
from flexcare.baselines.fitted import Known
from flexcare.baselines.logistic import Standardised, _loss, _regressed

NAN = np.nan


def known(numbers, labels):
    labels = np.asarray(labels, np.float64)[:, None]
    numbers = np.asarray(numbers, np.float32)
    return Known(numbers, labels, labels >= 0, np.ones(len(labels)))


def some(rows, seed, slope=2.0, columns=5):
    """The first column says something of the answer, the others nothing."""
    random = np.random.default_rng(seed)
    numbers = random.normal(size=(rows, columns))
    return known(numbers, random.random(rows) < 1 / (1 + np.exp(-slope * numbers[:, 0])))


def test_gaps_are_medians_with_a_flag_for_all_columns_that_share_them():
    numbers = np.array([[1, NAN, 7, NAN, 3], [2, 5, NAN, 0, 3], [9, 6, NAN, 1, 3]], np.float32)
    numbers = np.column_stack([numbers, np.full(3, NAN, np.float32)])  # known of nobody
    standardised = Standardised(numbers)
    found = standardised(numbers)
    assert found.shape == (3, 5 + 2)  # columns 1 and 3 have one flag, column 2 another
    known_columns = numbers[:, :5]
    filled = np.where(np.isnan(known_columns), np.nanmedian(known_columns, axis=0), known_columns)
    expected = (filled - filled.mean(0)) / np.where(filled.std(0) > 0, filled.std(0), 1)
    np.testing.assert_allclose(found[:, :5], expected, rtol=1e-5, atol=1e-6)
    assert np.unique(found[:, 5:], axis=1).shape == (3, 2)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-6)
    far = np.full((1, 6), 1e6, np.float32)
    assert np.abs(standardised(far)[0, :5]).max() == logistic.FAR


def test_units_change_nothing():
    train, tuning = some(300, 1), some(100, 2)
    one = _regressed(train, tuning, 2, 0)
    scale, shift = np.array([1, 1e3, 1e-3, 5, 2]), np.array([0, 40, -3, 1e3, 0])
    moved = [known(k.numbers * scale + shift, k.labels[:, 0]) for k in (train, tuning)]
    other = _regressed(*moved, 2, 0)
    np.testing.assert_allclose(one(train.numbers), other(moved[0].numbers), atol=2e-3)


def test_a_gap_alone_can_tell():
    random = np.random.default_rng(3)
    answers = random.random(400) < 0.5
    numbers = random.normal(size=(400, 2))
    numbers[answers, 1] = NAN
    train, tuning = known(numbers[:300], answers[:300]), known(numbers[300:], answers[300:])
    found = _regressed(train, tuning, 2, 0)(tuning.numbers)
    assert ((found > 0.5) == answers[300:]).all()


@pytest.mark.parametrize(("slope", "strong"), [(0.0, False), (3.0, True)])
def test_the_strength_is_that_of_the_lowest_loss_on_the_tuning_split(monkeypatch, slope, strong):
    train, tuning, seen = some(200, 4, slope, 60), some(200, 5, slope, 60), []

    def watched(model, numbers, known):
        seen.append((_loss(model, numbers, known), model.C, model.predict_proba(numbers)[:, 1]))
        return seen[-1][0]

    monkeypatch.setattr(logistic, "_loss", watched)
    found = _regressed(train, tuning, 2, 0)(tuning.numbers)
    _, best, expected = min(seen, key=lambda one: one[0])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (best > 0.001) == strong
    assert [c for _, c, _ in seen] == list(logistic.STRENGTHS[: len(seen)])


def test_weights_count_as_so_many_samples():
    train, tuning = some(60, 6), some(100, 7)
    counts = np.random.default_rng(8).integers(1, 4, 60)
    weighted = Known(train.numbers, train.labels, train.mask, counts.astype(np.float64))
    places = np.repeat(np.arange(60), counts)
    repeated = known(train.numbers[places], train.labels[places, 0])
    strengths = [c * 60 / len(places) for c in logistic.STRENGTHS]  # a sum over fewer samples
    one = _regressed(weighted, tuning, 2, 0)(tuning.numbers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logistic, "STRENGTHS", strengths)
        patch.setattr(logistic, "Standardised", lambda numbers: Standardised(train.numbers))
        other = _regressed(repeated, tuning, 2, 0)(tuning.numbers)
    np.testing.assert_allclose(one, other, atol=2e-3)
