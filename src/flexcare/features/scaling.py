"""What the training split teaches: centre and scale of numbers, vectors and films, known codes."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexcare.errors import UserError
from flexcare.features.variables import SERIES, VariableSet, own_numbers

Arrays = Mapping[str, NDArray[np.float32]]
Meanings = tuple[Mapping[str, list[str]], Arrays, Arrays]  # by variable codes, vectors and waves
Fit = Callable[[VariableSet, NDArray[Any], NDArray[np.float32]], dict[str, Any]]
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


def fit_events(
    events: Mapping[str, NDArray[Any]],
    training: NDArray[np.bool_],
    variables: VariableSet,
    meanings: Meanings,
    method: str,
    fixed_scale: dict[str, float],
    dropped: Counter[str],
) -> dict[str, dict[str, Any]]:
    """By modality of events what `fit_series`, `fit_codes` or `fit_vectors` gives.

    Args:
        events: seconds, variable and value of all events, (n,) each.
        training: (n,) those of stays of the training split.
        meanings: what values of events are numbers of.
        method, fixed_scale: of `fit_series`.
        dropped: the events of codes that the training split never has are added.
    """
    codes, vectors, waves = meanings
    numeric: Fit = lambda own, variable, value: fit_series(  # noqa: E731
        variable, value, own, method, fixed_scale
    )
    fit: dict[str, Fit] = {
        SERIES: numeric,
        "static": numeric,
        "codes": lambda own, variable, value: fit_codes(variable, value, own, codes),
        "embedding": lambda own, variable, value: fit_vectors(variable, value, own, vectors),
        "wave": lambda own, variable, value: fit_waves(variable, value, own, waves),
    }
    out = {}
    for name, own in variables.modalities.items():
        numbers = own_numbers(own, variables.names)
        variable = events["variable"] if numbers is None else numbers[events["variable"]]
        seen = training & (events["seconds"] >= 0) if own.kind == SERIES else training
        seen = seen if numbers is None else seen & (variable >= 0)
        out[name] = fit[own.kind](own, variable[seen], events["value"][seen])
        if own.kind == "codes":
            known = [code_numbers(codes[n], out[name]["codes"][n]) for n in own.names]
            unknown = sum(
                int((found[events["value"][variable == number].astype(np.int64)] < 0).sum())
                for number, found in enumerate(known)
            )
            if unknown:
                dropped[f"{name}: events of codes never seen in the training split"] += unknown
    return out


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


def fit_codes(
    variable: NDArray[Any],
    value: NDArray[np.float32],
    variables: VariableSet,
    codes: Mapping[str, list[str]],
) -> dict[str, Any]:
    """The codes that the training split has: {"codes": by variable, sorted}.

    Args:
        variable, value: (n,) the events of training stays.
        codes: by variable, the code of each number.
    """
    known = {}
    for number, name in enumerate(variables.names):
        seen = np.unique(value[variable == number]).astype(np.int64)
        known[name] = sorted(codes[name][code] for code in seen.tolist())
    return {"codes": known}


def code_numbers(codes: list[str], known: list[str], first: int = 0) -> NDArray[np.int64]:
    """For each of `codes` its number among the known ones, counted from `first`; -1: unknown."""
    place = {code: first + number for number, code in enumerate(known)}
    return np.array([place.get(code, -1) for code in codes], np.int64)


def fit_vectors(
    variable: NDArray[Any],
    value: NDArray[np.float32],
    variables: VariableSet,
    vectors: Mapping[str, NDArray[np.float32]],
) -> dict[str, Any]:
    """Mean and deviation of each dimension of the vectors of the training split.

    Args:
        variable, value: (n,) the events of training stays.
        vectors: by variable, (rows, width).

    Returns:
        {"center": [...], "scale": [...]}, one a dimension; empty if there is no vector at all.

    Raises:
        UserError: vectors of several widths in one modality.
    """
    there = [name for name in variables.names if name in vectors]
    widths = {vectors[name].shape[1] for name in there}
    if len(widths) > 1:
        raise UserError(
            f"vectors of one modality have several widths: {', '.join(there)}",
            found=", ".join(map(str, sorted(widths))),
            expected="one width, or a modality for each variable",
        )
    used = [np.zeros((0, *widths))] if widths else [np.zeros((0, 0))]
    for number, name in enumerate(variables.names):
        rows = np.unique(value[variable == number]).astype(np.int64)
        used += [vectors[name][rows]] if len(rows) else []
    every = np.concatenate(used)
    if not len(every):
        return {"center": [0.0] * every.shape[1], "scale": [1.0] * every.shape[1]}
    spread = every.std(0)
    return {"center": every.mean(0).tolist(), "scale": np.where(spread > 0, spread, 1).tolist()}


# By kind of modality, the width that the store names.
def fit_waves(
    variable: NDArray[Any],
    value: NDArray[np.float32],
    variables: VariableSet,
    waves: Mapping[str, NDArray[np.float32]],
) -> dict[str, Any]:
    """Mean and deviation of each channel of the waves of the training split.

    Args:
        variable, value: (n,) the events of training stays.
        waves: by variable, (rows, channels, samples), NaN where missing.

    Returns:
        {"center": [...], "scale": [...]}, one a channel; empty if there is no wave at all.
    """
    if not any(name in waves for name in variables.names):
        return {"center": [], "scale": []}
    channels = len(next(iter(variables.variables.values())).channels)
    sums = np.zeros((3, channels))
    for number, name in enumerate(variables.names):
        for row in np.unique(value[variable == number]).astype(np.int64):
            wave = waves[name][row].astype(np.float64)
            there = ~np.isnan(wave)
            filled = np.where(there, wave, 0)
            sums += there.sum(1), filled.sum(1), (filled * filled).sum(1)
    count = np.maximum(sums[0], 1)
    mean = sums[1] / count
    deviation = np.sqrt(np.maximum(sums[2] / count - mean * mean, 0))
    return {"center": mean.tolist(), "scale": np.where(deviation > 0, deviation, 1).tolist()}


def _samples(own: VariableSet, scaling: dict[str, Any]) -> int:
    """Of a channel of a modality of waves; 0 if there is no wave."""
    return next(iter(own.variables.values())).samples if scaling["center"] else 0


WIDTH: dict[str, Callable[[VariableSet, dict[str, Any]], int]] = {
    SERIES: lambda own, scaling: len(own.columns()),
    "static": lambda own, scaling: len(own.columns()),
    "codes": lambda own, scaling: sum(map(len, scaling["codes"].values())),
    "embedding": lambda own, scaling: len(scaling["center"]),
    "wave": _samples,
}


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
