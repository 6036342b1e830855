"""Splits depend on the seed and the subject alone."""

from collections import Counter

import numpy as np

from flexcare.cohort.splits import SHARES, split_of
from flexcare.files import unit_hash
from flexcare.schema import SPLITS
from hospital import Hospital
from prepared import Make


def test_the_shares_are_those_of_the_specification() -> None:
    counts = Counter(np.array(SPLITS)[split_of(np.arange(20_000), 0)].tolist())
    for name, share in zip(SPLITS, (0.7, 0.1, 0.2), strict=True):
        assert abs(counts[name] / 20_000 - share) < 0.015
    assert sum(SHARES) == 1


def test_adding_subjects_moves_nobody() -> None:
    few = np.array([7, 3, 7, 10_000_032])
    many = np.concatenate([few, np.arange(1000)])
    assert split_of(few, 0).tolist() == split_of(many, 0)[:4].tolist()
    assert split_of(few, 0)[0] == split_of(few, 0)[2]


def test_each_subject_once_equals_row_by_row() -> None:
    subjects = np.random.default_rng(0).integers(0, 50, 300)
    edges = np.cumsum(SHARES)[:-1]
    positions = [unit_hash("split", 3, int(subject)) for subject in subjects]
    assert split_of(subjects, 3).tolist() == [int((edges <= p).sum()) for p in positions]
    assert split_of(subjects[:0], 3).tolist() == []


def test_another_seed_is_another_split() -> None:
    assert (split_of(np.arange(1000), 0) != split_of(np.arange(1000), 1)).any()


def test_the_hash_never_changes() -> None:
    """A published split must stay what it was."""
    assert [SPLITS[n] for n in split_of(np.array([1, 2, 3, 4, 5, 6, 7, 8]), 0)] == [
        "train", "train", "train", "held_out", "train", "train", "train", "train",
    ]  # fmt: skip


def test_a_subject_has_one_split_in_every_task_of_a_store(make: Make) -> None:
    hospital = Hospital()
    for subject in range(1, 12):
        hospital.patient(subject)
        hospital.film(subject, subject, 500, f"d{subject}", Edema="1.0")
    rows = make(hospital, tasks="phenotyping,diagnosis").samples.to_pylist()
    splits: dict[int, set[str]] = {}
    for row in rows:
        splits.setdefault(row["subject_id"], set()).add(row["split"])
    assert len(rows) == 22
    assert all(len(names) == 1 for names in splits.values())
    assert {s: n.pop() for s, n in splits.items()} == {
        s: SPLITS[split_of(np.array([s]), 0)[0]] for s in range(1, 12)
    }
