"""Hourly bins of a stay's events up to the prediction time (SPEC 5), for many samples at once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flexcare.features.variables import VariableSet

HOUR = 3600


@dataclass(frozen=True)
class Events:
    """Events of some samples, one after the other, each sample's in the order of its store.

    Attributes:
        sample: (n,) which sample each belongs to, not decreasing.
        seconds: (n,) from ICU admission; negative: before it.
        available: (n,) seconds from ICU admission when the hospital could see it.
        variable: (n,) number of the variable.
        value: (n,) in the variable's unit, or the category's number.
    Within a sample they are sorted by time, and equal times by what wins last.
    """

    sample: NDArray[np.int64]
    seconds: NDArray[np.int32]
    available: NDArray[np.int32]
    variable: NDArray[np.int16]
    value: NDArray[np.float32]


def whole_seconds(hours: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole seconds that have passed, never rounded up: what follows within a second is later."""
    return np.floor(np.maximum(hours, 0) * HOUR + 1e-6).astype(np.int64)


def bins_until(hours: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number of one-hour bins up to each prediction time; a part of an hour is a bin."""
    return -(-whole_seconds(hours) // HOUR)


def bin_events(
    events: Events, hours: NDArray[np.float64], variables: VariableSet
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int64]]:
    """The last visible value of every bin, carried forward.

    Args:
        events: of `len(hours)` samples; later or not yet available ones are left out here.
        hours: (samples,) prediction time of each, from ICU admission.

    Returns:
        values (samples, L, variables), observed (samples, L, variables) and the number of bins
        (samples,); L is the largest number of bins, later bins of a shorter sample are padding.
    """
    count = bins_until(hours)
    length = int(count.max(initial=0))
    width = len(variables.names)
    last = whole_seconds(hours)[events.sample]
    seen = (events.seconds <= last) & (events.available <= last) & (count[events.sample] > 0)
    sample, variable, value = events.sample[seen], events.variable[seen], events.value[seen]
    seconds = events.seconds[seen].astype(np.int64)

    # Bin 0 of this grid is "before admission": it seeds the first hour and is no observation.
    # An event exactly at the prediction time joins the last bin.
    cell = np.minimum(seconds // HOUR + 1, count[sample])
    cell = np.where(seconds < 0, 0, cell)
    grid = np.full((len(hours), length + 1, width), np.nan, np.float32)
    grid[sample, cell, variable] = value  # of equal indices numpy keeps the last
    observed = ~np.isnan(grid[:, 1:])

    normal = np.array([v.normal_value() for v in variables.variables.values()], np.float32)
    grid[:, 0] = np.where(np.isnan(grid[:, 0]), normal, grid[:, 0])
    known = np.where(np.isnan(grid), 0, np.arange(length + 1)[None, :, None])
    filled = np.take_along_axis(grid, np.maximum.accumulate(known, axis=1), axis=1)
    return filled[:, 1:], observed, count


def to_columns(
    values: NDArray[np.float32],
    observed: NDArray[np.bool_],
    variables: VariableSet,
    center: NDArray[np.float32],
    scale: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Columns the model takes: standardised numbers and one-hot categories, then the masks.

    Args:
        values, observed: (..., variables) from `bin_events`.
        center, scale: (variables,) of the training split; categories are not scaled.

    Returns:
        (..., len(variables.columns())) float32.
    """
    columns = variables.value_columns()
    out = np.empty((*values.shape[:-1], len(columns) + values.shape[-1]), np.float32)
    for place, (number, category) in enumerate(columns):
        raw = values[..., number]
        if category is None:
            out[..., place] = (raw - center[number]) / scale[number]
        else:
            out[..., place] = raw == category
    out[..., len(columns) :] = observed
    return out
