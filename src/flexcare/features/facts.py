"""Static fields, codes and vectors that are known at the prediction time, for many samples at once.

An event counts from the moment it both happened and could be seen, however long before the stay.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flexcare.features.series import HOUR, Events, whole_seconds
from flexcare.features.variables import VariableSet


class Facts(NamedTuple):
    """Distinct (variable, value) pairs of some samples, sample by sample, the first seen first.

    Attributes:
        sample: (n,) which sample each belongs to; place: (n,) its number within the sample.
        variable, value: (n,) as in `Events`.
        since: (n,) hours from when it could first be seen to the prediction time.
    """

    sample: NDArray[np.int64]
    place: NDArray[np.int64]
    variable: NDArray[np.int64]
    value: NDArray[np.int64]
    since: NDArray[np.float64]


def last_values(events: Events, hours: NDArray[np.float64], fields: int) -> NDArray[np.float32]:
    """(samples, fields) the last visible value of each variable, NaN where there is none.

    Args:
        events: of `len(hours)` samples, in the order of their store.
        hours: (samples,) prediction time of each, from the stay's start.
    """
    out = np.full((len(hours), fields), np.nan, np.float32)
    seen = _visible(events) <= whole_seconds(hours)[events.sample]
    # Of equal places numpy keeps the last.
    out[events.sample[seen], events.variable[seen]] = events.value[seen]
    return out


def field_columns(
    values: NDArray[np.float32],
    variables: VariableSet,
    center: NDArray[np.float32],
    scale: NDArray[np.float32],
) -> NDArray[np.float32]:
    """(n, fields) -> (n, fields, columns): each field's standardised number or one-hot category in
    its own columns, 0 elsewhere and where the value is NaN."""
    columns = variables.value_columns()
    out = np.zeros((*values.shape, len(columns)), np.float32)
    for place, (number, category) in enumerate(columns):
        raw = values[:, number]
        own = (raw - center[number]) / scale[number] if category is None else raw == category
        out[:, number, place] = np.where(np.isnan(raw), 0, own)
    return out


def distinct_facts(events: Events, hours: NDArray[np.float64], most: int) -> Facts:
    """What is visible of each sample, each pair once; of more than `most` those seen last.

    Args:
        events: of `len(hours)` samples; the values are whole numbers.
        hours: (samples,) prediction time of each, from the stay's start.
    """
    visible, until = _visible(events), whole_seconds(hours)[events.sample]
    seen = np.flatnonzero(visible <= until)
    keys = visible, events.value, events.variable, events.sample
    order = seen[np.lexsort(tuple(key[seen] for key in keys))]
    pairs = np.stack([events.sample, events.variable, events.value.astype(np.int64)])[:, order]
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(pairs) != 0).any(0)
    first = order[new]  # the earliest event of each pair
    first = first[np.lexsort((visible[first], events.sample[first]))]
    sample = events.sample[first]
    stop = np.cumsum(np.bincount(sample, minlength=len(hours)))
    first = first[stop[sample] - np.arange(len(first)) <= most]
    sample = events.sample[first]
    size = np.bincount(sample, minlength=len(hours))
    place = np.arange(len(first)) - (np.cumsum(size) - size)[sample]
    since = (until[first] - visible[first]) / HOUR
    variable, value = events.variable[first].astype(np.int64), events.value[first].astype(np.int64)
    return Facts(sample, place, variable, value, since)


def code_values(facts: Facts, samples: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Codes as the model takes them: (samples, L, 2), the code's number and log(1 + hours since it
    was first seen), and which places hold one, (samples, L)."""
    length = int(facts.place.max(initial=-1)) + 1
    values = np.zeros((samples, length, 2), np.float32)
    valid = np.zeros((samples, length), bool)
    values[facts.sample, facts.place, 0] = facts.value
    values[facts.sample, facts.place, 1] = np.log1p(facts.since)
    valid[facts.sample, facts.place] = True
    return values, valid


def _visible(events: Events) -> NDArray[np.int32]:
    return np.maximum(events.seconds, events.available)
