"""An invented hospital as a store, and the same store with other samples or events."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flexcare.preparation import prepare
from flexcare.sources.synthetic import simulate
from flexcare.store import Store


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A prepared hospital of 120 patients with series, films and notes."""
    place = tmp_path_factory.mktemp("baselines")
    simulate(place / "hospital", 120, seed=5)
    prepare("synthetic", place / "hospital", place / "store", say=lambda line: None)
    return place / "store"


@pytest.fixture
def store(folder):
    """A store whose values may be replaced for one test. Of its events three in ten become
    available late and two in ten at the next whole hour, when hourly questions are asked."""
    opened = Store(folder)
    random = np.random.default_rng(0)
    events = {name: np.array(values) for name, values in opened.events.items()}
    seconds = events["seconds"]
    late, draw = random.integers(0, 6 * 3600, len(seconds)), random.random(len(seconds))
    late = np.select([draw < 0.3, draw < 0.5], [late, -seconds % 3600])
    events["available"] = (seconds + late).astype(np.int32)
    opened.__dict__["events"] = events
    return opened


@pytest.fixture
def relabel(store) -> Callable[..., Store]:
    """Changes columns of the samples: each function is given a row and returns the new value."""

    def change(**columns: Callable[[dict[str, Any]], Any]) -> Store:
        rows = store.samples.to_pylist()
        for name, value_of in columns.items():
            for row, value in zip(rows, [value_of(row) for row in rows], strict=True):
                row[name] = value
        store.__dict__["samples"] = pa.Table.from_pylist(rows, schema=store.samples.schema)
        return store

    return change
