"""Centre and scale come from observed values of the training split (SPEC 5)."""

import numpy as np
import pytest

from flexcare.features.scaling import fit_series, mean_sd, robust
from flexcare.features.variables import variable_set

VARIABLES = variable_set(
    {
        "rate": {"unit": "1/min", "normal": 86},
        "eye": {"unit": "score", "categories": ["1", "2"], "normal": "2"},
        "ph": {"unit": "pH", "normal": 7.4},
    },
    "test",
)


def test_robust_is_median_and_quartiles() -> None:
    values = np.random.default_rng(0).normal(80, 12, 100_001).astype(np.float32)
    values[:500] = 1e6
    middle, spread = robust(values)
    assert middle == pytest.approx(80, abs=0.3)
    assert spread == pytest.approx(12, rel=0.02)


def test_a_constant_variable_has_scale_1() -> None:
    assert robust(np.full(9, 5, np.float32)) == (5, 1)
    assert mean_sd(np.full(9, 5, np.float32)) == (5, 1)


def test_each_numeric_variable_has_its_own_scale() -> None:
    variable = np.array([0, 0, 0, 1, 1], np.int16)
    value = np.array([1, 2, 3, 0, 1], np.float32)
    fitted = fit_series(variable, value, VARIABLES, "robust", {})
    assert fitted["center"] == [2, 0, 7.4]  # the category is not scaled, the third never seen
    assert fitted["scale"] == pytest.approx([1 / 1.349, 1, 1])


def test_a_fixed_scale_wins() -> None:
    fitted = fit_series(np.array([0], np.int16), np.array([3], np.float32), VARIABLES, "mean_sd",
                        {"rate": 1767.0})  # fmt: skip
    assert (fitted["center"][0], fitted["scale"][0]) == (3, 1767)
