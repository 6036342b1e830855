"""The utility of warnings of sepsis, against its definition told hour by hour."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexcare.evaluation.metrics import Answers
from flexcare.evaluation.utility import best_threshold, utility, worth

STAYS = st.lists(
    st.tuples(st.integers(1, 30), st.none() | st.integers(1, 30)), min_size=1, max_size=6
)


def stays(told, probabilities=None) -> tuple[Answers, np.ndarray]:
    """Of each stay its hours, and the hour from which on the label is 1, if any."""
    hours, labels, subjects = [], [], []
    for number, (length, first) in enumerate(told):
        for hour in range(1, length + 1):
            hours.append(float(hour))
            labels.append(float(first is not None and hour >= first))
            subjects.append(number)
    chance = np.zeros(len(hours)) if probabilities is None else np.asarray(probabilities, float)
    there = np.ones((len(hours), 1), bool)
    answers = Answers(np.array(labels)[:, None], there, chance[:, None], np.array(subjects))
    return answers, np.array(hours)


def told_by_hand(length, first, hour, warned):
    """The worth of one hour; sepsis begins 6 h after the first label."""
    if first is None or first > length:
        return -0.05 if warned else 0.0
    after = hour - (first + 6)
    if after > 3:
        return 0.0
    if not warned:
        return 0.0 if after <= -6 else -2 * (after + 6) / 9
    if after <= -6:
        return max((after + 12) / 6, -0.05)
    return (3 - after) / 9


@given(STAYS)
def test_every_hour_is_worth_what_the_definition_says(told):
    answers, hours = stays(told)
    value = worth(answers, hours)
    rows = [(*told[s], h) for s, h in zip(answers.subjects, hours, strict=True)]
    np.testing.assert_allclose(value.warned, [told_by_hand(*row, True) for row in rows])
    np.testing.assert_allclose(value.silent, [told_by_hand(*row, False) for row in rows])


@given(STAYS, st.randoms(use_true_random=False))
def test_nobody_is_better_than_who_knows_the_future(told, random):
    answers, hours = stays(told, [random.random() for length, _ in told for _ in range(length)])
    copies = np.ones((1, len(told)), np.int16)
    value, drawn = utility(answers, hours, 0.5, copies)
    possible = any(first is not None and first <= length for length, first in told)
    assert np.isnan(value) or (possible and value <= 1 + 1e-12)
    np.testing.assert_array_equal(drawn, [value])


def test_silence_is_0_and_knowing_is_1():
    told = [(20, None), (20, 10), (30, 25)]
    answers, hours = stays(told)
    value = worth(answers, hours)
    copies = np.ones((1, 3), np.int16)
    assert utility(answers, hours, np.inf, copies)[0] == 0
    known, _ = stays(told, value.warned > value.silent)
    assert utility(known, hours, 0.5, copies)[0] == pytest.approx(1)
    assert utility(known, hours, 0.0, copies)[0] < 1


@given(STAYS, st.randoms(use_true_random=False))
def test_the_best_threshold_is_the_best_of_all(told, random):
    chances = [random.choice((0.1, 0.3, 0.5)) for length, _ in told for _ in range(length)]
    answers, hours = stays(told, chances)
    copies = np.ones((1, len(told)), np.int16)
    best = utility(answers, hours, best_threshold(answers, hours), copies)[0]
    for threshold in (0.0, 0.1, 0.3, 0.5, np.inf):
        other = utility(answers, hours, threshold, copies)[0]
        assert np.isnan(other) or best >= other - 1e-12


def test_a_subject_drawn_twice_counts_twice():
    told = [(20, 10), (20, None), (20, 15)]
    answers, hours = stays(told, np.linspace(0, 1, 60))
    drawn = utility(answers, hours, 0.4, np.array([[2, 1, 0]], np.int16))[1]
    twice, again = stays(
        [told[0], told[0], told[1]],
        np.concatenate([np.linspace(0, 1, 60)[:20], np.linspace(0, 1, 60)[:40]]),
    )
    assert drawn[0] == pytest.approx(utility(twice, again, 0.4, np.ones((1, 3), np.int16))[0])
