"""The one door: what is written is read back, and what is no store is refused."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from flexcare.errors import UserError
from flexcare.files import read_json, sha256, write_json
from flexcare.schema import SAMPLES, STORE_VERSION
from flexcare.store import GrowingArray, Store
from hospital import HEART_RATE, Hospital
from prepared import everything, prepare_there


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("store")
    return prepare_there(everything(4).write(folder / "h"), folder / "s")


@pytest.fixture
def damaged(store: Store, tmp_path: Path) -> Path:
    """A copy of the store, to be damaged."""
    copy = tmp_path / "copy"
    for file in store.path.rglob("*"):
        if file.is_file():
            place = copy / file.relative_to(store.path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
    return copy


def test_the_samples_have_the_columns_of_the_schema(store: Store) -> None:
    assert store.samples.schema.names[: len(SAMPLES.names)] == SAMPLES.names
    for field in SAMPLES:
        assert store.samples.schema.field(field.name).type == field.type


def test_samples_are_unique(store: Store) -> None:
    names = store.samples["sample_id"].to_pylist()
    assert len(set(names)) == len(names)
    rows = store.samples.to_pylist()
    hourly = [(r["task"], r["stay_id"], r["hours"]) for r in rows if store.tasks[r["task"]].hourly]
    assert len(set(hourly)) == len(hourly) > 100


def test_rows_of_a_task_and_split(store: Store) -> None:
    rows = store.samples.to_pylist()
    for task in store.tasks:
        found = np.concatenate([store.rows(task, s) for s in ("train", "tuning", "held_out")])
        assert sorted(found) == [i for i, row in enumerate(rows) if row["task"] == task]
    train = store.rows("phenotyping", "train")
    assert {rows[i]["split"] for i in train} == {"train"}


def test_an_unknown_task_or_split_is_refused_with_the_nearest(store: Store) -> None:
    with pytest.raises(UserError, match="Did you mean 'decompensation'"):
        store.rows("decompensate", "train")
    with pytest.raises(UserError, match="Did you mean 'train'"):
        store.rows("decompensation", "training")


def test_the_manifest_says_what_is_inside(store: Store) -> None:
    manifest = store.manifest
    assert manifest["schema_version"] == STORE_VERSION
    assert manifest["settings"]["clock"] == "charttime"
    assert list(store.tasks) == [
        "in_hospital_mortality", "decompensation", "length_of_stay", "phenotyping", "readmission",
        "diagnosis", "drg",
    ]  # fmt: skip
    assert {name: info.kind for name, info in store.modalities.items()} == {
        "series": "time_series", "film": "image", "note": "text",
    }  # fmt: skip
    files = {str(p.relative_to(store.path)) for p in store.path.rglob("*") if p.is_file()}
    assert set(manifest["content"]) == files - {"manifest.json", "films.parquet"}
    for name, fingerprint in manifest["content"].items():
        assert sha256(store.path / name) == fingerprint
    assert len(manifest["source_files"]) == 13
    counted = sum(
        v for t in manifest["counts"]["samples"].values() for k, v in t.items() if " " not in k
    )
    assert counted == len(store.samples)


def test_variables_keep_the_order_of_their_file(store: Store) -> None:
    """Event arrays name variables by number: in another order they would be others."""
    names = list(store.modalities["series"].settings["variables"])
    assert names.index("gcs_verbal") < names.index("gcs_total")
    assert names[-1] == "ph"


def test_subgroups_leave_out_what_is_unknown(store: Store) -> None:
    row = store.rows("phenotyping", "train")[:1]
    groups = store.subgroups(row)[0]
    assert set(groups) == {"age_band", "sex", "admission_type", "insurance"}  # no race was written
    assert groups["age_band"] == "45-64"
    assert groups["sex"] in "FM"


def test_age_bands(tmp_path: Path) -> None:
    hospital = Hospital()
    bands = {44: "under 45", 45: "45-64", 65: "65-79", 79: "65-79", 80: "80 and over"}
    for subject, age in enumerate(bands, start=1):
        hospital.chart(hospital.patient(subject, age=age), 1, HEART_RATE, 80)
    store = prepare_there(hospital.write(tmp_path / "h"), tmp_path / "s", tasks="phenotyping")
    found = [groups["age_band"] for groups in store.subgroups(np.arange(5))]
    assert found == list(bands.values())


def test_each_text_is_embedded_once(store: Store) -> None:
    tokens, spans = store.embeddings
    texts = store.texts.to_pylist()
    assert len(spans) == len(texts)
    spans_of: dict[str, set[tuple[int, int]]] = {}
    for text, span in zip(texts, spans.tolist(), strict=True):
        spans_of.setdefault(text["text_hash"], set()).add(tuple(span))
    assert all(len(found) == 1 for found in spans_of.values())
    lengths = sum(stop - start for found in spans_of.values() for start, stop in found)
    assert lengths == len(tokens)
    assert tokens.dtype == np.float16


def test_equal_texts_share_their_vectors(tmp_path: Path) -> None:
    hospital = Hospital()
    for subject in (1, 2, 3):
        hospital.patient(subject)
        hospital.report(subject, 3, "no acute process")
    store = prepare_there(hospital.write(tmp_path / "h"), tmp_path / "s", tasks="phenotyping")
    tokens, spans = store.embeddings
    assert (len(store.texts), len(tokens), spans.tolist()) == (3, 3, [[0, 3]] * 3)


def test_every_row_range_lies_within_the_arrays(store: Store) -> None:
    count = len(store.events["seconds"])
    for row in store.samples.to_pylist():
        assert 0 <= row["series_first"] <= row["series_stop"] <= count
        assert -1 <= row["film_row"] < len(store.films)
        assert all(0 <= text < len(store.texts) for text in row["text_rows"])
        assert row["has_note"] == bool(row["text_rows"])
        assert row["has_film"] == (row["film_row"] >= 0)


def test_another_schema_version_is_refused(damaged: Path) -> None:
    manifest = read_json(damaged / "manifest.json", "")
    write_json(damaged / "manifest.json", manifest | {"schema_version": STORE_VERSION + 1})
    with pytest.raises(UserError, match="another schema version") as error:
        Store(damaged)
    assert f"version {STORE_VERSION + 1}" in error.value.found


@pytest.mark.parametrize("content", ["{", "[1]", '{"artefact": "bundle"}'])
def test_a_manifest_of_something_else_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError):
        Store(tmp_path)


def test_no_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a store that"):
        Store(tmp_path / "nothing")


@pytest.mark.parametrize(
    "name", ["samples.parquet", "texts.parquet", "films.npy", "events/value.npy"]
)
@pytest.mark.parametrize("how", ["absent", "empty", "cut"])
def test_a_damaged_file_is_named(damaged: Path, name: str, how: str) -> None:
    path = damaged / name
    content = path.read_bytes()
    path.unlink()
    if how != "absent":
        path.write_bytes(content[: len(content) // 2 if how == "cut" else 0])
    opened = Store(damaged)
    readers = {
        "samples.parquet": lambda: opened.samples,
        "texts.parquet": lambda: opened.texts,
        "films.npy": lambda: opened.films,
        "events/value.npy": lambda: opened.events,
    }
    with pytest.raises(UserError, match=name):
        readers[name]()


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_a_growing_array_is_a_plain_npy_file(tmp_path: Path, shape: tuple[int, ...]) -> None:
    parts = [
        np.random.default_rng(n).normal(size=(n, *shape)).astype(np.float32) for n in (0, 4, 1)
    ]
    with GrowingArray(tmp_path / "in" / "a.npy", np.float32, shape) as array:
        for part in parts:
            array.append(part)
    found = np.load(tmp_path / "in" / "a.npy", mmap_mode="r", allow_pickle=False)
    assert (found == np.concatenate(parts)).all()
    assert found.shape == (5, *shape)


def test_an_empty_growing_array_can_be_read(tmp_path: Path) -> None:
    with GrowingArray(tmp_path / "a.npy", np.uint8, (4, 4)):
        pass
    assert np.load(tmp_path / "a.npy").shape == (0, 4, 4)


def test_parquet_holds_no_row_of_the_source(store: Store) -> None:
    """Texts are kept, but only those that a sample uses."""
    used = {t for row in store.samples["text_rows"].to_pylist() for t in row}
    assert used == set(range(pq.read_metadata(store.path / "texts.parquet").num_rows))
