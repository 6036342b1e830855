"""The value of a modality: large where it decides, nothing where it does not, right in the mean."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flexcare.config import ModelConfig
from flexcare.evaluation.alike import (
    ALIKE,
    Told,
    change,
    expected,
    log_odds,
    outcomes,
    uncertainty,
)
from flexcare.evaluation.value import Asker, of_sample, values
from flexcare.models.network import Network, Output
from flexcare.serving.bundle import Bundle
from prepared import quiet
from small_store import DEATH, TINY, small_store

FILM, NOTE, SERIES = range(3)  # columns
CLASSES = replace(DEATH, kind="multiclass", classes=("a", "b", "c"))


class FilmAlone(Network):
    """Answers by how bright the film is."""

    name = "film_alone"

    def forward(self, batch):
        film = means(batch, "film")
        return Output({task: self.logits(task, 2 * film) for task in batch.tasks}, batch.tasks)

    def logits(self, task, score):
        outputs = next(info.outputs for info in self.tasks if info.name == task)
        return score[:, None] * torch.arange(1.0, outputs + 1)


class FilmAndNote(FilmAlone):
    """Answers by film and note together; one of them tells nothing."""

    def forward(self, batch):
        score = 3 * means(batch, "film") * means(batch, "note")
        return Output({task: self.logits(task, score) for task in batch.tasks}, batch.tasks)


def means(batch, name):
    """(B,) mean number of a modality; 0 where it is absent."""
    out = torch.zeros(batch.size)
    if name in batch.inputs:
        tokens = batch.inputs[name]
        known = tokens.known().float()
        values = tokens.values[tokens.of].flatten(known.ndim).mean(-1)
        if name == "film":
            values = tokens.values[tokens.of].flatten(1).mean(1, keepdim=True)
        out[tokens.rows] = (values * known).sum(1) / known.sum(1)
    return out


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "store"
    return small_store(folder, train=20, tuning=300, held_out=300)


def asker(store, network):
    model = network(
        ModelConfig(**TINY), list(store.modalities.values()), list(store.tasks.values())
    ).eval()
    return Asker(Bundle(model, model.modalities, model.tasks, store.manifest["scaling"], {}), store)


@pytest.fixture(scope="module")
def film_alone(store):
    return values(asker(store, FilmAlone), "held_out", quiet)


def test_what_decides_is_worth_much_and_what_does_not_is_worth_nothing(film_alone):
    for task, modalities in film_alone.items():
        film = modalities["film"]
        assert film["lacking"]["told"] == film["lacking"]["samples"] > 50
        assert film["lacking"]["change"]["mean"] > 0.15, task
        assert film["having"]["change"]["real"] > 0.15
        for other in ("note", "series"):
            assert modalities[other]["lacking"]["change"]["mean"] == pytest.approx(0, abs=1e-5)
            assert modalities[other]["having"]["change"]["real"] == 0


def test_the_expected_change_is_the_real_one_in_the_mean(film_alone):
    for modalities in film_alone.values():
        for what in ("change", "uncertainty"):
            found = modalities["film"]["having"][what]
            assert found["low"] <= 0 <= found["high"], found
            assert found["difference"] == pytest.approx(found["real"] - found["expected"], abs=1e-5)


def test_patients_alike_are_those_of_whom_the_same_is_known(store):
    """A film tells something only beside a note, so of who has none it must say nothing."""
    asked, info = asker(store, FilmAndNote), store.tasks["death"]
    rows = store.rows("death", "held_out")
    without_film = rows[~asked.has[rows, FILM]]
    with_note = without_film[asked.has[without_film, NOTE]]
    without_note = without_film[~asked.has[without_film, NOTE]]
    for row in with_note[:5]:
        found = of_sample(asked, info, row)["modalities"]
        assert found["film"]["change"] > 0.02
        assert found["film"]["alike"] == ALIKE
    for row in without_note[:5]:
        found = of_sample(asked, info, row)["modalities"]
        assert found["film"]["change"] == pytest.approx(0, abs=1e-5)
        assert found["note"]["change"] == pytest.approx(0, abs=1e-5)


def test_one_sample_is_told_what_its_answer_may_become(store):
    asked, info = asker(store, FilmAlone), store.tasks["death"]
    rows = store.rows("death", "held_out")
    row = rows[~asked.has[rows, FILM] & asked.has[rows, SERIES]][0]
    found = of_sample(asked, info, row)
    assert "series" in found["known"]
    assert not set(found["known"]) & set(found["modalities"])
    assert found["answers"] == {"dead": 0.5}
    assert found["uncertainty"] == 1
    film = found["modalities"]["film"]
    assert film["uncertainty"] < 0.9
    answer = film["answers"]["dead"]
    assert answer["low"] < 0.3 < answer["mean"] < 0.7 < answer["high"]


def test_too_few_patients_alike_are_no_answer(tmp_path):
    few = small_store(tmp_path / "store", tuning=6, held_out=100)
    found = values(asker(few, FilmAlone), "held_out", quiet)["death"]["film"]
    assert found["lacking"]["told"] == 0 < found["lacking"]["samples"]
    assert found["lacking"]["change"] == {"mean": None, "low": None, "high": None}
    assert found["having"]["change"]["expected"] is None
    assert found["having"]["groups"] == []


def test_a_sample_of_each_subject_counts_once(store, film_alone):
    asked = asker(store, FilmAlone)
    rows = store.rows("stay", "held_out")
    drawn = asked.one_each(rows)
    assert sorted(asked.subjects[drawn]) == sorted(set(asked.subjects[rows]))
    assert (asked.one_each(rows) == drawn).all()
    found = film_alone["stay"]["film"]
    assert found["lacking"]["samples"] + found["having"]["samples"] == len(drawn)


def test_groups_by_expected_change_hold_everybody_in_order(store):
    found = values(asker(store, FilmAndNote), "held_out", quiet)["death"]["film"]["having"]
    groups = found["groups"]
    assert len(groups) == 5
    assert sum(group["samples"] for group in groups) == found["samples"]
    means = [group["expected"] for group in groups]
    assert means == sorted(means)
    # Who has no note learns nothing from a film, and that is what is expected.
    assert groups[0]["expected"] < 0.01 > groups[0]["real"]
    assert groups[-1]["expected"] > 0.05 < groups[-1]["real"]


@pytest.mark.parametrize("info", [DEATH, CLASSES, replace(CLASSES, kind="multilabel")])
def test_expected_is_the_mean_over_the_nearest_others(info):
    random = np.random.default_rng(0)

    def answers(n):
        raw = random.random((n, len(info.classes)))
        return raw / raw.sum(1, keepdims=True) if info.kind == "multiclass" else raw

    alike = Told(np.arange(80), answers(80), answers(80))
    before, subjects = answers(7), np.array([3, 5, 100, 101, 102, 103, 104])
    moved, left = expected(info, before, subjects, alike)
    for row in range(7):
        pairs = [np.stack([x, 1 - x]) for x in (before[row], *alike.before)]
        if info.kind == "multiclass":
            pairs = [pair[:1] for pair in pairs]
        apart = [np.square(np.sqrt(pairs[0]) - np.sqrt(pair)).sum() for pair in pairs[1:]]
        near = [i for i in np.argsort(apart) if alike.subjects[i] != subjects[row]][:ALIKE]
        assert len(near) == ALIKE
        odds = log_odds(info, before[row]) + log_odds(info, alike.after[near])
        odds = odds - log_odds(info, alike.before[near])
        after = np.exp(odds) if info.kind == "multiclass" else 1 / (1 + np.exp(-odds))
        after = after / after.sum(1, keepdims=True) if info.kind == "multiclass" else after
        assert moved[row] == pytest.approx(change(info, before[row], after).mean())
        assert left[row] == pytest.approx(uncertainty(info, after).mean())


def test_a_patient_like_one_other_gets_that_ones_change():
    """Log-odds add up: 0.2 that became 0.5 takes 0.5 to 0.8."""
    subjects = np.arange(ALIKE + 1)
    alike = Told(subjects, np.full((ALIKE + 1, 1), 0.2), np.full((ALIKE + 1, 1), 0.5))
    _, after = next(outcomes(DEATH, np.array([[0.5]]), np.array([999]), alike))
    assert after.shape == (1, ALIKE, 1)
    assert after == pytest.approx(0.8)


def test_uncertainty_is_in_bits():
    assert uncertainty(DEATH, np.array([[0.5], [1.0], [0.0]])) == pytest.approx([1, 0, 0])
    quarter = replace(DEATH, kind="multiclass", classes=tuple("abcd"))
    assert uncertainty(quarter, np.full((1, 4), 0.25)) == pytest.approx([2])
    labels = replace(DEATH, kind="multilabel", classes=("a", "b"))
    assert uncertainty(labels, np.array([[0.5, 1.0]])) == pytest.approx([0.5])
