"""Waves of a store as tokens and as numbers for trees, as plain loops over the files have them."""

import csv
import shutil
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from flexcare.baselines.facts import BANDS, wave_numbers
from flexcare.baselines.summaries import Summaries
from flexcare.errors import UserError
from flexcare.loading.loader import Loader
from flexcare.preparation import prepare
from flexcare.sources.flat import write_template
from flexcare.store import Store
from prepared import quiet

CHANNELS = ("I", "II")


def add_waves(folder: Path) -> None:
    """Later waves of some stays, one of them seen late; gaps in records; a stay's own half gone."""
    path = folder / "ecg" / "1.parquet"
    table = pq.read_table(path)
    pq.write_table(table.select(["II"]), folder / "ecg" / "one.parquet")
    gaps = np.where(np.arange(200) % 3, table["I"].to_numpy(), np.nan)
    pq.write_table(table.set_column(0, "I", [gaps]), folder / "ecg" / "gaps.parquet")
    with (folder / "waves.csv").open("a") as file:
        file.write("101,ecg,2031-01-04 20:00,,50,ecg/one.parquet\n")
        file.write("102,ecg,2031-01-07 14:00,2031-01-20 14:00,50,ecg/one.parquet\n")
        file.write("103,ecg,2030-01-01 14:00,,50,ecg/gaps.parquet\n")
        file.write("106,ecg,2031-01-19 10:00,,50,ecg/gaps.parquet\n")


def prepared(folder: Path, out: Path, **given) -> Store:
    settings = {"film_side": 28}
    prepare("flat", folder, out, tasks="length_of_stay", settings=settings, say=quiet, **given)
    return Store(out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place: Path = tmp_path_factory.mktemp("waves") / "tables"
    write_template(place)
    add_waves(place)
    return place


@pytest.fixture(scope="module")
def store(folder, tmp_path_factory) -> Store:
    return prepared(folder, tmp_path_factory.mktemp("store") / "s")


def last_wave(folder: Path, stay: int, until: datetime) -> np.ndarray | None:
    """(channels, samples) of the record that a stay saw last."""
    with (folder / "waves.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if int(row["stay_id"]) == stay]
    seen = {max(filter(None, (row["time"], row["available_at"]))): row["path"] for row in rows}
    known = sorted(time for time in seen if datetime.fromisoformat(time) <= until)
    if not known:
        return None
    table = pq.read_table(folder / seen[known[-1]])
    gap = np.full(table.num_rows, np.nan)
    there = table.column_names
    return np.stack([table[c].to_numpy() if c in there else gap for c in CHANNELS])


def test_each_sample_has_the_wave_that_was_seen_last(folder, store) -> None:
    samples = store.samples.to_pylist()
    loader = Loader(store, store.manifest["scaling"], ["ecg"])
    tokens = loader.batch(np.arange(len(samples))[:, None], ("length_of_stay",)).inputs["ecg"]
    of = dict(zip(tokens.rows.tolist(), tokens.of.tolist(), strict=True))
    scaling = store.manifest["scaling"]["ecg"]
    different = set()
    for row, sample in enumerate(samples):
        wave = last_wave(folder, sample["stay_id"], sample["prediction_time"])
        assert (row in of) == (wave is not None) == sample["has_ecg"]
        if wave is not None:
            found = tokens.values[of[row]].numpy()
            back = (
                found * np.array(scaling["scale"])[:, None] + np.array(scaling["center"])[:, None]
            )
            np.testing.assert_allclose(back, wave, atol=1e-5)
            different.add((sample["stay_id"], of[row]))
    assert len(tokens.values) == len(set(of.values()))  # hours of a stay share it
    assert {stay for stay, _ in different} >= {101, 102, 103, 106}
    assert len([1 for stay, _ in different if stay == 101]) == 2
    assert len([1 for stay, _ in different if stay == 102]) == 1  # seen after the stay


def test_trees_get_numbers_of_the_wave_that_was_seen_last(folder, store) -> None:
    part = Summaries(store)
    places = [i for i, name in enumerate(part.names) if name.startswith("ecg ")]
    assert len(places) == 2 * (6 + BANDS)
    rows = np.random.default_rng(0).permutation(store.samples.num_rows)[:60]
    for numbers, sample in zip(part(rows), store.samples.take(rows).to_pylist(), strict=True):
        of = {name: numbers[i] for i, name in enumerate(part.names)}
        wave = last_wave(folder, sample["stay_id"], sample["prediction_time"])
        for place, channel in enumerate(CHANNELS):
            if wave is None or np.isnan(wave[place]).all():
                assert np.isnan(of[f"ecg {channel} mean"])
                continue
            values = wave[place]
            assert of[f"ecg {channel} missing"] == pytest.approx(np.isnan(values).mean())
            assert of[f"ecg {channel} mean"] == pytest.approx(np.nanmean(values), abs=1e-5)
            assert of[f"ecg {channel} highest"] == pytest.approx(np.nanmax(values), abs=1e-5)
            assert of[f"ecg {channel} lowest"] == pytest.approx(np.nanmin(values), abs=1e-5)


def test_power_lies_where_the_frequency_is() -> None:
    time = np.arange(256) / 256
    waves = np.stack([np.sin(2 * np.pi * f * time) for f in (5, 10, 20, 40, 100)])
    numbers = wave_numbers(waves[:, None].astype(np.float32))[:, 6:]
    assert numbers.argmax(1).tolist() == [0, 1, 2, 3, 4]


def test_changed_records_are_read_anew(folder, store, tmp_path) -> None:
    copy = shutil.copytree(folder, tmp_path / "tables")
    said: list[str] = []
    prepare("flat", copy, tmp_path / "same", tasks="length_of_stay", reuse=store.path,
            settings={"film_side": 28}, say=said.append)  # fmt: skip
    assert any(line.startswith("vitals, ") and "taken from" in line for line in said)
    same = Store(tmp_path / "same")
    assert same.manifest["content"] == store.manifest["content"]
    table = pq.read_table(copy / "ecg" / "2.parquet")
    pq.write_table(table.set_column(0, "I", [table["I"].to_numpy() + 1]), copy / "ecg/2.parquet")
    other = prepared(copy, tmp_path / "other", reuse=store.path)
    assert other.manifest["content"]["waves/ecg.npy"] != store.manifest["content"]["waves/ecg.npy"]


def test_a_damaged_record_leaves_nothing_behind(folder, tmp_path) -> None:
    copy = shutil.copytree(folder, tmp_path / "tables")
    path = copy / "ecg" / "2.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + b"\xff" * 40 + whole[44:])
    with pytest.raises(UserError, match=r"record 2\.parquet cannot be used"):
        prepared(copy, tmp_path / "s")
    assert {one.name for one in tmp_path.iterdir()} == {"tables"}
