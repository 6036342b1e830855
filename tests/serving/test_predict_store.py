"""A store is answered with the bundle's own scaling, if it fits; if not, the error says why."""

import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from random_bundle import random_bundle

from flexcare.errors import UserError
from flexcare.evaluation.predictions import read_predictions, write_predictions
from flexcare.features.variables import variable_set
from flexcare.loading.loader import Loader
from flexcare.schema import PREDICTIONS, SPLITS
from flexcare.serving.predictor import load, outputs_of, predict_rows, side_by_side


@pytest.fixture
def said():
    """What the predictor said."""
    return []


@pytest.fixture
def asked(bundle_folder, said):
    return load(bundle_folder, say=said.append)


def by_sample(table):
    return {row["sample_id"]: row for row in table.to_pylist()}


def test_every_sample_of_both_is_answered_once_in_the_predictions_table(store, asked, said):
    table = asked.predict_store(store)
    assert table.schema == PREDICTIONS
    assert table["sample_id"].to_pylist() == store.samples["sample_id"].to_pylist()
    assert table["model"].unique().to_pylist() == ["flexcare"]
    assert said == []


def test_a_path_and_predict_do_the_same(store, asked, tmp_path):
    table = asked.predict_store(store, tasks=["readmission"], model="flexcare")
    assert asked.predict(store.path, tasks=["readmission"]) == table
    assert asked.predict(str(store.path), tasks=["readmission"]) == table
    assert asked.predict(store, tasks=["readmission"]) == table
    write_predictions(tmp_path / "p.parquet", table)
    assert read_predictions(tmp_path / "p.parquet") == table


def test_split_and_tasks_choose_samples(store, asked):
    table = asked.predict_store(store, "tuning", ["phenotyping", "drg"], "mine")
    expected = [i for t in ("phenotyping", "drg") for i in store.rows(t, "tuning")]
    ids = store.samples["sample_id"].take(expected).to_pylist()
    assert table["sample_id"].to_pylist() == ids
    assert set(table["model"].to_pylist()) <= {"mine"}
    with pytest.raises(UserError, match="Did you mean 'tuning'"):
        asked.predict_store(store, "tunning")
    with pytest.raises(UserError, match="unknown task 'phenotypes'"):
        asked.predict_store(store, tasks=["phenotypes"])


def test_numbers_are_scaled_as_the_bundle_says_not_the_store(store, asked):
    expected = asked.predict_store(store, tasks=["readmission"])
    scaling = store.manifest["scaling"]
    for numbers in (scaling["series"]["center"], scaling["series"]["scale"]):
        numbers[:] = [2 * value + 1 for value in numbers]
    scaling["film"].update(mean=0.9, sd=3.0)
    assert asked.predict_store(store, tasks=["readmission"]) == expected
    asked.bundle.scaling = scaling
    assert asked.predict_store(store, tasks=["readmission"]) != expected


def test_answers_are_those_of_the_network(store, asked):
    loader = Loader(store, store.manifest["scaling"])
    rows = store.rows("diagnosis", "train")
    found = predict_rows(asked.bundle.model, loader, {"diagnosis": rows})["diagnosis"]
    table = asked.predict_store(store, "train", ["diagnosis"])
    np.testing.assert_array_equal(np.stack(table["probabilities"].to_numpy()), found)


