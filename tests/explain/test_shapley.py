"""Shapley values of games whose values are known, or found by going through all orders."""

from itertools import permutations

import numpy as np
import pytest
import torch

from flexcare.batch import Tokens
from flexcare.errors import UserError
from flexcare.explain.shapley import MOST, answers_by_set, only, shapley_values


def by_all_orders(answers):
    count = len(answers).bit_length() - 1
    orders = list(permutations(range(count)))
    out = np.zeros(count)
    for order in orders:
        members = 0
        for member in order:
            out[member] += answers[members | 1 << member] - answers[members]
            members |= 1 << member
    return out / len(orders)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
def test_values_are_the_mean_over_all_orders(count):
    answers = np.random.default_rng(count).normal(size=2**count)
    found = shapley_values(answers)
    np.testing.assert_allclose(found, by_all_orders(answers), atol=1e-13)
    assert found.sum() == pytest.approx(answers[-1] - answers[0], abs=1e-13)


def test_two_that_are_needed_together_share_and_a_third_gets_nothing():
    sets = np.arange(8)
    together = np.where((sets & 0b101) == 0b101, 3.0, 0.5)
    assert shapley_values(together) == pytest.approx([1.25, 0, 1.25])


def test_values_of_the_most_modalities_still_add_up():
    answers = np.random.default_rng(0).normal(size=2**MOST)
    total = shapley_values(answers).sum()
    assert total == pytest.approx(answers[-1] - answers[0], abs=1e-12)


def some(count):
    rows = torch.zeros(1, dtype=torch.int64)
    return {
        f"m{i}": Tokens(torch.full((1, 1, 1), 10.0**i), torch.ones(1, 1, dtype=torch.bool), rows)
        for i in range(count)
    }


def test_every_set_is_asked_once_and_in_order():
    class Sum:
        rows = 3

        def __call__(self, size, inputs):
            out = torch.zeros(size)
            for tokens in inputs.values():
                out[tokens.rows] += tokens.values[tokens.of, 0, 0]
            return out

    expected = [0, 1, 10, 11, 100, 101, 110, 111]
    assert answers_by_set(Sum(), some(3)).tolist() == expected
    assert answers_by_set(Sum(), {}).tolist() == [0]
    assert only(some(3), torch.tensor([0])) == {}


def test_too_many_modalities_are_one_clear_error():
    with pytest.raises(UserError, match="too many modalities") as caught:
        answers_by_set(None, some(MOST + 1))
    assert "at most 12" in str(caught.value)
