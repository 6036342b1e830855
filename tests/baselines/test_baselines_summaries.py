"""The numbers that the trees see are what a plain loop says, and hold nothing of the future."""

import numpy as np
import pyarrow.compute as pc
import pytest

from flexcare.baselines import films, notes, summaries
from flexcare.baselines.series import STATISTICS, Series
from flexcare.baselines.summaries import Summaries
from flexcare.errors import UserError
from flexcare.features.series import Events, bin_events
from flexcare.loading.loader import Loader


@pytest.fixture
def rows(store):
    """Samples of every task, in no order."""
    return np.random.default_rng(1).choice(store.samples.num_rows, 150, replace=False)


def loader_of(store):
    return Loader(store, store.manifest["scaling"])


def of_samples(store, rows):
    return store.samples.take(rows).to_pylist()


def seen_of(store, sample):
    """The events a sample may see, one after the other."""
    if not sample["has_series"]:
        return []
    until = int(sample["series_hours"] * 3600 + 1e-6)
    events = [
        {name: values[i].item() for name, values in store.events.items()}
        for i in range(sample["series_first"], sample["series_stop"])
    ]
    return [e for e in events if e["seconds"] <= until and e["available"] <= until]


def test_series_numbers_equal_a_plain_loop(store, rows):
    part = Series(loader_of(store))
    variables = len(part.names) // len(STATISTICS)
    found = part(rows).reshape(len(rows), variables, len(STATISTICS))
    for sample, numbers in zip(of_samples(store, rows), found, strict=True):
        seen = seen_of(store, sample)
        for variable in range(variables):
            mine = [e for e in seen if e["variable"] == variable]
            values = [e["value"] for e in mine]
            expected = [np.nan] * 5 + [0, np.nan]
            if mine:
                since = sample["series_hours"] - mine[-1]["seconds"] / 3600
                known = [values[-1], np.mean(values), min(values), max(values), values[0]]
                expected = [*known, len(values), since]
            np.testing.assert_allclose(numbers[variable], expected, rtol=1e-5, atol=1e-5)


def test_later_events_have_no_influence(store, rows):
    part = Summaries(store)
    for row in rows:
        numbers, sample = part(np.array([row]))[0], of_samples(store, [row])[0]
        stay = slice(sample["series_first"], sample["series_stop"])
        kept = {name: values[stay].copy() for name, values in store.events.items()}
        until = int(sample["series_hours"] * 3600 + 1e-6)
        later = np.maximum(kept["seconds"], kept["available"]) > until
        store.events["value"][stay][later] = 1e6
        store.events["variable"][stay][later] = 0
        np.testing.assert_array_equal(part(np.array([row]))[0], numbers)
        if sample["has_series"]:
            store.events["value"][stay] = -1
            assert (part(np.array([row]))[0] != numbers)[~np.isnan(numbers)].any()
        for name, values in kept.items():
            store.events[name][stay] = values


def test_last_value_is_what_the_network_sees_in_its_last_bin(store, rows):
    loader = loader_of(store)
    samples = of_samples(store, rows)
    chosen = [i for i, sample in enumerate(samples) if sample["has_series"]]
    last = Series(loader)(rows[chosen]).reshape(len(chosen), -1, len(STATISTICS))[..., 0]
    for i, numbers in zip(chosen, last, strict=True):
        first, stop = samples[i]["series_first"], samples[i]["series_stop"]
        events = {name: values[first:stop] for name, values in store.events.items()}
        owner = np.zeros(stop - first, np.int64)
        hours = np.array([samples[i]["series_hours"]])
        values, _, _ = bin_events(
            Events(owner, **events), hours, loader.series_of["series"].variables
        )
        there = ~np.isnan(numbers)
        np.testing.assert_array_equal(values[0, -1][there], numbers[there])


def test_film_numbers_equal_a_plain_loop(store, rows):
    part = films.Films(loader_of(store))
    found = part(rows)
    for sample, numbers in zip(of_samples(store, rows), found, strict=True):
        assert numbers[0] == sample["has_film"]
        if not sample["has_film"]:
            assert np.isnan(numbers[1:]).all()
            continue
        film = store.films[sample["film_row"]].astype(float)
        blocks = [np.array_split(strip, 8, axis=1) for strip in np.array_split(film, 8)]
        expected = [block.mean() for strip in blocks for block in strip]
        np.testing.assert_allclose(numbers[1:65], expected, rtol=1e-5)
        diagonal = (film[:-1, 1:] - film[:-1, :-1]) * (film[1:, :-1] - film[:-1, :-1])
        np.testing.assert_allclose(numbers[97:].mean(), diagonal.mean(), atol=2)


