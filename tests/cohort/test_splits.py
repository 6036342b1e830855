"""Splits depend on the seed and the subject alone."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from flexcare.cohort.splits import SHARES, split_of
from flexcare.config import Preparation, check
from flexcare.errors import UserError
from flexcare.files import unit_hash
from flexcare.preparation import prepare
from flexcare.schema import SPLITS
from flexcare.store import Store
from hospital import HEART_RATE, Hospital
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


def test_folds_hold_everyone_out_once_and_tune_on_a_ninth_of_the_rest() -> None:
    subjects = np.arange(20_000)
    folds = [split_of(subjects, 0, 5, fold) for fold in range(5)]
    held_out = np.array([fold == SPLITS.index("held_out") for fold in folds])
    assert (held_out.sum(axis=0) == 1).all()
    for fold, last in zip(folds, held_out, strict=True):
        assert abs(last.mean() - 1 / 5) < 0.015
        assert abs((fold[~last] == SPLITS.index("tuning")).mean() - 1 / 9) < 0.01
        assert {SPLITS[n] for n in fold} == set(SPLITS)
    # Who is tuned on is another matter than who is held out.
    tuned = folds[0] == SPLITS.index("tuning")
    assert all(abs(tuned[last].mean() - 1 / 9) < 0.02 for last in held_out[1:])


@pytest.mark.parametrize("folds", [0, 5])
def test_another_tuning_number_tunes_on_others_and_holds_out_the_same(folds: int) -> None:
    splits = np.array([split_of(np.arange(5_000), 0, folds, tuning=n) for n in range(5)])
    held_out, tuned = (splits == SPLITS.index(name) for name in ("held_out", "tuning"))
    assert (held_out == held_out[0]).all()
    assert tuned.sum(axis=0).max() == 1
    assert all(abs(one.sum() / (~held_out[0]).sum() - 1 / 8.5) < 0.02 for one in tuned)


def test_every_fold_tunes_on_others() -> None:
    folds = np.array([split_of(np.arange(5_000), 0, 5, fold) for fold in range(5)])
    assert (folds == SPLITS.index("tuning")).sum(axis=0).max() == 1


def test_folds_move_nobody_when_subjects_join() -> None:
    few, many = np.array([7, 3, 7]), np.array([7, 3, 7, *range(100, 900)])
    assert split_of(few, 1, 3, 2).tolist() == split_of(many, 1, 3, 2)[:3].tolist()


def test_a_share_of_the_training_subjects(make: Make) -> None:
    """Only they teach anything; those who judge stay the same; a larger share has them, too."""
    hospital = Hospital()
    for subject in range(1, 120):
        hospital.chart(hospital.patient(subject), 1, HEART_RATE, 60 + subject)
    stores = [make(hospital, tasks="phenotyping", train_share=x) for x in (1.0, 0.5, 0.2)]
    who = [
        {
            split: set(pc.filter(s["subject_id"], pc.equal(s["split"], split)).to_pylist())
            for split in SPLITS
        }
        for s in (store.samples for store in stores)
    ]
    assert who[0]["train"] > who[1]["train"] > who[2]["train"]
    assert 0.35 < len(who[1]["train"]) / len(who[0]["train"]) < 0.65
    for split in ("tuning", "held_out"):
        assert who[0][split] == who[1][split] == who[2][split]
    values = [60 + subject for subject in who[2]["train"]]
    learned = stores[2].manifest["scaling"]["series"]["center"]
    assert np.median(values) in (learned if isinstance(learned, list) else learned.values())
    reason = "training subject beyond train_share"
    left_out = [s["left_out"] for s in stores[2].manifest["cohort_flow"] if s["reason"] == reason]
    assert left_out == [len(who[0]["train"]) - len(who[2]["train"])]


@pytest.mark.parametrize("settings", [{"folds": 1}, {"folds": 5, "fold": 5}, {"fold": 1}])
def test_folds_that_cannot_be(settings: dict[str, int]) -> None:
    with pytest.raises(UserError, match="fold"):
        check(Preparation, settings, "a test")


def test_a_fold_taken_from_another_equals_a_fresh_one(make: Make, tmp_path: Path) -> None:
    """Centre and scale are those of its own training split."""
    hospital = Hospital()
    for subject in range(1, 30):
        hospital.chart(hospital.patient(subject), 1, HEART_RATE, 60 + subject)
    fresh = [make(hospital, tasks="phenotyping", folds=5, fold=fold) for fold in (0, 1)]
    folder, said = hospital.write(tmp_path / "h"), list[str]()
    for number, reuse in enumerate((None, tmp_path / "s0")):
        out, settings = tmp_path / f"s{number}", {"film_side": 28, "folds": 5, "fold": number}
        prepare("mimic-iv", folder, out, tasks="phenotyping", settings=settings, reuse=reuse,
                say=said.append)  # fmt: skip
    assert "series: taken from s0" in said
    taken = Store(tmp_path / "s1").manifest
    assert taken["scaling"] == fresh[1].manifest["scaling"] != fresh[0].manifest["scaling"]
    assert taken["content"] == fresh[1].manifest["content"]
    assert taken["splits"]["held_out"] == "fold 1 of 5"
