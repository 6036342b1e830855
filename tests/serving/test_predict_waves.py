"""One patient's wave gets the answer that the store's way gives."""

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from random_bundle import random_bundle

from flexcare.errors import UserError
from flexcare.preparation import prepare
from flexcare.serving.predictor import load
from flexcare.sources.flat import write_template
from flexcare.store import Store
from prepared import quiet

TASK = "return_30d"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple:
    """The example's folder, its store, and a bundle that takes its waves."""
    folder = tmp_path_factory.mktemp("waves")
    write_template(folder / "t")
    path = folder / "t" / "ecg" / "1.parquet"
    pq.write_table(pq.read_table(path).select(["II"]), path)
    prepare("flat", folder / "t", folder / "s", settings={"film_side": 28}, say=quiet)
    store = Store(folder / "s")
    bundle = random_bundle(store, folder / "b", [store.modalities["ecg"]])
    return folder / "t", store, load(bundle, say=quiet)


def test_patient_gets_the_answer_of_the_store(made) -> None:
    folder, store, predictor = made
    rows = {row["sample_id"]: row for row in predictor.predict_store(store).to_pylist()}
    with (folder / "waves.csv").open() as file:
        paths = {row["stay_id"]: folder / row["path"] for row in csv.DictReader(file)}
    for stay, path in list(paths.items())[:6]:
        expected = rows[f"{TASK}/{stay}/48"]["probabilities"][0]
        table = pq.read_table(path)
        given = [path, str(path), {name: table[name].to_pylist() for name in table.column_names}]
        if table.num_columns == 2:
            given.append(np.stack([table["I"].to_numpy(), table["II"].to_numpy()]))
        for wave in given:
            found = predictor.predict({"ecg": wave}, 48)
            assert found.modalities == "ecg"
            assert found[TASK]["return"] == pytest.approx(expected, abs=1e-6)


def test_nothing_but_gaps_is_left_out_and_said(made) -> None:
    found = made[2].predict({"ecg": np.full((2, 200), np.nan)}, 48)
    assert found == made[2].predict({}, 48)
    assert found.left_out == ["ecg: nothing but gaps"]


@pytest.mark.parametrize(
    ("wave", "told"),
    [
        (np.zeros((3, 200)), "200 numbers of each channel: I, II"),
        (np.zeros((2, 199)), "200 numbers of each channel: I, II"),
        ({"I": [0.0] * 200, "V1": [0.0] * 200}, "200 numbers of each channel: I, II"),
        ({"I": ["x"] * 200}, "200 numbers of each channel: I, II"),
        (5, "200 numbers of each channel: I, II"),
        (Path("nowhere.parquet"), "nowhere.parquet, which is not there"),
    ],
)
def test_what_is_no_wave_is_refused(made, wave, told) -> None:
    with pytest.raises(UserError, match="the wave of ecg cannot be used") as error:
        made[2].predict({"ecg": wave}, 48)
    assert told in str(error.value)
