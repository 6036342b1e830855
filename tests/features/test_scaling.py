"""Centre and scale come from observed values of the training split (SPEC 5)."""

import numpy as np
import pytest

from flexcare.features.scaling import fit_series, fit_waves, mean_sd, robust
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


def test_channels_of_waves_are_scaled_by_the_training_records_without_their_gaps() -> None:
    table = {"unit": "mV", "modality": "ecg", "kind": "wave", "rate": 1, "samples": 50}
    channels = ["I", "II", "III"]
    own = variable_set({n: table | {"channels": channels} for n in ("rest", "stress")}, "test")
    random = np.random.default_rng(0)
    waves = {name: random.normal(3, 2, (6, 3, 50)).astype(np.float32) for name in own.names}
    waves["rest"][:, 1, ::7] = np.nan
    waves["rest"][:, 2] = waves["stress"][:, 2] = np.nan
    variable, value = np.array([0, 0, 1, 1]), np.array([4, 2, 0, 0], np.float32)
    found = fit_waves(variable, value, own, waves)
    used = np.concatenate([waves["rest"][[2, 4]], waves["stress"][[0]]])
    expected = [np.nanmean(used[:, :2], (0, 2)), np.nanstd(used[:, :2], (0, 2))]
    np.testing.assert_allclose(found["center"], [*expected[0], 0], rtol=1e-6)
    np.testing.assert_allclose(found["scale"], [*expected[1], 1], rtol=1e-6)
    assert fit_waves(variable, value, own, {}) == {"center": [], "scale": []}
