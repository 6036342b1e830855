"""Modalities taken away: the mix is exact, and who loses what is as it is said."""

import numpy as np
import pytest
import torch

from flexcare.config import ModelConfig
from flexcare.errors import UserError
from flexcare.evaluation.compare import Judge
from flexcare.evaluation.subsets import (
    HOW,
    RATES,
    every,
    has,
    judged,
    losing,
    mixed,
    severity,
    subsets,
)
from flexcare.evaluation.value import Asker
from flexcare.models.flexcare import FlexCare
from flexcare.serving.bundle import Bundle
from flexcare.serving.predictor import Predictor
from prepared import quiet
from small_store import TINY, small_store

NAMES = ("film", "note", "series")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("data") / "store", train=60)


@pytest.fixture(scope="module")
def bundle(store):
    """Strong random weights, so that everything known shows in the answers."""
    torch.manual_seed(0)
    config = ModelConfig(**TINY)
    model = FlexCare(config, list(store.modalities.values()), list(store.tasks.values())).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return Bundle(model, model.modalities, model.tasks, store.manifest["scaling"], {})


@pytest.fixture(scope="module")
def tables(store, bundle):
    predictor = Predictor(bundle, say=quiet)
    return {
        without: predictor.predict_store(store, "train", without=without)
        for without in every(NAMES).values()
    }


@pytest.fixture(scope="module")
def found(tables, store):
    return judged(tables, NAMES, store.tasks, resamples=30)


def test_up_to_five_modalities_every_set_is_tried():
    assert subsets(NAMES) == {
        "film only": ("note", "series"),
        "note only": ("film", "series"),
        "series only": ("film", "note"),
        "without series": ("series",),
        "without note": ("note",),
        "without film": ("film",),
    }
    assert len(every(tuple("abcde"))) == 2**5 - 1
    assert len(every(tuple("abcdef"))) == 1 + 6 + 6
    assert every(("film",)) == {"all": (), "without film": ("film",)}
    assert all((name,) in every(tuple("abc")).values() for name in "abc")


@pytest.mark.parametrize("modality", NAMES)
def test_a_mix_of_two_tables_is_what_the_network_says_when_some_lack_it(
    store, bundle, tables, modality
):
    full = tables[()]
    lost, _ = losing(full, modality, 0.5, np.zeros(len(full)))
    assert 0 < lost.sum() < has(full, modality).sum()
    table, asker = mixed(full, tables[(modality,)], lost), Asker(bundle, store)
    place = {name: row for row, name in enumerate(store.samples["sample_id"].to_pylist())}
    for name, info in store.tasks.items():
        mine = [row["task"] == name for row in full.select(["task"]).to_pylist()]
        rows = np.array([place[i] for i in full["sample_id"].filter(mine).to_pylist()])
        known = np.ones((len(rows), 3), bool)
        known[:, NAMES.index(modality)] = ~lost[mine]
        expected = asker.answers(info, rows, known)
        answers = np.stack(table["probabilities"].filter(mine).to_numpy())
        np.testing.assert_allclose(answers, expected, rtol=0, atol=1e-6)
        whole = np.stack(full["probabilities"].filter(mine).to_numpy())
        assert abs(whole - answers).max() > 1e-3
    assert has(table, modality).tolist() == (has(full, modality) & ~lost).tolist()


def test_tables_of_other_samples_are_not_mixed(tables):
    full = tables[()]
    with pytest.raises(ValueError, match="other samples"):
        mixed(full, full.take(list(range(len(full)))[::-1]), np.zeros(len(full), bool))


@pytest.mark.parametrize("how", HOW)
def test_subjects_lose_a_modality_whole_and_for_good(store, tables, how):
    full = tables[()]
    subjects, having = full["subject_id"].to_numpy(), has(full, "film")
    sick = HOW[how] * severity(full, store.tasks)
    before = np.zeros(len(full), bool)
    for rate in RATES:
        lost, people = losing(full, "film", rate, sick)
        assert people == len(set(subjects[having]))
        assert len(set(subjects[lost])) == round(rate * people)
        assert not (lost & ~having).any()
        assert not set(subjects[lost]) & set(subjects[having & ~lost])
        assert (lost | ~before).all()
        before = lost
    assert before.tolist() == having.tolist()


