"""Labels thrown away: a share of the subjects, the same in every run with a seed."""

import numpy as np
import pyarrow as pa
import pytest

from flexcare.config import TrainingConfig
from flexcare.training.labels import labelled
from small_store import small_store

TASKS = ("death", "stay", "findings")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("labels") / "store", train=400)


def kept(store, **settings):
    """By task the subjects whose labels are kept."""
    rows = {task: store.rows(task, "train") for task in TASKS}
    found = labelled(store, rows, TrainingConfig(**settings))
    subjects = store.samples["subject_id"]
    return {task: set(subjects.take(pa.array(own)).to_pylist()) for task, own in found.items()}


def test_all_labels_are_all(many):
    rows = {task: many.rows(task, "train") for task in TASKS}
    found = labelled(many, rows, TrainingConfig())
    assert all(np.array_equal(found[task], rows[task]) for task in TASKS)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_tasks_keep_the_share_of_the_same_subjects(many, share):
    found = kept(many, label_share=share)
    assert len({frozenset(one) for one in found.values()}) == 1
    assert len(found["death"]) / 400 == pytest.approx(share, abs=0.08)


def test_a_subject_keeps_all_its_samples_or_none(many):
    rows = {"stay": many.rows("stay", "train")}
    found = labelled(many, rows, TrainingConfig(label_share=0.3))["stay"]
    subjects = many.samples["subject_id"].to_numpy()
    assert set(subjects[found]).isdisjoint(set(subjects[np.setdiff1d(rows["stay"], found)]))


def test_fewer_labels_are_some_of_more(many):
    few, more = (kept(many, label_share=share)["death"] for share in (0.1, 0.4))
    assert few < more


def test_disjoint_tasks_have_subjects_of_their_own(many):
    found = kept(many, label_share=0.3, label_overlap="disjoint")
    sets = list(found.values())
    assert not sets[0] & sets[1]
    assert not sets[1] & sets[2]
    assert not sets[0] & sets[2]
    assert all(len(one) / 400 == pytest.approx(0.3, abs=0.08) for one in sets)


def test_seeds_keep_others(many):
    one, two = (kept(many, label_share=0.3, seed=seed)["death"] for seed in (0, 1))
    assert one != two
