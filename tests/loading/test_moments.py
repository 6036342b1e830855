"""Samples that know the same are found, and stand in one row of a table."""

from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flexcare.loading.moments import evidence_columns, moments_of, together
from flexcare.store import Store
from prepared import everything, prepare_there


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("moments")
    return prepare_there(everything(5).write(folder / "h"), folder / "s")


def test_moments_are_equal_where_all_that_is_known_is_equal(store: Store) -> None:
    found = moments_of(store.samples.select(evidence_columns(store.samples)))
    plain = [str(row) for row in store.samples.select(evidence_columns(store.samples)).to_pylist()]
    numbers: dict[str, int] = {}
    expected = [numbers.setdefault(key, len(numbers)) for key in plain]
    pairs = set(zip(expected, found.tolist(), strict=True))
    assert len(pairs) == len(numbers) == len(set(found.tolist()))
    task = np.array(store.samples["task"].to_pylist())
    hourly = [set(found[task == name]) for name in ("decompensation", "length_of_stay")]
    assert hourly[0] <= hourly[1]
    assert set(found[task == "in_hospital_mortality"]) <= hourly[0]


DIFFERENT: dict[str, list[Any]] = {
    "subject_id": [1, 2],
    "stay_id": [1, None],
    "prediction_time": [datetime(2150, 1, 1), datetime(2150, 1, 2)],
    "film_row": [-1, 0],
    "series_hours": [3.0, 3.5],
    "has_series": [True, False],
    "text_rows": [[1, 2], [2, 1]],
}


@pytest.mark.parametrize("column", DIFFERENT)
@pytest.mark.parametrize("pieces", [1, 2])
def test_moments_differ_where_one_thing_known_differs(
    store: Store, column: str, pieces: int
) -> None:
    row = store.samples.slice(0, 1).to_pylist()[0]
    rows = [row | {column: DIFFERENT[column][place]} for place in (0, 0, 1, 0)]
    table = pa.Table.from_pylist(rows, schema=store.samples.schema)
    if pieces == 2:  # as read from several row groups, and cut
        table = pa.concat_tables([table.slice(0, 2), table.slice(2)])
    one, two, other, again = moments_of(table)
    assert one == two == again != other
    assert len(set(moments_of(table.slice(1)))) == 2


def test_lists_of_texts_differ_by_length(store: Store) -> None:
    row = store.samples.slice(0, 1).to_pylist()[0]
    rows = [row | {"text_rows": texts} for texts in ([], [0], [0, 0], [])]
    table = pa.Table.from_pylist(rows, schema=store.samples.schema)
    none, one, two, again = moments_of(table)
    assert len({none, one, two}) == 3
    assert none == again


def test_a_row_of_the_table_is_a_moment_and_a_repeated_question_another_row() -> None:
    table = together([np.array([5, 3, 5]), np.array([3, 9])])
    assert sorted(map(tuple, table.tolist())) == [(-1, 1), (0, -1), (1, 0), (2, -1)]
    assert together([np.zeros(0, np.int64)]).shape == (0, 1)