def test_tasks_asked_together_are_answered_as_each_alone(store, asked):
    together = asked.predict_store(store)
    assert len(set(together["task"].to_pylist())) == 7
    alone = [asked.predict_store(store, tasks=[name]) for name in asked.tasks]
    assert together.drop(["probabilities", "predicted_boolean_probability"]) == pa.concat_tables(
        alone
    ).drop(["probabilities", "predicted_boolean_probability"])
    found, expected = (
        np.concatenate(table["probabilities"].to_pylist())
        for table in (together, pa.concat_tables(alone))
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_what_is_known_at_one_time_is_encoded_once(store, asked):
    tasks = ["decompensation", "length_of_stay", "in_hospital_mortality"]
    loader = Loader(store, store.manifest["scaling"])
    rows = {name: np.concatenate([store.rows(name, s) for s in SPLITS]) for name in tasks}
    answered = {name: [] for name in tasks}
    encoded = []
    for places, batch, _ in outputs_of(asked.bundle.model, loader, rows, batch=7):
        encoded += next(iter(batch.sample_rows.values())).tolist()
        assert (places >= 0).all()
        for name, place in zip(batch.tasks, places.T, strict=True):
            answered[name] += place.tolist()
            assert batch.sample_rows[name].tolist() == rows[name][place].tolist()
    assert len(encoded) == len(rows["length_of_stay"])  # the others ask at hours that it asks, too
    for name, places in answered.items():
        assert sorted(places) == list(range(len(rows[name])))


def test_hours_that_share_a_causal_series_are_answered_as_each_alone(store, tmp_path):
    causal = load(random_bundle(store, tmp_path / "causal", causal_series=True)).bundle.model
    rows = np.concatenate([store.rows("decompensation", split) for split in SPLITS])[:60]
    shared = Loader(store, store.manifest["scaling"], model=causal.config)
    together = predict_rows(causal, shared, {"decompensation": rows})["decompensation"]
    batch = shared.batch(rows[:, None], ("decompensation",))
    assert len(batch.inputs["series"].values) < len(rows) / 2
    alone = [
        predict_rows(causal, shared, {"decompensation": rows[n : n + 1]})["decompensation"][0]
        for n in range(len(rows))
    ]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)
    assert np.ptp(together) > 0.01


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_side_by_side_are_answered_in_order_and_errors_are_passed_on(threads):
    def late(number, wait):
        time.sleep(wait)
        return 1 / number

    before = torch.get_num_threads()
    items = [(1, 0.05), (2, 0.0), (4, 0.02), (5, 0.0)]
    assert list(side_by_side(late, items, threads)) == [1, 0.5, 0.25, 0.2]
    with pytest.raises(ZeroDivisionError):
        list(side_by_side(late, [*items, (0, 0.0)], threads))
    assert torch.get_num_threads() == before  # the caller keeps its own


def change_variables(store, change):
    """Another set of variables in the store's manifest."""
    info = store.modalities["series"]
    tables = change(dict(info.settings["variables"]))
    columns = variable_set(tables, "a test").columns()
    store.modalities["series"] = replace(
        info, width=len(columns), settings={"variables": tables, "columns": columns}
    )


VARIABLES = {
    "has 15 variables, this bundle expects 17 (missing: gcs_eye, ph)": lambda tables: {
        name: table | {"sum_of": []} for name, table in tables.items() if name not in MISSING
    },
    "has 18 variables, this bundle expects 17 (not expected: mood)": lambda tables: (
        tables | {"mood": {"unit": "", "normal": 1.0}}
    ),
    "has 17 variables, this bundle expects 17 (in another order)": lambda tables: dict(
        sorted(tables.items(), reverse=True)
    ),
    "normal value or categories: glucose, ph": lambda tables: (
        tables
        | {"glucose": tables["glucose"] | {"unit": "mmol/L"}}
        | {"ph": tables["ph"] | {"normal": 7.0}}
    ),
}
MISSING = ("ph", "gcs_eye")


@pytest.mark.parametrize("told", VARIABLES)
def test_store_with_other_variables_is_refused(store, asked, told):
    change_variables(store, VARIABLES[told])
    with pytest.raises(UserError) as error:
        asked.predict_store(store)
    assert f"store {store.path}" in str(error.value)
    assert told in str(error.value)
    assert "Prepare again with --variables of the bundle." in str(error.value)


def test_items_and_texts_of_another_source_are_no_difference(store, asked):
    expected = asked.predict_store(store, tasks=["readmission"])
    change_variables(
        store, lambda tables: {n: t | {"items": [], "texts": {}} for n, t in tables.items()}
    )
    assert asked.predict_store(store, tasks=["readmission"]) == expected


OTHERS = {
    "has films of 56 pixels, this bundle expects 28": ("film", {"width": 56}),
    "has film of kind text, this bundle expects kind image": ("film", {"kind": "text"}),
    "has notes embedded by bert-12, this bundle expects hashed": (
        "note",
        {"settings": {"encoder": "bert-12"}},
    ),
}


@pytest.mark.parametrize("told", OTHERS)
def test_store_with_other_films_or_notes_is_refused(store, asked, told):
    name, changed = OTHERS[told]
    store.modalities[name] = replace(store.modalities[name], **changed)
    with pytest.raises(UserError) as error:
        asked.predict_store(store)
    assert told in str(error.value)


