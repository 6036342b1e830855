"""Which modality and kind a variable is of, and what is refused."""

from typing import Any

import numpy as np
import pytest

from flexcare.errors import UserError
from flexcare.features.variables import own_numbers, variable_set

TABLES: dict[str, dict[str, Any]] = {
    "rate": {"unit": "1/min", "normal": 86, "items": [3, "HR"]},
    "age": {"unit": "years", "modality": "person", "kind": "static"},
    "ph": {"unit": "pH", "normal": 7.4},
    "sex": {"unit": "", "modality": "person", "kind": "static", "categories": ["f", "m"]},
    "drug": {"unit": "code", "modality": "drugs", "kind": "codes"},
}

ECG = {"unit": "mV", "modality": "ecg", "kind": "wave", "rate": 5, "samples": 10,
       "channels": ["I", "II"]}  # fmt: skip


def test_modalities_are_numbered_on_their_own() -> None:
    every = variable_set(TABLES, "test")
    modalities = every.modalities
    assert {name: own.names for name, own in modalities.items()} == {
        "series": ("rate", "ph"), "person": ("age", "sex"), "drugs": ("drug",),
    }  # fmt: skip
    assert [own.kind for own in modalities.values()] == ["time_series", "static", "codes"]
    numbers = own_numbers(modalities["person"], every.names)
    np.testing.assert_array_equal(numbers, [-1, 0, -1, 1, -1])
    assert own_numbers(modalities["person"], ("age", "sex")) is None


def test_only_a_series_has_masks_and_items_may_be_texts() -> None:
    modalities = variable_set(TABLES, "test").modalities
    assert modalities["series"].columns() == ["rate", "ph", "rate observed", "ph observed"]
    assert modalities["person"].columns() == ["age", "sex=f", "sex=m"]
    assert modalities["series"].variables["rate"].items == (3, "HR")
    again = variable_set(modalities["person"].to_dict(), "test")
    assert again == modalities["person"]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"rate": {"unit": "1/min"}}, "rate has no normal value"),
        ({"ph": TABLES["ph"] | {"modality": "person"}}, "modality person are of several kinds"),
        ({"drug": TABLES["drug"] | {"modality": "note"}}, "modality of variables is called note"),
        ({"drug": TABLES["drug"] | {"kind": "code"}}, "kind = 'code'"),
        ({"ecg": ECG | {"rate": 0}}, "ecg does not say what its waves are"),
        ({"ecg": ECG | {"channels": []}}, "ecg does not say what its waves are"),
        ({"ecg": ECG, "rhythm": ECG | {"samples": 9}}, "waves of modality ecg differ"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        variable_set(TABLES | changed, "test")
