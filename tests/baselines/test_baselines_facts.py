"""Static fields, codes and vectors in the trees' numbers, as a plain loop over events has them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexcare.baselines import facts
from flexcare.baselines.summaries import Summaries
from flexcare.store import Store
from several import prepare_ward, ward


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as context:
        yield context


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Path:
    return prepare_ward(ward(40), tmp_path_factory.mktemp("facts") / "w", patch).path


@pytest.fixture
def store(folder: Path) -> Store:
    return Store(folder)


def seen_of(store: Store, sample: dict[str, Any]) -> list[tuple[str, float, float]]:
    """(variable, value, seconds) of the events that a sample may see, in the store's order."""
    until = int(sample["series_hours"] * 3600 + 1e-6)
    out = []
    for i in range(sample["series_first"], sample["series_stop"]):
        event = {name: array[i].item() for name, array in store.events.items()}
        if max(event["seconds"], event["available"]) <= until:
            out.append((store.variables[event["variable"]], event["value"], event["seconds"]))
    return out


def test_numbers_equal_a_plain_loop(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "MOST_CODES", 5)
    monkeypatch.setattr(facts, "SAMPLES_AT_ONCE", 7)
    part = Summaries(store)
    rows = np.random.default_rng(0).permutation(store.samples.num_rows)[:200]
    found = part(rows)
    known = store.manifest["scaling"]["codes"]["codes"]
    chosen = [name.removeprefix("has ") for name in part.names if name.startswith("has ")]
    assert len([name for name in chosen if name != "film"]) == 5
    for sample, numbers in zip(store.samples.take(rows).to_pylist(), found, strict=True):
        of = dict(zip(part.names, numbers, strict=True))
        seen = seen_of(store, sample)
        for name in ("age", "unit", "weight"):
            values = [value for variable, value, _ in seen if variable == name]
            np.testing.assert_equal(of[name], np.float32(values[-1]) if values else np.nan)
        codes = {
            f"{variable} {store.codes[variable][int(value)]}"
            for variable, value, _ in seen
            if variable in known and store.codes[variable][int(value)] in known[variable]
        }
        assert of["codes count"] == len(codes)
        assert all(of[f"has {code}"] == (code in codes) for code in chosen if code != "film")
        rates = [value for variable, value, _ in seen if variable == "heart_rate"]
        if sample["has_vitals"]:
            assert of["heart_rate count"] == len(rates)
        slides = {(v, x) for v, x, _ in seen if v in ("slide", "biopsy")}
        if slides:
            want = np.mean([store.vectors(v)[int(x)] for v, x in slides], axis=0)
            np.testing.assert_allclose([of[f"slides {i}"] for i in range(6)], want, rtol=1e-5)
        else:
            assert np.isnan([of[f"slides {i}"] for i in range(6)]).all()


def test_later_events_have_no_influence(store: Store) -> None:
    part = Summaries(store)
    rows = np.random.default_rng(1).permutation(store.samples.num_rows)[:60]
    arrays = {name: np.array(array) for name, array in store.events.items()}
    for row in rows:
        store.events.update({name: array.copy() for name, array in arrays.items()})
        sample = store.samples.slice(int(row), 1).to_pylist()[0]
        before = part(np.array([row]))
        visible = np.maximum(store.events["seconds"], store.events["available"])
        later = visible > int(sample["series_hours"] * 3600 + 1e-6)
        store.events["value"][later] = 1
        store.events["variable"][later] = np.random.default_rng(row).integers(0, 10, later.sum())
        np.testing.assert_array_equal(part(np.array([row])), before)


def test_the_most_frequent_codes_are_those_of_training_samples(store: Store) -> None:
    part = Summaries(store)
    names = [name for name in part.names if name.startswith("has ") and name != "has film"]
    training = np.concatenate([store.rows(task, "train") for task in store.tasks])
    columns = [part.names.index(name) for name in names]
    counts = part(training)[:, columns].sum(0)
    assert (np.diff(counts) <= 0).all()
    assert counts[0] > counts[-1]
