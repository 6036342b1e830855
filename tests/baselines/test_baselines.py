"""Baselines answer the same samples as the network, learn from training alone, and repeat."""

from dataclasses import replace

import numpy as np
import pytest

from flexcare.baselines import logistic, trees
from flexcare.baselines.fitted import Known, _classes, _renumbered, _shares
from flexcare.baselines.majority import labels_of
from flexcare.baselines.named import BASELINES
from flexcare.config import LogisticConfig, TreesConfig
from flexcare.evaluation.evaluate import evaluate_tables
from flexcare.evaluation.stored import present, stored_predictions
from flexcare.schema import TaskInfo
from flexcare.training.schedules import one_hour

DIABETES = "Diabetes mellitus with complications"  # told by the series
FAST = ("in_hospital_mortality", "readmission", "drg")


def answers(name, store, tasks=FAST, split="held_out", seed=0):
    return {
        info.name: (info, rows, np.asarray(found))
        for info, rows, found in BASELINES[name](store, tasks, split, seed)
    }


@pytest.mark.parametrize("name", BASELINES)
def test_every_sample_of_the_split_is_answered_in_the_stores_order(store, name):
    for task, (info, rows, found) in answers(name, store, store.tasks).items():
        np.testing.assert_array_equal(rows, store.rows(task, "held_out"))
        assert info == store.tasks[task]
        assert found.shape == (len(rows), info.outputs)
        assert ((found >= 0) & (found <= 1)).all()
        if info.kind == "multiclass":
            np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)


def test_majority_is_what_counting_says(store, relabel):
    relabel(label_mask=lambda row: [m and row["subject_id"] % 3 > 0 for m in row["label_mask"]])
    train = [row for row in store.samples.to_pylist() if row["split"] == "train"]
    for task, (info, _, found) in answers("majority", store, store.tasks).items():
        mine = [row for row in train if row["task"] == task]
        if info.kind == "multiclass":
            labels = [int(row["label"][0]) for row in mine if row["label_mask"][0]]
            expected = [labels.count(number) / len(labels) for number in range(info.outputs)]
        else:
            known = [
                [row["label"][i] for row in mine if row["label_mask"][i]]
                for i in range(info.outputs)
            ]
            expected = [np.mean(labels) for labels in known]
        np.testing.assert_allclose(found, np.tile(expected, (len(found), 1)), atol=1e-7)


@pytest.mark.parametrize("name", ["trees", "logistic"])
def test_a_planted_signal_is_found(store, name):
    info = store.tasks["phenotyping"]
    _, rows, found = answers(name, store, ["phenotyping"])["phenotyping"]
    labels = labels_of(store, info, rows)[0][:, info.classes.index(DIABETES)]
    chance = found[:, info.classes.index(DIABETES)]
    assert chance[labels == 1].mean() > chance[labels == 0].mean() + 0.25
    tables = {
        name: stored_predictions(store, *answers(name, store, ["drg"])["drg"], name)
        for name in ("trees", "majority")
    }
    result = evaluate_tables(tables, {"drg": store.tasks["drg"]}, resamples=20)
    models = result["tasks"]["drg"]["models"]
    accuracy = {name: models[name]["metrics"]["accuracy"]["value"] for name in models}
    assert accuracy["trees"] > accuracy["majority"] + 0.15


def test_same_seed_same_answers_other_seed_others(store):
    first, again = answers("trees", store, seed=3), answers("trees", store, seed=3)
    other = answers("trees", store, seed=4)
    for task in FAST:
        np.testing.assert_array_equal(first[task][2], again[task][2])
    assert any((first[task][2] != other[task][2]).any() for task in FAST)


def test_labels_of_the_split_asked_have_no_influence(store, relabel):
    before = {name: answers(name, store) for name in BASELINES}
    wrong = {"held_out": 0.0}
    relabel(label=lambda row: [wrong.get(row["split"], v) for v in row["label"]])
    for name, found in before.items():
        for task, (_, _, after) in answers(name, store).items():
            np.testing.assert_array_equal(found[task][2], after)


@pytest.mark.parametrize("name", ["trees", "logistic"])
def test_label_with_one_answer_gets_its_share(store, relabel, name):
    known = {"readmission": 1.0, "drg": 2.0}
    relabel(label=lambda row: [known.get(row["task"], row["label"][0]), *row["label"][1:]])
    found = answers(name, store, ["readmission", "drg"])
    assert (found["readmission"][2] == 1).all()
    assert (found["drg"][2] == np.eye(store.tasks["drg"].outputs)[2]).all()


def test_label_that_nobody_has_is_a_coin(store, relabel):
    masked = ("readmission", "drg")
    relabel(label_mask=lambda row: [row["task"] not in masked] * len(row["label_mask"]))
    for name in BASELINES:
        found = answers(name, store, masked)
        assert (found["readmission"][2] == 0.5).all()
        np.testing.assert_allclose(found["drg"][2], 1 / store.tasks["drg"].outputs)


@pytest.mark.parametrize("name", ["trees", "logistic"])
def test_masked_labels_are_not_learned_from(store, relabel, name):
    tasks = ("readmission", "phenotyping")
    relabel(label_mask=lambda row: [value == 1 for value in row["label"]])
    for _, _, found in answers(name, store, tasks).values():
        assert (found == 1).all()


