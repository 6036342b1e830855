"""The whole comparison: honest about small groups, differences, and what it does not know."""

import datetime
import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from flexcare.errors import UserError
from flexcare.evaluation.evaluate import evaluate_tables
from flexcare.evaluation.metrics import metrics_of
from flexcare.evaluation.predictions import predictions_table
from flexcare.schema import SAMPLES, TaskInfo

DEATH = TaskInfo("death", "Will it end badly?", "binary", ("death",), "average_precision")
CODES = TaskInfo("codes", "Which?", "multilabel", ("x", "y", "never"), "macro_average_precision")
STAY = TaskInfo("stay", "How long?", "multiclass", ("a", "b", "c", "d"), "quadratic_kappa")
TASKS = {info.name: info for info in (DEATH, CODES, STAY)}
GROUPS = ("18-44", "45-64", "80+")


def samples(info, rows, labels, start=7_000_000):
    made = [
        {
            "sample_id": f"{info.name}/{start + i}",
            "task": info.name,
            "subject_id": start + i // 2,
            "hadm_id": None,
            "stay_id": None,
            "prediction_time": datetime.datetime(2020, 1, 1),
            "hours": None,
            "label": labels[i],
            "label_mask": [True] * len(labels[i]),
            "split": "held_out",
        }
        for i in range(rows)
    ]
    return pa.Table.from_pylist(made, schema=SAMPLES)


def predictions(info, model, skill, rows=300, seed=0):
    """Predictions that know the label as well as `skill` says; three have the age band 80+."""
    rng = np.random.default_rng(seed)
    width = 1 if info.kind == "multiclass" else info.outputs
    truth = rng.integers(0, info.outputs if info.kind == "multiclass" else 2, (rows, width))
    if info is CODES:
        truth[:, 2] = 0
    noise = np.random.default_rng(seed + len(model)).random((rows, info.outputs))
    shape = np.eye(info.outputs)[truth[:, 0]] if info.kind == "multiclass" else truth
    scores = skill * shape + (1 - skill) * noise
    if info.kind == "multiclass":
        scores = scores / scores.sum(1, keepdims=True)
    band = [{"age_band": GROUPS[i % 2] if i > 2 else "80+"} for i in range(rows)]
    names = ["film+note" if i % 3 else "note" for i in range(rows)]
    known = samples(info, rows, truth.astype(float).tolist())
    return predictions_table(known, info, scores, model, names, band)


def constant():
    """A model that says the same of everybody."""
    table = predictions(DEATH, "majority", 0.0)
    flat = pa.array([[0.25]] * 300, table["probabilities"].type)
    return table.set_column(table.column_names.index("probabilities"), "probabilities", flat)


def tables(rows=300):
    skills = {"network": 0.35, "trees": 0.15, "majority": 0.0}
    return {
        model: pa.concat_tables([predictions(t, model, skill, rows) for t in TASKS.values()])
        for model, skill in skills.items()
    }


@pytest.fixture(scope="module")
def result():
    return evaluate_tables(tables(), TASKS, resamples=200)


def test_result_is_json_without_nan_and_without_patients(result):
    text = json.dumps(result, allow_nan=False)
    assert "70000" not in text


def test_every_metric_lies_in_its_interval(result):
    for name, info in TASKS.items():
        metrics = result["tasks"][name]["models"]["network"]["metrics"]
        assert set(metrics) == set(metrics_of(info.kind))
        for value in metrics.values():
            assert value["low"] - 0.02 <= value["value"] <= value["high"] + 0.02


def test_classes_without_an_order_have_no_distance():
    drg = TaskInfo("stay", "Which?", "multiclass", ("a", "b", "c", "d"), "macro_f1")
    found = evaluate_tables({"m": predictions(STAY, "m", 0.4)}, {"stay": drg}, resamples=10)
    metrics = found["tasks"]["stay"]["models"]["m"]["metrics"]
    assert list(metrics) == ["accuracy", "macro_f1", "brier", "calibration_error"]


def test_small_groups_have_their_size_but_no_number(result):
    bands = result["tasks"]["death"]["models"]["network"]["subgroups"]["age_band"]
    assert [(b["group"], b["samples"]) for b in bands] == [
        ("18-44", 148),
        ("45-64", 149),
        ("80+", 3),
    ]
    assert bands[2]["too_few"] == "fewer than 20 samples"
    assert bands[2]["metrics"] == {}
    assert set(bands[0]["metrics"]) == {"average_precision", "auroc"}


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_group_has_the_value_of_its_samples_alone(result, name):
    table = predictions(TASKS[name], "network", 0.35)
    film = table.filter(pc.equal(table["modalities"], "film+note"))
    alone = evaluate_tables({"network": film}, {name: TASKS[name]}, resamples=2)
    expected = alone["tasks"][name]["models"]["network"]["metrics"]
    row = result["tasks"][name]["models"]["network"]["combinations"][0]
    assert row["group"] == "film+note"
    for metric, value in row["metrics"].items():
        assert value["value"] == expected[metric]["value"]


def test_combinations_add_up_to_all_samples(result):
    for task in result["tasks"].values():
        for model in task["models"].values():
            assert sum(row["samples"] for row in model["combinations"]) == model["samples"] == 300


def test_a_label_never_seen_is_listed_and_has_no_value(result):
    codes = result["tasks"]["codes"]["models"]["network"]
    assert codes["undefined_classes"] == ["never"]
    assert codes["classes"][2]["auroc"]["value"] is None
    assert codes["classes"][2]["auroc"]["reason"] == "all 300 labels are 0"
    found = [row["auroc"]["value"] for row in codes["classes"][:2]]
    assert codes["metrics"]["macro_auroc"]["value"] == pytest.approx(np.mean(found), abs=1e-5)


