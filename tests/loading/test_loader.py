"""Store -> batch: what is present, padded and scaled, and answers with their masks."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from flexcare.batch import Batch, Tokens
from flexcare.config import ModelConfig
from flexcare.errors import UserError
from flexcare.features.text import HashedNgrams
from flexcare.files import read_json, write_json
from flexcare.loading.loader import Loader, _shared, prefetch
from flexcare.schema import SPLITS
from flexcare.store import Store
from hospital import CELSIUS, HEART_RATE, Hospital
from prepared import everything, prepare_there


def three_patients() -> Hospital:
    """1 has a series, two films and notes; 2 a series; 3 nothing but a stay."""
    hospital = Hospital()
    for subject, days in ((1, 2.5), (2, 3)):
        stay = hospital.patient(subject, days=days)
        hospital.chart(stay, -1, HEART_RATE, 70)
        hospital.chart(stay, 1.5, HEART_RATE, 80 + subject)
        hospital.chart(stay, 47, CELSIUS, 36 + subject)
    hospital.patient(3)
    hospital.film(1, 5, 20, "a", brightness=50, Edema="1.0", Fracture="-1.0")
    hospital.film(1, 6, 30, "b", brightness=100)
    hospital.report(1, 3, "no effusion")
    hospital.complaint(1, 7, -5, "cough")
    return hospital


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("loader")
    return prepare_there(three_patients().write(folder / "h"), folder / "s")


def loader(store: Store, modalities: list[str] | None = None, **model: object) -> Loader:
    """Centre 100 and scale 10 for every number; films as they are."""
    count = len(store.modalities["series"].settings["variables"])
    series = {"center": [100.0] * count, "scale": [10.0] * count}
    return Loader(
        store,
        {"series": series, "film": {"mean": 0.25, "sd": 0.5}},
        modalities,
        ModelConfig(**model),
    )


def rows(store: Store, *samples: str) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    names = store.samples["sample_id"].to_pylist()
    return np.array([[names.index(name)] for name in samples])


def phenotypes(store: Store, **model: object) -> Batch:
    """The three patients at the end of their stays."""
    asked = rows(store, "phenotyping/300", "phenotyping/100", "phenotyping/200")
    return loader(store, **model).batch(asked, ("phenotyping",))


def column(store: Store, tokens: Tokens, name: str) -> torch.Tensor:
    return tokens.values[:, :, store.modalities["series"].settings["columns"].index(name)]


def test_each_modality_has_the_samples_that_know_it(store: Store) -> None:
    batch = phenotypes(store)
    assert {name: tokens.rows.tolist() for name, tokens in batch.inputs.items()} == {
        "series": [1, 2], "film": [1], "note": [1],
    }  # fmt: skip
    present = batch.present(("series", "film", "note"))
    assert present.tolist() == [[False] * 3, [True] * 3, [True, False, False]]


def test_series_are_hourly_standardised_and_padded_with_zeros(store: Store) -> None:
    series = phenotypes(store).inputs["series"]
    assert series.values.shape == (2, 72, 47)
    assert series.valid.sum(1).tolist() == [60, 72]
    assert (series.values[0, 60:] == 0).all()
    rate = column(store, series, "heart_rate")
    assert_allclose(rate[0, :60], [-3.0] + [-1.9] * 59, atol=1e-6)
    seen = column(store, series, "heart_rate observed")
    assert seen[0].nonzero().flatten().tolist() == [1]
    assert column(store, series, "temperature observed")[1].nonzero().flatten().tolist() == [47]
    assert_allclose(column(store, series, "temperature")[1, 46:48], [-6.34, -6.2], atol=1e-5)
    assert (column(store, series, "gcs_eye=4")[0, :60] == 1).all()  # the normal value


def test_the_last_bins_of_a_longer_series_are_kept(store: Store) -> None:
    whole = phenotypes(store).inputs["series"]
    short = phenotypes(store, max_bins=65).inputs["series"]
    assert short.values.shape == (2, 65, 47)
    assert torch.equal(short.values[1], whole.values[1, 7:])
    assert torch.equal(short.values[0, :60], whole.values[0, :60])
    assert short.valid.sum(1).tolist() == [60, 65]


def test_films_are_standardised(store: Store) -> None:
    film = phenotypes(store).inputs["film"]
    assert film.values.shape == (1, 28, 28)
    assert film.values.dtype == torch.float32
    number = store.samples["film_row"][rows(store, "phenotyping/100")[0, 0]].as_py()
    want = (store.films[number].astype(np.float64) / 255 - 0.25) / 0.5
    assert_allclose(film.values[0], want, atol=1e-6)
    assert abs(float(film.values[0, 10, -1]) * 0.5 + 0.25 - 100 / 255) < 0.02


def test_notes_are_the_pieces_of_their_texts_in_order(store: Store) -> None:
    note = phenotypes(store).inputs["note"]
    words = ["no", "effusion", "cough"]
    want = np.stack([HashedNgrams.vector(word) for word in words]).astype(np.float32)
    assert note.valid.tolist() == [[True] * 3]
    assert_allclose(note.values[0], want)
    cut = phenotypes(store, max_pieces=2).inputs["note"]
    assert_allclose(cut.values[0], want[:2])


@pytest.mark.parametrize("pieces", [2, 5, 512])
def test_notes_of_many_samples_equal_the_obvious_loop(tmp_path: Path, pieces: int) -> None:
    store = prepare_there(everything(5).write(tmp_path / "h"), tmp_path / "s")
    vectors, spans = store.embeddings
    texts = store.samples["text_rows"].to_pylist()
    asked = np.random.default_rng(0).permutation(len(texts))[:40]
    note = loader(store, modalities=["note"], max_pieces=pieces).notes(asked)
    assert note is not None
    place = 0
    for number, row in enumerate(asked):
        own = [vectors[slice(*spans[text])] for text in texts[row]]
        want = np.concatenate([vectors[:0], *own])[:pieces].astype(np.float32)
        if len(want):
            assert note.rows[place] == number
            mine = note.of[place]
            assert note.valid[mine].tolist() == [i < len(want) for i in range(note.valid.shape[1])]
            assert_allclose(note.values[mine, : len(want)], want)
            assert not note.values[mine, len(want) :].any()
            place += 1
    assert place == len(note.rows)


@pytest.mark.parametrize("only", [None, ["series"], ["note", "film"]])
def test_work_is_the_number_of_tokens(tmp_path: Path, only: list[str] | None) -> None:
    store = prepare_there(everything(5).write(tmp_path / "h"), tmp_path / "s")
    one = loader(store, modalities=only, max_bins=50, max_pieces=5)
    asked = np.arange(len(store.samples))
    batch = one.batch(asked[:, None], (store.samples["task"][0].as_py(),))
    want = np.zeros(len(asked))
    for name, tokens in batch.inputs.items():
        want[tokens.rows] += 196 if name == "film" else tokens.known().sum(1).numpy()
    # A sample counts its hours, and has a bin for a part of one.
    assert np.abs(one.work(asked) - want).max() < 1


@pytest.mark.parametrize("bins", [30, 512])
def test_hours_of_a_stay_share_a_causal_series(store: Store, bins: int) -> None:
    asked = np.concatenate([store.rows("decompensation", split) for split in SPLITS])
    alone = loader(store, max_bins=bins).series(asked)
    shared = loader(store, max_bins=bins, causal_series=True).series(asked)
    assert alone is not None
    assert shared is not None
    assert torch.equal(alone.rows, shared.rows)
    assert torch.equal(alone.known().sum(1), shared.known().sum(1))
    for number, known in enumerate(shared.known()):
        mine = alone.values[number][alone.valid[number]]
        assert torch.equal(shared.values[shared.of[number]][known], mine)
    within = int((alone.known().sum(1) < bins).sum())
    assert len(shared.values) < len(asked) - within / 2


def test_an_hour_that_knew_less_keeps_its_own_series() -> None:
    hours = np.array([[[1.0], [2.0], [0.0]], [[1.0], [2.0], [3.0]], [[1.0], [9.0], [0.0]]])
    used, of = _shared(hours.astype(np.float32), np.array([2, 3, 2]), np.array([7, 7, 7]))
    assert used.tolist() == [1, 2]
    assert of.tolist() == [0, 0, 1]
    used, of = _shared(hours.astype(np.float32), np.array([2, 3, 2]), np.array([8, 7, 8]))
    assert used.tolist() == [0, 1, 2]  # of another stay, or another hour


def test_films_and_notes_are_read_once(tmp_path: Path) -> None:
    store = prepare_there(everything(5).write(tmp_path / "h"), tmp_path / "s")
    one = loader(store)
    twice = np.repeat(np.arange(len(store.samples)), 2)
    for read in (one.films, one.notes):
        tokens = read(twice)
        assert tokens is not None
        assert len(tokens.values) <= len(tokens.rows) / 2
        alone = {row: read(twice[row : row + 1]) for row in tokens.rows.tolist()[::7]}
        for row, expected in alone.items():
            assert expected is not None
            mine = tokens.of[tokens.rows.tolist().index(row)]
            assert torch.equal(tokens.values[mine][: expected.values.shape[1]], expected.values[0])


def test_modalities_that_are_not_asked_for_are_absent(store: Store) -> None:
    assert set(phenotypes(store, modalities=["film"]).inputs) == {"film"}


def test_answers_and_their_masks(store: Store) -> None:
    batch = loader(store).batch(rows(store, "diagnosis/5"), ("diagnosis",))
    names = store.tasks["diagnosis"].classes
    known = dict(zip(names, batch.label_masks["diagnosis"][0].tolist(), strict=True))
    assert [name for name, there in known.items() if there] == ["Edema"]
    assert batch.labels["diagnosis"][0, names.index("Edema")] == 1
    assert batch.labels["diagnosis"].dtype == torch.float32


def test_a_task_that_a_row_is_not_asked_is_masked(store: Store) -> None:
    hour = rows(store, "decompensation/100/48", "decompensation/200/50")
    death = [rows(store, "in_hospital_mortality/100")[0, 0], -1]
    both = np.column_stack([death, hour[:, 0]])
    batch = loader(store).batch(both, ("in_hospital_mortality", "decompensation"))
    assert batch.label_masks["in_hospital_mortality"].tolist() == [[True], [False]]
    assert batch.label_masks["decompensation"].tolist() == [[True], [True]]
    assert batch.sample_rows["in_hospital_mortality"].tolist() == death
    assert batch.inputs["series"].rows.tolist() == [0, 1]


def test_a_multiclass_label_is_a_class_number(store: Store) -> None:
    batch = loader(store).batch(rows(store, "length_of_stay/100/48"), ("length_of_stay",))
    assert batch.labels["length_of_stay"].tolist() == [[0]]


def test_a_batch_equals_its_samples_one_by_one(tmp_path: Path) -> None:
    store = prepare_there(everything(4).write(tmp_path / "h"), tmp_path / "s")
    one = Loader(store, store.manifest["scaling"])
    asked = np.flatnonzero(np.array(store.samples["task"].to_pylist()) == "decompensation")[::7]
    together = one.batch(asked[:, None], ("decompensation",))
    for place, row in enumerate(asked):
        alone = one.batch(np.array([[row]]), ("decompensation",))
        for name, tokens in alone.inputs.items():
            among = together.inputs[name]
            found = (among.rows == place).nonzero().flatten()
            assert len(found) == 1
            length = tokens.valid.shape[1]
            shown = among.values[among.of[found[0]]]
            assert torch.equal(shown if name == "film" else shown[:length], tokens.values[0])
            assert not among.valid[among.of[found[0]], length:].any()


def test_observed_values_of_the_training_split_are_centred(tmp_path: Path) -> None:
    hospital = Hospital()
    for subject in range(1, 30):
        stay = hospital.patient(subject)
        hospital.chart(stay, -2, HEART_RATE, 300)  # before admission: never counted
        for hour in range(10):
            hospital.chart(stay, hour + 0.5, HEART_RATE, 50 + subject + hour)
    store = prepare_there(hospital.write(tmp_path / "h"), tmp_path / "s", tasks="phenotyping")
    train = store.rows("phenotyping", "train")
    batch = Loader(store, store.manifest["scaling"]).batch(train[:, None], ("phenotyping",))
    series = batch.inputs["series"]
    observed = column(store, series, "heart_rate")[
        column(store, series, "heart_rate observed") == 1
    ]
    assert len(observed) == 10 * len(train) < 290
    quartiles = torch.quantile(observed, torch.tensor([0.25, 0.5, 0.75]))
    assert abs(float(quartiles[1])) < 1e-5
    assert float(quartiles[2] - quartiles[0]) == pytest.approx(1.349, abs=1e-5)


def test_variables_in_another_order_than_the_columns_are_refused(
    store: Store, tmp_path: Path
) -> None:
    manifest = read_json(store.path / "manifest.json", "")
    settings = manifest["modalities"]["series"]["settings"]
    settings["variables"] = dict(sorted(settings["variables"].items()))
    (tmp_path / "s").mkdir()
    write_json(tmp_path / "s" / "manifest.json", manifest)
    with pytest.raises(UserError, match="contradicts itself"):
        loader(Store(tmp_path / "s"))


def test_prefetching_changes_nothing_and_passes_errors_on() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    assert list(prefetch(range(20))) == list(range(20))
    items = prefetch(broken())
    assert next(items) == 1
    with pytest.raises(ValueError, match="no more"):
        next(items)


def test_prefetching_stops_with_its_reader() -> None:
    made: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            made.append(len(made))
            yield len(made)

    items = prefetch(endless(), ahead=2)
    next(items)
    items.close()  # type: ignore[attr-defined]
    count = len(made)
    assert count <= 5
    assert list(prefetch(range(2))) == [0, 1]
    assert len(made) == count