def test_the_sicker_lose_it_more_often_and_chance_does_not_care(store, tables):
    full = tables[()]
    sick, having = severity(full, store.tasks), has(full, "note")
    means = {}
    for how, weight in HOW.items():
        lost, _ = losing(full, "note", 0.5, weight * sick)
        means[how] = sick[lost].mean() - sick[having & ~lost].mean()
    assert means["sicker first"] > 0.15
    assert abs(means["at random"]) < 0.1


def test_severity_is_a_rank_of_what_the_model_says(store, tables):
    table, tasks = tables[()], {"death": store.tasks["death"]}
    own = table.filter([name == "death" for name in table["task"].to_pylist()])
    found = severity(own, tasks)
    chance = np.stack(own["probabilities"].to_numpy())[:, 0]
    assert (np.argsort(found) == np.argsort(chance)).all()
    assert (found.min(), found.max()) == (1 / len(own), 1)
    # Subjects whom no such question asks about are neither sick nor well.
    assert set(severity(own, {"stay": store.tasks["stay"]})) == {0.5}


def test_all_differ_from_all_by_nothing_and_the_rest_as_paired(tables, found, store):
    sets = {row["subset"]: row for row in found["subsets"]["subsets"]}
    judge = Judge(tables[()], store.tasks, 30)
    full, less = judge.scores(tables[()]), judge.scores(tables[("film",)])
    for task, metrics in sets["all"]["scores"].items():
        for metric, value in metrics.items():
            assert value["difference"] == {"value": 0, "low": 0, "high": 0}
            told = sets["without film"]["scores"][task][metric]
            gap = (less[task, metric] - full[task, metric]).to_dict()
            assert told == less[task, metric].to_dict() | {"difference": gap}
    assert sets["all"]["lose"] == {}
    for name in store.tasks:
        rows = tables[()].filter([task == name for task in tables[()]["task"].to_pylist()])
        assert sets["without film"]["lose"][name] == has(rows, "film").sum()


def test_a_grid_ends_where_everybody_has_lost_it(found):
    sets = {row["subset"]: row["scores"] for row in found["subsets"]["subsets"]}
    rows = found["grid"]["grid"]
    assert len(rows) == len(NAMES) * len(HOW) * len(RATES)
    for row in rows:
        if row["rate"] == 1:
            assert row["losing"] == row["having"]
            assert row["scores"] == sets[f"without {row['modality']}"]


def test_a_cell_of_the_grid_is_the_measure_of_its_mix(tables, found, store):
    row = next(
        r for r in found["grid"]["grid"]
        if (r["modality"], r["how"], r["rate"]) == ("note", "sicker first", 0.5)
    )  # fmt: skip
    full = tables[()]
    lost, _ = losing(full, "note", 0.5, severity(full, store.tasks))
    score = Judge(full, store.tasks, 30).scores(mixed(full, tables[("note",)], lost))
    told = row["scores"]["findings"]["macro_average_precision"]
    assert told["value"] == score["findings", "macro_average_precision"].to_dict()["value"]


def test_one_modality_alone_is_judged_too(store, bundle, tables):
    predictor = Predictor(bundle, say=quiet)
    found = judged(
        {
            (): predictor.predict_store(store, "train", without=("note", "series")),
            ("film",): predictor.predict_store(store, "train", without=NAMES),
        },
        ("film",),
        store.tasks,
        resamples=5,
    )
    assert [row["subset"] for row in found["subsets"]["subsets"]] == ["all", "without film"]
    assert len(found["grid"]["grid"]) == len(HOW) * len(RATES)


def test_nothing_to_judge_is_refused(store, tables):
    with pytest.raises(UserError, match="nothing to judge"):
        judged({key: table[:0] for key, table in tables.items()}, NAMES, store.tasks, 5)