def test_films_see_which_way_streaks_run():
    row, column = 2 * np.pi * np.mgrid[0:64, 0:64] / 8
    streaks = np.stack([np.cos(row + column), np.cos(row - column)]).astype(np.float32)
    slopes = (
        [s[:-1, 1:] - s[:-1, :-1] for s in streaks],
        [s[1:, :-1] - s[:-1, :-1] for s in streaks],
    )
    product = films._blocks(np.stack(slopes[0]) * np.stack(slopes[1]), 4)
    assert (product[0] > 0.1).all()
    assert (product[1] < -0.1).all()


def test_note_numbers_are_of_the_mean_of_all_word_pieces(store, rows):
    part = notes.Notes(loader_of(store))
    found = part(rows)
    vectors, spans = store.embeddings
    whole, known = [], []
    for sample, numbers in zip(of_samples(store, rows), found, strict=True):
        pieces = [vectors[slice(*spans[text])].astype(float) for text in sample["text_rows"]]
        assert list(numbers[:2]) == [len(pieces), sum(map(len, pieces))]
        assert np.isnan(numbers[2:]).all() == (not pieces)
        if pieces:
            whole.append(np.concatenate(pieces).mean(0))
            known.append(numbers[2:])
    # The main directions keep distances that lie in them and never make one larger.
    far = np.linalg.norm(np.array(whole) - whole[0], axis=1)
    kept = np.linalg.norm(np.array(known) - known[0], axis=1)
    assert (kept <= far + 1e-3).all()
    assert np.corrcoef(far, kept)[0, 1] > 0.9


def test_longer_texts_count_for_more(store, rows):
    part = notes.Notes(loader_of(store))
    spans = store.embeddings[1]
    for sample, numbers in zip(of_samples(store, rows), part(rows), strict=True):
        if texts := sample["text_rows"]:
            size = [spans[text][1] - spans[text][0] for text in texts]
            expected = np.average(part.components[texts], axis=0, weights=size)
            np.testing.assert_allclose(numbers[2:], expected, rtol=1e-4, atol=1e-5)


def test_directions_of_notes_are_learned_from_training_texts_alone(store):
    before = notes.Notes(loader_of(store)).components
    training = store.samples.filter(pc.equal(store.samples["split"], "train"))
    used = np.unique(pc.list_flatten(training["text_rows"]).to_numpy())
    vectors, spans = (np.array(a) for a in store.embeddings)
    theirs = np.zeros(len(vectors), bool)
    for text in used:
        theirs[slice(*spans[text])] = True
    vectors[~theirs] = np.random.default_rng(0).normal(size=vectors[~theirs].shape) * 5
    store.__dict__["embeddings"] = (vectors, spans)
    after = notes.Notes(loader_of(store)).components
    assert (~theirs).any()
    np.testing.assert_array_equal(before[used], after[used])


def test_size_of_the_chunks_changes_nothing(store, rows, monkeypatch):
    whole = Summaries(store)(rows)
    monkeypatch.setattr(summaries, "EVENTS_AT_ONCE", 500)
    monkeypatch.setattr(summaries, "SAMPLES_AT_ONCE", 7)
    monkeypatch.setattr(films, "FILMS_AT_ONCE", 3)
    monkeypatch.setattr(notes, "PIECES_AT_ONCE", 50)
    parted = Summaries(store)
    assert len(list(parted.chunks(rows))) > 20
    np.testing.assert_allclose(parted(rows), whole, rtol=1e-4, atol=1e-4)
    assert parted(rows[:0]).shape == (0, whole.shape[1])


def test_age_bands_are_in_their_natural_order(store):
    part = Summaries(store)
    found = part(np.arange(store.samples.num_rows))[:, part.names.index("age_band")]
    bands = store.samples["group:age_band"].to_pylist()
    order = {band: found[bands.index(band)] for band in set(bands)}
    assert sorted(order, key=order.__getitem__) == ["under 45", "45-64", "65-79", "80 and over"]


def test_sample_of_which_nothing_is_known_has_only_nan_and_zeros(store, relabel):
    relabel(
        has_series=lambda row: False,
        film_row=lambda row: -1,
        text_rows=lambda row: [],
        hours=lambda row: None,
    )
    part = Summaries(store)
    found = part(np.arange(20))[:, 3:]
    assert set(np.unique(found[~np.isnan(found)])) == {0.0}


def test_only_what_is_asked_for_is_a_column(store, rows):
    whole = Summaries(store)
    assert whole.names[:3] == ["hours", "age_band", "sex"]
    part = Summaries(store, ["note"], ["sex", "age_band"])
    assert part.names == ["age_band", "sex", *notes.Notes(loader_of(store)).names]
    places = [whole.names.index(name) for name in part.names]
    np.testing.assert_array_equal(part(rows), whole(rows)[:, places])
    assert Summaries(store, ["note"], []).names == part.names[2:]
    with pytest.raises(UserError, match="unknown modality 'notes'"):
        Summaries(store, ["notes"])
