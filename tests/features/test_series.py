"""Hourly bins: the vectorised form equals an obvious loop, and the columns are what SPEC 5 says."""

import csv
import math
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from flexcare.errors import UserError
from flexcare.features.series import Events, bin_events, bins_until, to_columns
from flexcare.features.variables import VariableSet, read_variables, variable_set

VARIABLES = variable_set(
    {
        "heart_rate": {"unit": "1/min", "normal": 86},
        "eye": {"unit": "score", "categories": ["1", "2", "3"], "normal": "3"},
        "ph": {"unit": "pH", "normal": 7.4},
    },
    "test",
)
NORMAL = [86.0, 2.0, 7.4]
Row = tuple[int, int, int, float]  # seconds, available, variable, value


def events_of(samples: list[list[Row]]) -> Events:
    """Rows of each sample, already in the store's order."""
    rows = [(number, *row) for number, sample in enumerate(samples) for row in sample]
    columns = list(zip(*rows, strict=True)) if rows else [[], [], [], [], []]
    kinds = (np.int64, np.int32, np.int32, np.int16, np.float32)
    return Events(*(np.array(c, k) for c, k in zip(columns, kinds, strict=True)))


def naive(rows: list[Row], hours: float) -> tuple[list[list[float]], list[list[bool]]]:
    """The same bins as one would write them by hand for one sample."""
    now = round(hours * 3600)  # whole seconds are drawn
    bins = math.ceil(hours)
    current = list(NORMAL)
    for seconds, available, variable, value in rows:
        if bins and seconds < 0 and available <= now:
            current[variable] = value
    values, observed = [], []
    for number in range(bins):
        start, stop = number * 3600, (number + 1) * 3600
        seen = [False] * len(NORMAL)
        for seconds, available, variable, value in rows:
            inside = start <= seconds < stop or (seconds == now == stop)
            if inside and seconds <= now and available <= now:
                current[variable], seen[variable] = value, True
        values.append(list(current))
        observed.append(seen)
    return values, observed


@st.composite
def one_sample(draw: st.DrawFn) -> tuple[list[Row], float]:
    """Events on a grid of ten minutes, sorted by time, and a prediction time."""
    row = st.tuples(
        st.integers(-12, 40).map(lambda tens: tens * 600),
        st.integers(0, 12).map(lambda tens: tens * 600),
        st.integers(0, 2),
        st.integers(0, 2).map(float),
    )
    rows = sorted(draw(st.lists(row, max_size=12)), key=lambda r: r[0])
    hours = draw(st.integers(0, 42)) / 6
    return [(s, s + later, variable, value) for s, later, variable, value in rows], hours


@settings(max_examples=150, deadline=None)
@given(st.lists(one_sample(), min_size=1, max_size=4))
def test_bins_equal_the_obvious_loop(samples: list[tuple[list[Row], float]]) -> None:
    hours = np.array([h for _, h in samples])
    values, observed, count = bin_events(events_of([rows for rows, _ in samples]), hours, VARIABLES)
    assert values.shape == observed.shape == (len(samples), count.max(), 3)
    for number, (rows, when) in enumerate(samples):
        want_values, want_observed = naive(rows, when)
        assert count[number] == len(want_values)
        shape = (count[number], 3)
        assert_array_equal(
            values[number, : count[number]], np.reshape(want_values, shape).astype("f4")
        )
        assert_array_equal(observed[number, : count[number]], np.reshape(want_observed, shape))


def binned(rows: list[Row], hours: float) -> tuple[list[float], list[bool]]:
    """Heart rate of one sample."""
    values, observed, _ = bin_events(events_of([rows]), np.array([hours]), VARIABLES)
    return values[0, :, 0].tolist(), observed[0, :, 0].tolist()


def test_an_event_at_the_prediction_time_joins_the_last_bin() -> None:
    rows = [(3600, 3600, 0, 1.0), (7200, 7200, 0, 2.0), (7201, 7201, 0, 3.0)]
    assert binned(rows, 2.0) == ([86, 2], [False, True])
    assert binned(rows, 3.0) == ([86, 1, 3], [False, True, True])


def test_the_last_bin_stops_at_the_prediction_time() -> None:
    rows = [(3600, 3600, 0, 1.0), (5400, 5400, 0, 2.0), (5401, 5401, 0, 3.0)]
    assert binned(rows, 1.5) == ([86, 2], [False, True])


def test_a_value_before_admission_seeds_the_first_bin_and_is_not_observed() -> None:
    assert binned([(-7200, -7200, 0, 1.0), (-60, -60, 0, 2.0)], 2.0) == ([2, 2], [False, False])


