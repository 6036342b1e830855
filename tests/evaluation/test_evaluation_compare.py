"""Models compared on the same resamples of the same subjects, over tasks."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from flexcare.errors import UserError
from flexcare.evaluation.compare import AREAS, MEAN, OWN, Judge
from flexcare.evaluation.evaluate import evaluate_tables
from flexcare.evaluation.predictions import averaged, predictions_table
from flexcare.schema import SAMPLES, TaskInfo

DEATH = TaskInfo("death", "dies?", "binary", ("yes",), "average_precision")
STAY = TaskInfo("stay", "how long?", "multiclass", ("short", "long", "longer"), "quadratic_kappa")
CODES = TaskInfo("codes", "which?", "multilabel", ("a", "b"), "macro_average_precision")
TASKS = {info.name: info for info in (DEATH, STAY, CODES)}


def answered(info: TaskInfo, skill: float, subjects=range(120), seed: int = 0) -> pa.Table:
    """Two samples of each subject, answered with some skill."""
    who = np.repeat(list(subjects), 2)
    truth = np.random.default_rng([*info.name.encode()])
    width = 1 if info.kind == "multiclass" else info.outputs
    labels = truth.integers(info.outputs if width < info.outputs else 2, size=(999, width))[who]
    noise = np.random.default_rng(seed).random((len(who), info.outputs))
    target = labels == np.arange(info.outputs) if width < info.outputs else labels
    chance = skill * target + (1 - skill) * noise
    if info.kind == "multiclass":
        chance /= chance.sum(1, keepdims=True)
    columns = {
        "sample_id": pa.array([f"{info.name}/{w}/{i % 2}" for i, w in enumerate(who)]),
        "task": pa.array([info.name] * len(who)),
        "subject_id": pa.array(who),
        "prediction_time": pa.nulls(len(who), SAMPLES.field("prediction_time").type),
        "hours": pa.array(np.arange(len(who)) * 1.0),
        "label": pa.array(labels.astype(np.float32).tolist()),
        "label_mask": pa.array(np.ones_like(labels, bool).tolist()),
        "split": pa.array(["held_out"] * len(who)),
    }
    samples = pa.table([columns.get(f.name, pa.nulls(len(who), f.type)) for f in SAMPLES], SAMPLES)
    return predictions_table(samples, info, chance, "m", ["none"] * len(who), [{}] * len(who))


def model(skill: float, seed: int = 0, **who) -> pa.Table:
    return pa.concat_tables([answered(info, skill, seed=seed, **who) for info in TASKS.values()])


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(model(0.2), TASKS, resamples=200)


def test_values_are_those_of_the_evaluation():
    table = model(0.2)
    scores = Judge(table, TASKS, resamples=2000).scores(table)
    result = evaluate_tables({"m": table}, TASKS, resamples=2000)["tasks"]
    for (task, metric), score in scores.items():
        if task != MEAN:
            told = result[task]["models"]["m"]["metrics"][metric]
            assert score.to_dict()["value"] == told["value"]
            assert score.to_dict()["low"] == pytest.approx(told["low"], abs=0.015)
            assert score.to_dict()["high"] == pytest.approx(told["high"], abs=0.015)


def test_the_mean_is_over_tasks_in_every_resample(judge):
    scores = judge.scores(model(0.2))
    own = [scores[name, info.metric] for name, info in TASKS.items()]
    assert scores[MEAN, OWN].value == pytest.approx(np.mean([one.value for one in own]))
    np.testing.assert_allclose(scores[MEAN, OWN].drawn, np.mean([one.drawn for one in own], 0))
    areas = scores["death", "auroc"].value, scores["codes", "macro_auroc"].value
    assert scores[MEAN, AREAS].value == pytest.approx(np.mean(areas))


def test_a_subject_is_drawn_for_all_tasks_and_models_alike(judge):
    first, again = judge.scores(model(0.2)), judge.scores(model(0.2))
    for key, score in first.items():
        np.testing.assert_array_equal(score.drawn, again[key].drawn)


def test_a_task_about_some_subjects_uses_their_copies():
    everybody, few = answered(DEATH, 0.2), answered(CODES, 0.2, subjects=range(70, 120, 2))
    table = pa.concat_tables([everybody, few])
    judge = Judge(table, {"death": DEATH, "codes": CODES}, 5)
    drawn = judge.scores(table)["codes", "macro_auroc"].drawn
    labels, chance = (np.array(few[name].to_pylist()) for name in ("label", "probabilities"))
    for copies, found in zip(judge.copies, drawn, strict=True):
        times = copies[np.searchsorted(judge.people, few["subject_id"].to_numpy())]
        rows = np.repeat(np.arange(len(few)), times)
        areas = [roc_auc_score(labels[rows, k], chance[rows, k]) for k in range(2)]
        assert found == pytest.approx(np.mean(areas))


def test_a_paired_difference_is_tighter_than_its_parts(judge):
    better, worse = judge.scores(model(0.3)), judge.scores(model(0.2))
    key = ("death", "auroc")
    gap = (better[key] - worse[key]).to_dict()
    assert gap["value"] == pytest.approx(better[key].value - worse[key].value, abs=1e-6)
    one = better[key].to_dict()
    assert gap["high"] - gap["low"] < one["high"] - one["low"]
    itself = (better[key] - better[key]).to_dict()
    assert itself == {"value": 0, "low": 0, "high": 0}


def test_other_samples_are_refused(judge):
    with pytest.raises(UserError, match="different samples"):
        judge.scores(model(0.2, subjects=range(1, 121)))


def test_a_model_of_some_tasks_has_no_mean(judge):
    scores = judge.scores(answered(DEATH, 0.2))
    assert {task for task, _ in scores} == {"death"}


def test_labels_with_one_answer_have_no_value():
    never = answered(DEATH, 0.2)
    none = pa.array([[0.0]] * len(never), never["label"].type)
    never = never.set_column(never.column_names.index("label"), "label", none)
    score = Judge(never, {"death": DEATH}, 20).scores(never)["death", "auroc"]
    assert score.to_dict() == {"value": None, "low": None, "high": None}


def test_the_mean_of_models_is_that_of_their_probabilities():
    tables = [model(0.2, seed=seed) for seed in (1, 2)]
    mean = averaged(tables, "both")
    one, two, both = (np.concatenate(t["probabilities"].to_pylist()) for t in (*tables, mean))
    np.testing.assert_allclose(both, (one + two) / 2, atol=1e-7)
    assert mean["model"].unique().to_pylist() == ["both"]
    for row in mean.to_pylist():
        if row["task"] == "death":
            assert row["predicted_boolean_probability"] == row["probabilities"][0]
            assert row["predicted_boolean_value"] == (row["probabilities"][0] >= 0.5)
        else:
            assert row["predicted_boolean_probability"] is row["predicted_boolean_value"] is None


def test_models_of_other_samples_have_no_mean():
    with pytest.raises(ValueError, match="different samples"):
        averaged([model(0.2), model(0.2).take(list(range(len(model(0.2))))[::-1])], "both")