def test_modality_that_the_store_lacks_is_absent_and_said(store, asked, said):
    whole = asked.predict_store(store)
    del store.modalities["film"]
    table = asked.predict_store(store)
    assert [f"store {store.path} has no film: absent for every sample"] == said
    assert set(table["modalities"].to_pylist()) == {"note+series"}
    ours, theirs = by_sample(table), by_sample(whole)
    for name, row in theirs.items():
        same = ours[name]["probabilities"] == pytest.approx(row["probabilities"], abs=1e-6)
        assert same == ("film" not in row["modalities"])


def test_modality_that_the_bundle_does_not_take_is_ignored_and_said(store, said, tmp_path):
    folder = random_bundle(store, tmp_path / "b", [store.modalities["series"]])
    store.modalities["film"] = replace(store.modalities["film"], width=56)
    table = load(folder, say=said.append).predict_store(store)
    assert len(said) == 2
    assert all("which this bundle does not take: ignored" in line for line in said)
    assert set(table["modalities"].to_pylist()) == {"series"}


def drg_bundle(store, path, classes):
    return random_bundle(store, path, tasks=[replace(store.tasks["drg"], classes=classes)])


def relabel_drg(store, value_of, mask):
    """The same samples of drg with other labels; gives them by sample id."""
    rows = store.samples.to_pylist()
    mine = [row for row in rows if row["task"] == "drg"]
    for place, row in enumerate(mine):
        row["label"], row["label_mask"] = [value_of(place)], [mask]
    store.__dict__["samples"] = pa.Table.from_pylist(rows, schema=store.samples.schema)
    return {row["sample_id"]: row for row in mine}


def test_classes_are_matched_by_name_and_unknown_ones_left_out(store, said, tmp_path):
    ours, kept = ("189", "190", "191"), ("000", "191", "190")
    store.tasks["drg"] = replace(store.tasks["drg"], classes=ours)
    samples = relabel_drg(store, lambda place: float(place % 3), True)
    table = load(drg_bundle(store, tmp_path / "b", kept), say=said.append).predict_store(store)
    left = [name for name, row in samples.items() if row["label"] == [0.0]]
    assert said == [f"drg: {len(left)} samples of a class unknown to the bundle are left out"]
    assert left
    found = by_sample(table)
    assert found.keys() == samples.keys() - set(left)
    for name, row in found.items():
        expected = ours[int(samples[name]["label"][0])]
        assert row["categorical_value"] == expected == kept[row["integer_value"]]
        assert row["label"] == [row["integer_value"]]
        assert len(row["probabilities"]) == len(kept)


def test_sample_without_a_label_is_kept_whatever_the_classes(store, said, tmp_path):
    samples = relabel_drg(store, lambda place: float("nan"), False)
    folder = drg_bundle(store, tmp_path / "b", ("000", "001"))
    table = load(folder, say=said.append).predict_store(store)
    assert said == []
    assert by_sample(table).keys() == samples.keys()
    assert table["categorical_value"].null_count == table.num_rows


@pytest.mark.parametrize("task", ["length_of_stay", "phenotyping", "readmission"])
def test_other_classes_are_refused_where_they_have_to_be_the_same(store, asked, task):
    info = store.tasks[task]
    store.tasks[task] = replace(info, classes=(*info.classes[:-1], "another"))
    with pytest.raises(UserError, match=f"has task {task} as .*another.*, this bundle expects"):
        asked.predict_store(store)
    assert task not in asked.predict_store(store, tasks=["drg"])["task"].to_pylist()


def test_task_of_another_kind_is_refused(store, asked):
    store.tasks["drg"] = replace(store.tasks["drg"], kind="multilabel")
    with pytest.raises(UserError, match="has task drg as multilabel"):
        asked.predict_store(store)


def test_only_tasks_of_both_are_answered(store, said, tmp_path):
    only = [store.tasks["readmission"], replace(store.tasks["drg"], name="stroke")]
    predictor = load(random_bundle(store, tmp_path / "b", tasks=only), say=said.append)
    assert set(predictor.predict_store(store)["task"].to_pylist()) == {"readmission"}
    with pytest.raises(UserError, match="unknown task 'stroke'"):
        predictor.predict_store(store, tasks=["stroke"])
    store.tasks.pop("readmission")
    with pytest.raises(UserError, match="nothing to ask"):
        predictor.predict_store(store)


def test_imported_network_cannot_read_a_store(store, asked):
    asked.bundle.scaling = {}
    for info in asked.bundle.modalities:
        info.settings.clear()
    with pytest.raises(UserError):
        asked.predict_store(store)