@pytest.mark.parametrize("name", ["trees", "logistic"])
@pytest.mark.parametrize("highest", [7.0, 3.0])
def test_class_unseen_in_training_gets_nothing(store, relabel, name, highest):
    """Of eight classes the odd ones up to a highest are in the training split; 3: two classes."""
    odd = {"train": lambda value: min(value // 2 * 2 + 1.0, highest)}
    relabel(label=lambda row: [odd.get(row["split"], float)(value) for value in row["label"]])
    train = np.unique(labels_of(store, store.tasks["drg"], store.rows("drg", "train"))[0])
    found = answers(name, store, ["drg"])["drg"][2]
    assert set(np.flatnonzero(found.any(0))) == set(train.astype(int))
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)


def test_classes_unseen_in_training_do_not_judge_the_tuning():
    labels = np.array([[0.0], [1.0], [3.0], [4.0]])
    known = Known(np.arange(4.0)[:, None], labels, labels >= 0, np.ones(4))
    kept = _renumbered(known, np.array([1, 3]))
    assert kept.labels.tolist() == [[0.0], [1.0]]
    assert kept.numbers.tolist() == [[1.0], [2.0]]


def test_two_classes_of_several_keep_their_places():
    info = TaskInfo("drg", "?", "multiclass", ("a", "b", "c"), "macro_f1")
    labels = np.array([[0.0], [2.0]])
    known = Known(np.zeros((2, 1)), labels, labels >= 0, np.ones(2))
    model = _classes(
        lambda *about: lambda numbers: np.full(len(numbers), 0.9), info, known, known, 0
    )
    np.testing.assert_allclose(model(np.zeros((1, 1))), [[0.1, 0, 0.9]])


def test_hours_drawn_stand_for_the_whole_stay(store):
    every = store.rows("decompensation", "train")
    drawn = np.unique(np.concatenate([one_hour(store, every, 0, epoch) for epoch in range(3)]))
    stays = store.samples["stay_id"].to_numpy()
    weights = _shares(store, drawn, every)
    for stay in np.unique(stays[every]):
        assert weights[stays[drawn] == stay].sum() == pytest.approx((stays[every] == stay).sum())


@pytest.mark.parametrize("name", ["trees", "logistic"])
def test_without_tuning_samples_something_is_learned(store, relabel, name):
    kept = {"tuning": "held_out"}
    relabel(split=lambda row: kept.get(row["split"], row["split"]))
    found = answers(name, store, ["drg"])["drg"][2]
    assert (found.std(0) > 0).any()


def test_without_training_samples_every_answer_is_a_coin(store, relabel):
    relabel(split=lambda row: "held_out")
    for name in BASELINES:
        found = answers(name, store, ["phenotyping", "length_of_stay"])
        assert (found["phenotyping"][2] == 0.5).all()
        np.testing.assert_allclose(found["length_of_stay"][2], 0.1)


def test_task_without_classes_and_samples_is_answered_with_nothing(store, relabel):
    relabel(task=lambda row: row["task"] + "?" * (row["task"] == "drg"))
    store.tasks["drg"] = replace(store.tasks["drg"], classes=())
    for name in BASELINES:
        assert answers(name, store, ["drg"])["drg"][2].shape == (0, 0)


def test_hourly_tasks_are_answered_at_every_hour(store):
    _, rows, found = answers("trees", store, ["decompensation"])["decompensation"]
    stays = store.samples["stay_id"].take(rows).to_numpy()
    assert len(rows) > 10 * len(np.unique(stays))
    assert len(np.unique(found)) > 10


def test_predictions_say_what_each_sample_had(store):
    rows = store.rows("diagnosis", "held_out")
    samples = store.samples.take(rows).to_pylist()
    for kept in (("series", "film", "note"), ("note",)):
        for sample, text in zip(samples, present(store, rows, kept), strict=True):
            names = [name for name in sorted(kept) if sample[f"has_{name}"]]
            assert text == ("+".join(names) or "none")


@pytest.mark.parametrize(
    ("name", "settings"),
    [("trees", TreesConfig), ("logistic", LogisticConfig)],
)
def test_modalities_that_a_baseline_is_not_given_have_no_influence(store, name, settings):
    def found(**given):
        about = (store, ["readmission"], "held_out", 0, settings(**given))
        return next(iter(BASELINES[name](*about)))[2]

    before, whole = found(modalities=["note"], person=["sex"]), found()
    store.events["value"][:] = 0
    np.testing.assert_array_equal(found(modalities=["note"], person=["sex"]), before)
    assert (found() != whole).any()


def test_trees_are_what_their_settings_say(store, monkeypatch):
    seen, train = [], trees.lgb.train

    def spied(settings, data, rounds, *more, **options):
        booster = train(settings, data, rounds, *more, **options)
        leaves = max(tree["num_leaves"] for tree in booster.dump_model()["tree_info"])
        seen.append((settings, rounds, leaves))
        return booster

    monkeypatch.setattr(trees.lgb, "train", spied)
    given = {"num_leaves": 2, "lambda_l2": 3.0, "rounds": 4}
    list(trees.trees(store, ["phenotyping"], "held_out", 0, TreesConfig(**given)))
    for settings, rounds, leaves in seen:
        assert settings["num_leaves"] == 2
        assert settings["lambda_l2"] == 3
        assert rounds == 4
        assert leaves <= 2
    seen.clear()
    list(trees.trees(store, ["phenotyping"], "held_out", 0))
    assert max(leaves for _, _, leaves in seen) > 2


def test_a_given_strength_is_not_searched(store, monkeypatch):
    strengths, fit = [], logistic.LogisticRegression.fit

    def spied(self, *about, **more):
        strengths.append(self.C)
        return fit(self, *about, **more)

    monkeypatch.setattr(logistic.LogisticRegression, "fit", spied)
    list(BASELINES["logistic"](store, ["readmission"], "held_out", 0, LogisticConfig(C=0.07)))
    assert strengths == [0.07]
    list(BASELINES["logistic"](store, ["readmission"], "held_out", 0))
    assert strengths[1:3] == list(logistic.STRENGTHS[:2])