def test_paired_difference_is_tighter_than_two_intervals_and_reads_right(result):
    death = result["tasks"]["death"]
    against = {row["against"]: row for row in death["differences"]}
    assert list(against) == ["trees", "majority"]
    assert against["majority"]["reading"] == "better"
    values = [
        death["models"][m]["metrics"]["average_precision"]["value"] for m in ("network", "trees")
    ]
    assert against["trees"]["value"] == pytest.approx(values[0] - values[1], abs=1e-5)


def test_the_weaker_model_first_reads_worse():
    given = tables()
    swapped = {"majority": given["majority"], "network": given["network"]}
    found = evaluate_tables(swapped, {"stay": STAY}, resamples=100)
    assert found["tasks"]["stay"]["differences"][0]["reading"] == "worse"


def test_a_model_against_itself_differs_by_exactly_nothing():
    table = predictions(DEATH, "network", 0.4)
    found = evaluate_tables({"a": table, "b": table}, {"death": DEATH}, resamples=50)
    row = found["tasks"]["death"]["differences"][0]
    assert (row["value"], row["low"], row["high"], row["reading"]) == (0, 0, 0, "unclear")


def test_differences_use_only_samples_that_both_answered():
    table = predictions(DEATH, "network", 0.4)
    found = evaluate_tables({"a": table, "b": table.slice(100)}, {"death": DEATH}, resamples=20)
    assert found["tasks"]["death"]["differences"][0]["samples"] == 200


def test_different_labels_for_one_sample_are_refused():
    one, other = predictions(DEATH, "a", 0.4), predictions(DEATH, "b", 0.4, seed=9)
    with pytest.raises(UserError, match="given different labels"):
        evaluate_tables({"a": one, "b": other}, {"death": DEATH}, resamples=2)


def test_labels_with_one_answer_give_null_and_a_reason():
    table = predictions(DEATH, "network", 0.4)
    positive = [i for i, label in enumerate(table["label"].to_pylist()) if label == [1.0]]
    found = evaluate_tables({"a": table.take(positive)}, {"death": DEATH}, resamples=20)
    model = found["tasks"]["death"]["models"]["a"]
    assert model["metrics"]["auroc"]["value"] is None
    assert model["metrics"]["auroc"]["reason"] == f"all {len(positive)} labels are 1"
    assert model["curves"] == {}
    json.dumps(found, allow_nan=False)


def test_curves_are_short_and_end_where_they_should(result):
    curves = result["tasks"]["death"]["models"]["network"]["curves"]
    assert curves["roc"][0] == [0, 0]
    assert curves["roc"][-1] == [1, 1]
    assert curves["pr"][-1] == [1, pytest.approx(140 / 300, abs=0.1)]
    assert max(len(points) for points in curves.values()) <= 200


def test_calibration_groups_hold_all_samples_and_equal_predictions_stay_together(result):
    groups = result["tasks"]["death"]["models"]["network"]["calibration"]
    assert len(groups) == 10
    assert sum(group["samples"] for group in groups) == 300
    assert all(group["low"] <= group["observed"] <= group["high"] for group in groups)
    found = evaluate_tables({"a": constant()}, {"death": DEATH}, resamples=20)
    assert len(found["tasks"]["death"]["models"]["a"]["calibration"]) == 1


def test_precision_of_a_constant_is_the_share_of_positives_everywhere():
    found = evaluate_tables({"a": constant()}, {"death": DEATH}, resamples=20)
    model = found["tasks"]["death"]["models"]["a"]
    share = pytest.approx(model["prevalence"], abs=1e-5)
    assert model["curves"]["pr"] == [[0, share], [1, share]]


def test_confusion_adds_up(result):
    stay = result["tasks"]["stay"]["models"]["network"]
    assert [sum(row) for row in stay["confusion"]] == [row["samples"] for row in stay["classes"]]
    rights = sum(row["right"] for row in stay["classes"])
    assert rights / 300 == pytest.approx(stay["metrics"]["accuracy"]["value"], abs=1e-5)


def test_same_seed_same_numbers_other_seed_other_intervals():
    given = {"network": predictions(DEATH, "network", 0.4)}
    one, same, other = (
        json.dumps(evaluate_tables(given, {"death": DEATH}, resamples=50, seed=seed))
        for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other


def test_order_of_rows_does_not_matter():
    table = predictions(DEATH, "network", 0.4)
    shuffled = table.take(np.random.default_rng(0).permutation(table.num_rows))
    one, two = (
        evaluate_tables({"a": t}, {"death": DEATH}, resamples=50) for t in (table, shuffled)
    )
    assert one == two


def test_tasks_without_predictions_and_no_tables_do_not_crash():
    only = predictions(DEATH, "network", 0.4)
    found = evaluate_tables({"network": only}, TASKS, resamples=10)
    assert found["tasks"]["codes"]["models"] == {}
    assert evaluate_tables({}, TASKS)["tasks"]["death"]["differences"] == []


def test_a_metric_of_another_kind_is_refused_before_work():
    wrong = TaskInfo("death", "", "binary", ("death",), "accuracy")
    with pytest.raises(UserError, match="metric of task death"):
        evaluate_tables({}, {"death": wrong})


def test_a_group_of_one_subject_many_hours_has_no_number():
    table = predictions(DEATH, "network", 0.4)
    index = table.column_names.index("subject_id")
    one = table.set_column(index, "subject_id", pa.array([1] * 300, pa.int64()))
    found = evaluate_tables({"a": one}, {"death": DEATH}, resamples=20)
    groups = found["tasks"]["death"]["models"]["a"]["combinations"]
    assert {group["too_few"] for group in groups} == {"fewer than 10 subjects"}
