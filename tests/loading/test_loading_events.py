"""Several series, static fields, codes and vectors, as an obvious reading of raw rows has them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flexcare.batch import Batch
from flexcare.config import ModelConfig
from flexcare.features.facts import distinct_facts
from flexcare.features.series import Events
from flexcare.loading.loader import Loader
from flexcare.store import Store
from several import Raw, Ward, prepare_ward, ward, without

ITEMS = {
    "vitals": ("hr",), "labs": ("na", "7"), "static": ("age", "unit", "weight"),
    "codes": ("dx", "rx"), "slides": ("slide", "biopsy"),
}  # fmt: skip
UNITS = ("medical", "surgical", "mixed")


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as context:
        yield context


@pytest.fixture(scope="module")
def many() -> Ward:
    return ward(40)


@pytest.fixture(scope="module")
def store(many: Ward, tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Store:
    return prepare_ward(many, tmp_path_factory.mktemp("events") / "w", patch)


def visible(many: Ward, sample: dict[str, Any], name: str) -> list[Raw]:
    """The rows of a modality that a sample may know, by time."""
    own = [r for r in many.raw if r[0] == sample["subject_id"] and r[1] in ITEMS[name]]
    series = name in ("vitals", "labs")
    own = [r for r in own if r[3] <= 72 and (r[3] >= -24 or not series) and r[2] != "none"]
    return sorted((r for r in own if r[4] <= sample["hours"]), key=lambda r: (r[3], r[4]))


def batch_of(store: Store, rows: Any, **model: Any) -> Batch:
    loader = Loader(store, store.manifest["scaling"], None, ModelConfig(**model))
    return loader.batch(np.asarray(rows)[:, None], ("in_hospital_mortality",))


def inputs_of(batch: Batch, row: int, name: str) -> torch.Tensor | None:
    """The tokens of a row that are valid, or None."""
    tokens = batch.inputs.get(name)
    if tokens is None or row not in tokens.rows.tolist():
        return None
    place = tokens.rows.tolist().index(row)
    return tokens.values[tokens.of[place]][tokens.known()[place]]


def test_a_sample_has_a_modality_once_something_of_it_is_visible(many: Ward, store: Store) -> None:
    for sample in store.samples.to_pylist():
        for name in ITEMS:
            seen = visible(many, sample, name)
            seen = [r for r in seen if r[3] >= 0] if name in ("vitals", "labs") else seen
            assert sample[f"has_{name}"] == bool(seen), (sample["sample_id"], name)


def slow_static(rows: list[Raw], scaling: Any) -> np.ndarray[Any, Any]:
    last = {item: value for _, item, value, *_ in rows}
    out = []
    for number, item in enumerate(("age", "unit", "weight")):
        token = np.zeros(5)
        if item in last and item == "unit":
            token[1 + UNITS.index(str(last[item]).lower())] = 1
        elif item in last:
            place = 0 if item == "age" else 4
            token[place] = (last[item] - scaling["center"][number]) / scaling["scale"][number]
        if item in last:
            out.append(token)
    return np.array(out)


def slow_codes(rows: list[Raw], sample: Any, scaling: Any) -> list[tuple[int, float]]:
    every = [("dx", c) for c in scaling["codes"]["diagnosis"]]
    every += [("rx", c) for c in scaling["codes"]["drug"]]
    first: dict[int, float] = {}
    for _, item, text, _, seen in rows:
        if (item, text) in every:
            number = every.index((item, text))
            first[number] = min(first.get(number, np.inf), seen)
    return [(n, np.log1p(sample["hours"] - h)) for n, h in sorted(first.items())]


def test_tokens_equal_an_obvious_reading_of_the_raw_rows(many: Ward, store: Store) -> None:
    scaling = store.manifest["scaling"]
    chosen = np.random.default_rng(0).permutation(store.samples.num_rows)[:300]
    batch = batch_of(store, chosen)
    vectors = {"slide": store.vectors("slide"), "biopsy": store.vectors("biopsy")}
    for row, sample in enumerate(store.samples.take(chosen).to_pylist()):
        want = slow_static(visible(many, sample, "static"), scaling["static"])
        found = inputs_of(batch, row, "static")
        np.testing.assert_allclose([] if found is None else found, want, atol=1e-5)
        codes = slow_codes(visible(many, sample, "codes"), sample, scaling["codes"])
        found = inputs_of(batch, row, "codes")
        given = [] if found is None else sorted(found.tolist())
        np.testing.assert_allclose(given, codes if codes else [], atol=1e-5)
        rows = {r[1:3] for r in visible(many, sample, "slides")}
        slides = [(vectors[item][number] - scaling["slides"]["center"]) / scaling["slides"]["scale"]
                  for item, number in rows]  # fmt: skip
        found = inputs_of(batch, row, "slides")
        given = [] if found is None else sorted(found.tolist())
        np.testing.assert_allclose(given, sorted(s.tolist() for s in slides), atol=1e-5)


def test_each_series_has_its_own_variables_alone(many: Ward, store: Store) -> None:
    scaling = store.manifest["scaling"]
    chosen = store.rows("in_hospital_mortality", "train")
    batch = batch_of(store, chosen)
    for row, sample in enumerate(store.samples.take(chosen).to_pylist()):
        for name, items in (("vitals", ("hr",)), ("labs", ("na", "7"))):
            found = inputs_of(batch, row, name)
            assert (found is not None) == sample[f"has_{name}"]
            for number, item in enumerate(items if found is not None else ()):
                values = [r[2] for r in visible(many, sample, name) if r[1] == item]
                center, scale = (scaling[name][part][number] for part in ("center", "scale"))
                if values:
                    want = (values[-1] - center) / scale
                    assert float(found[-1, number]) == pytest.approx(want, abs=1e-4)


def test_one_modality_alone_is_loaded_as_with_the_others(store: Store) -> None:
    chosen = store.rows("decompensation", "train")[::7]
    together = batch_of(store, chosen)
    for name in ITEMS:
        loader = Loader(store, store.manifest["scaling"], [name])
        alone = loader.batch(chosen[:, None], ("decompensation",))
        assert torch.equal(alone.inputs[name].values, together.inputs[name].values)
        assert list(alone.inputs) == [name]


def later_damaged(many: Ward, moment: float, seed: int) -> Ward:
    """Rows that became visible after the moment are altered, removed, doubled, and some added."""
    random = np.random.default_rng(seed)
    out = []
    for row in many.raw:
        if row[4] <= moment or random.random() < 0.3:
            out.append(row)
        if row[4] > moment and random.random() < 0.5:
            others = [r for r in many.raw if r[1] == row[1]]
            out.append((row[0], row[1], others[random.integers(len(others))][2], *row[3:]))
    for _ in range(60):
        row = many.raw[random.integers(len(many.raw))]
        hours = float(random.uniform(moment + 0.1, 72))
        out.append((int(random.integers(1, many.patients)), *row[1:3], hours, hours))
    return replace(many, raw=out)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_after_the_prediction_time_is_used(
    many: Ward, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    moment = 30.0
    other = prepare_ward(later_damaged(many, moment, seed), tmp_path / "w", monkeypatch)
    ids = [s.samples["sample_id"].to_pylist() for s in (store, other)]
    hours = store.samples["hours"].to_pylist()
    both = [i for i, name in enumerate(ids[0]) if hours[i] <= moment and name in ids[1]]
    assert len(both) > 300
    rows = [np.array(both), np.array([ids[1].index(ids[0][i]) for i in both])]
    stores, scaling = (store, other), store.manifest["scaling"]
    batches = [
        Loader(one, scaling).batch(own[:, None], ("decompensation",))
        for one, own in zip(stores, rows, strict=True)
    ]
    for name in ITEMS:
        has = [s.samples[f"has_{name}"].take(r) for s, r in zip(stores, rows, strict=True)]
        assert has[0].to_pylist() == has[1].to_pylist()
        for row in range(len(both)):
            before, after = (inputs_of(batch, row, name) for batch in batches)
            assert (before is None) == (after is None)
            assert before is None or torch.equal(before, after), (name, ids[0][both[row]])


def test_facts_beyond_the_cap_are_the_first_seen(store: Store) -> None:
    chosen = store.rows("in_hospital_mortality", "train")
    whole, short = batch_of(store, chosen), batch_of(store, chosen, max_facts=2)
    some = 0
    for row in range(len(chosen)):
        for name in ("codes", "slides"):
            every, kept = (inputs_of(batch, row, name) for batch in (whole, short))
            if every is not None:
                assert torch.equal(kept, every[-2:])
                some += len(every) > 2
    assert some > 5


def test_hours_that_know_the_same_fields_and_vectors_share_a_sequence(store: Store) -> None:
    rows = store.rows("decompensation", "train")
    batch = batch_of(store, rows)
    for name in ("static", "slides"):
        tokens = batch.inputs[name]
        assert len(tokens.values) < len(tokens.rows) / 4


@pytest.mark.parametrize("seed", range(4))
def test_distinct_facts_equal_the_obvious_loop(seed: int) -> None:
    random = np.random.default_rng(seed)
    sample = np.sort(random.integers(0, 6, 80))
    columns = (random.integers(-500, 900, 80) * 10 for _ in range(2))
    seconds, available = (c.astype(np.int32) for c in columns)
    events = Events(sample, seconds, available, random.integers(0, 2, 80).astype(np.int16),
                    random.integers(0, 5, 80).astype(np.float32))  # fmt: skip
    hours, most = random.integers(0, 3, 6).astype(float), int(random.integers(1, 5))
    facts = distinct_facts(events, hours, most)
    for one in range(6):
        first: dict[tuple[int, int], int] = {}
        for i in np.flatnonzero(sample == one):
            when = max(seconds[i], available[i])
            if when <= hours[one] * 3600:
                key = int(events.variable[i]), int(events.value[i])
                first[key] = min(first.get(key, when), when)
        mine = facts.sample == one
        found = {(v, x): s for v, x, s in zip(facts.variable[mine], facts.value[mine],
                                              facts.since[mine], strict=True)}  # fmt: skip
        times = sorted(first.values())[-most:]
        assert len(found) == min(most, len(first)) == mine.sum()
        assert facts.place[mine].tolist() == list(range(mine.sum()))
        np.testing.assert_allclose(
            sorted(found.values(), reverse=True), [hours[one] - t / 3600 for t in times]
        )
        for key, since in found.items():
            assert since == pytest.approx(hours[one] - first[key] / 3600)


def test_static_codes_and_vectors_are_known_at_hour_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tmp_path / "at_once.toml"
    task.write_text(
        'question = "Will this patient die in hospital?"\nkind = "binary"\n'
        'ask = "icu_admission + 0h"\nlabel = { rule = "death_in_hospital" }\n'
    )
    one = Ward(patients=20)
    for subject in range(1, 21):
        one.add(subject, "hr", 80, 0)
        one.add(subject, "age", 50 + subject, 0)
        one.add(subject, "dx", "A", -24 * 365)
        one.add(subject, "slide", 3, -100, 0)
        one.add(subject, "rx", "B", 0.5)
    store = prepare_ward(one, tmp_path / "w", monkeypatch, tasks=str(task))
    sample = store.samples.to_pylist()[0]
    has = {name: sample[f"has_{name}"] for name in ITEMS}
    assert has == dict.fromkeys(ITEMS, True) | {"vitals": False, "labs": False}
    batch = Loader(store, store.manifest["scaling"]).batch(np.array([[0]]), ("at_once",))
    assert set(batch.inputs) == {"static", "codes", "slides"}
    assert inputs_of(batch, 0, "codes").tolist() == [[0.0, pytest.approx(np.log1p(24 * 365))]]


def test_a_store_without_series_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = (
        '[age]\nmodality = "clinical"\nkind = "static"\nunit = "years"\nitems = ["age"]\n'
        '[drug]\nmodality = "drugs"\nkind = "codes"\nunit = "code"\nitems = ["absent"]\n'
    )
    only = without(ward(30), "hr", "na", "7", "dx", "rx", "slide", "biopsy")
    store = prepare_ward(only, tmp_path / "w", monkeypatch, variables)
    assert list(store.modalities) == ["clinical"]  # nobody has a code
    assert store.samples["has_drugs"].to_pylist() == [False] * store.samples.num_rows
    batch = batch_of(store, store.rows("in_hospital_mortality", "train"))
    assert list(batch.inputs) == ["clinical"]
