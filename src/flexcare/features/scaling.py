"""Centre and scale of the training split: numbers of the series, brightness of the films."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexcare.features.variables import VariableSet

IQR_OF_NORMAL = 1.349  # interquartile range of a normal distribution with deviation 1


def robust(values: NDArray[np.float32]) -> tuple[float, float]:
    """Median and interquartile range / 1.349; a zero range counts as 1."""
    low, middle, high = np.quantile(values.astype(np.float64), [0.25, 0.5, 0.75])
    return float(middle), float((high - low) / IQR_OF_NORMAL) or 1.0


def mean_sd(values: NDArray[np.float32]) -> tuple[float, float]:
    """Mean and standard deviation; a zero deviation counts as 1."""
    wide = values.astype(np.float64)
    return float(wide.mean()), float(wide.std()) or 1.0


METHODS = {"robust": robust, "mean_sd": mean_sd}


def fit_series(
    variable: NDArray[np.int16],
    value: NDArray[np.float32],
    variables: VariableSet,
    method: str,
    fixed_scale: dict[str, float],
) -> dict[str, Any]:
    """Centre and scale of each numeric variable from observed values of the training split.

    Args:
        variable, value: (n,) the observed events of training stays, within their stay.
        fixed_scale: deviations that win over the data (preset `authors`, SPEC 9.2).

    Returns:
        {"center": [...], "scale": [...]}, one a variable; categories and variables that the
        training split never observed have the normal value and 1.
    """
    center, scale = [], []
    for number, (name, info) in enumerate(variables.variables.items()):
        seen = value[variable == number]
        if info.categories or not len(seen):
            middle, spread = (0.0 if info.categories else info.normal_value()), 1.0
        else:
            middle, spread = METHODS[method](seen)
        center.append(middle)
        scale.append(fixed_scale.get(name, spread))
    return {"center": center, "scale": scale}


def brightness(film: NDArray[np.uint8]) -> tuple[int, int]:
    """Sum of a film's pixels and of their squares: all that `fit_films` needs of it."""
    wide = film.astype(np.int64)
    return int(wide.sum()), int((wide * wide).sum())


def fit_films(sums: NDArray[np.int64], pixels: int) -> dict[str, float]:
    """Mean and deviation of brightness in [0, 1] over the films of the training split.

    Args:
        sums: (films, 2) the `brightness` of each.
        pixels: of one film.
    """
    pixels *= len(sums)
    if not pixels:
        return {"mean": 0.0, "sd": 1.0}
    total, squares = sums.sum(0).tolist()
    mean = total / pixels
    variance = max(squares / pixels - mean * mean, 0.0)
    return {"mean": mean / 255, "sd": variance**0.5 / 255 or 1.0}