def test_a_seed_that_is_not_yet_visible_is_not_used() -> None:
    assert binned([(-60, 7201, 0, 2.0)], 2.0) == ([86, 86], [False, False])


def test_values_are_carried_forward_without_limit() -> None:
    values, observed = binned([(0, 0, 0, 5.0)], 200.0)
    assert values == [5.0] * 200
    assert observed == [True] + [False] * 199


def test_within_a_second_before_the_prediction_nothing_later_slips_in() -> None:
    rows = [(10, 10, 0, 1.0), (11, 11, 0, 2.0)]
    assert binned(rows, 10.9 / 3600) == ([1.0], [True])


def test_a_part_of_an_hour_is_a_bin() -> None:
    assert bins_until(np.array([0, 0.01, 1, 1.01, 48])).tolist() == [0, 1, 1, 2, 48]


def test_columns_are_standardised_values_one_hot_categories_and_masks() -> None:
    values = np.array([[[96.0, 1.0, 7.2]]], np.float32)
    observed = np.array([[[True, False, True]]])
    out = to_columns(values, observed, VARIABLES, np.array([86, 0, 7.4]), np.array([20, 1, 0.1]))
    assert_allclose(out[0, 0], [0.5, 0, 1, 0, -2, 1, 0, 1], atol=1e-5)
    assert VARIABLES.columns() == [
        "heart_rate", "eye=1", "eye=2", "eye=3", "ph",
        "heart_rate observed", "eye observed", "ph observed",
    ]  # fmt: skip


def packaged(name: str) -> VariableSet:
    return read_variables(Path(str(files("flexcare.sources") / f"{name}_variables.toml")))


def test_ours_are_13_numbers_17_categories_and_17_masks() -> None:
    ours = packaged("mimic_iv")
    kinds = [category is None for _, category in ours.value_columns()]
    assert (sum(kinds), len(kinds) - sum(kinds), len(ours.names)) == (13, 17, 17)
    assert len(ours.columns()) == 47


def test_the_76_columns_of_the_authors_are_in_their_order(spec: Path) -> None:
    with (spec / "authors_columns.csv").open() as file:
        rows = list(csv.DictReader(file))
    want = [
        f"{row['variable']} observed" if row["kind"] == "observed"
        else row["variable"] + (f"={row['category']}" if row["category"] else "")
        for row in rows
    ]  # fmt: skip
    assert packaged("mimic_iv_authors").columns() == want
    assert len(want) == 76


def test_our_variables_are_those_of_the_specification(spec: Path) -> None:
    ours = packaged("mimic_iv").variables
    with (spec / "variables.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(ours) == [row["variable"] for row in rows]
    for row in rows:
        variable = ours[row["variable"]]
        assert variable.unit == row["unit"]
        if row["mimic_iv_items"] != "derived":
            assert [str(i) for i in variable.items] == row["mimic_iv_items"].split(";")
        if row["kind"] == "numeric":
            assert variable.range == (float(row["low"]), float(row["high"]))
            assert variable.normal_value() == float(row["normal"])
        else:
            span = range(int(row["low"]), int(row["high"]) + 1)
            assert variable.categories == tuple(map(str, span))
            assert variable.normal == row["normal"]


def test_our_texts_are_those_of_the_specification(spec: Path) -> None:
    ours = packaged("mimic_iv").variables
    with (spec / "text_values.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(n, t, c) for n, v in ours.items() for t, c in v.texts.items()} == {
        (row["variable"], row["text"], row["value"]) for row in rows
    }
    untestable = {(n, t) for n, v in ours.items() for t in v.not_testable}
    assert untestable == {(r["variable"], r["text"]) for r in rows if r["testable"] == "no"}


@pytest.mark.parametrize(
    ("table", "fragment"),
    [
        ({}, "has no variables"),
        ({"a": {"unit": "x", "normal": 1, "colour": 2}}, "colour"),
        ({"a": {"unit": "x", "normal": 1, "sum_of": ["b"]}}, "sum of variables that are not there"),
        ({"a": {"unit": "x", "normal": "9", "categories": ["1"]}}, "is no category"),
    ],
)
def test_a_wrong_variables_file_is_refused(table: dict[str, object], fragment: str) -> None:
    with pytest.raises(UserError, match=fragment):
        variable_set(table, "mine.toml")


def test_a_store_gives_back_the_same_variables() -> None:
    for name in ("mimic_iv", "mimic_iv_authors"):
        assert variable_set(packaged(name).to_dict(), "manifest") == packaged(name)
