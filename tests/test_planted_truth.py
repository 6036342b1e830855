"""Cross-task synergy on the invented hospital, learned anew: about three minutes on one core.

Readmission is planted as film factor XOR note factor: neither modality alone tells anything.
Findings of films teach the one factor, diagnosis-related groups the other (SPEC 8). What the
network learned is then taken apart, and must be what was planted.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexcare.config import read_toml
from flexcare.evaluation.run import evaluate
from flexcare.evaluation.value import value
from flexcare.explain import explain
from flexcare.files import read_json
from flexcare.preparation import prepare
from flexcare.serving.bundle import load_bundle
from flexcare.sources.synthetic import films, simulate, words
from flexcare.store import Store
from flexcare.training.run import train

QUESTION = "readmission"
# name -> (tasks, modalities)
RUNS: dict[str, tuple[list[str], list[str]]] = {
    "together": ([QUESTION, "diagnosis", "phenotyping", "drg"], ["series", "film", "note"]),
    "alone": ([QUESTION], ["series", "film", "note"]),
    "film": ([QUESTION, "diagnosis"], ["film"]),
    "note": ([QUESTION, "drg"], ["note"]),
    "series": ([QUESTION, "phenotyping"], ["series"]),
}
MARGIN = 0.15  # AUROC by which the network must beat every single modality
NOTHING_LOST = 0.03  # AUROC within which two ways to learn the same question count as equal


# Findings that follow the film's factor alone; of the other nine most are planted coins.
OF_THE_FILM = ("Atelectasis", "Consolidation", "Lung Opacity", "Pleural Effusion", "Pneumonia")


def of_the_film(result: dict[str, Any]) -> float:
    """Mean AUROC of the findings that the film tells."""
    classes = result["tasks"]["diagnosis"]["models"]["flexcare"]["classes"]
    found = [c["auroc"] for c in classes if c["name"] in OF_THE_FILM]
    assert len(found) == len(OF_THE_FILM)
    return float(np.mean([v["value"] if isinstance(v, dict) else v for v in found]))


# What the answers hang on; a phenotype hangs on all three.
DECIDED_BY = {"diagnosis": ["film"], "drg": ["note"], QUESTION: ["film", "note"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the hospital, the store and the runs are."""
    return tmp_path_factory.mktemp("planted")


@pytest.fixture(scope="module")
def runs(folder) -> dict[str, Path]:
    """The run folders by name."""
    simulate(folder / "hospital", 2000, seed=0)
    tasks = ",".join(RUNS["together"][0])
    prepare("synthetic", folder / "hospital", folder / "store", tasks=tasks, say=lambda line: None)
    settings = read_toml(Path(__file__).parents[1] / "runs" / "demo.toml")
    settings["objective"]["task_weights"] = {QUESTION: 1.0, "diagnosis": 1.0}
    out = {}
    for name, (asked, modalities) in RUNS.items():
        chosen: dict[str, Any] = settings | {"tasks": asked, "modalities": modalities}
        out[name] = train(folder / "store", folder / name, settings=chosen, quiet=True)
    return out


@pytest.fixture(scope="module")
def judged(runs) -> dict[str, dict[str, Any]]:
    """The evaluation of each run on the held-out split."""
    return {
        name: evaluate(run, baselines=False, resamples=20, say=lambda line: None)
        for name, run in runs.items()
    }


@pytest.fixture(scope="module")
def valued(runs) -> dict[str, Any]:
    """What each modality would tell, by question: of the run on all of them."""
    return value(runs["together"], say=lambda line: None)["tasks"]


@pytest.fixture(scope="module")
def auroc(judged) -> dict[str, float]:
    """By run: AUROC of the question."""
    return {
        name: result["tasks"][QUESTION]["models"]["flexcare"]["metrics"]["auroc"]["value"]
        for name, result in judged.items()
    }


def test_questions_together_answer_what_no_single_modality_can(auroc):
    for modality in ("film", "note", "series"):
        assert auroc["together"] >= auroc[modality] + MARGIN, auroc


def test_alone_the_question_stays_near_chance_after_as_many_passes(auroc):
    assert auroc["alone"] < 0.65, auroc
    assert auroc["together"] >= auroc["alone"] + MARGIN, auroc


@pytest.mark.parametrize("task", DECIDED_BY)
def test_a_modality_is_worth_most_where_it_decides(valued, task):
    real = {name: one["having"]["change"]["real"] for name, one in valued[task].items()}
    foretold = {name: one["having"]["change"]["expected"] for name, one in valued[task].items()}
    for own in DECIDED_BY[task]:
        for other in real.keys() - DECIDED_BY[task]:
            assert real[own] > 3 * real[other], real
            assert foretold[own] > 3 * foretold[other], foretold


def test_what_a_modality_is_expected_to_tell_is_what_it_tells(valued):
    for task, names in DECIDED_BY.items():
        for name in names:
            found = valued[task][name]["having"]["change"]
            assert abs(found["difference"]) < 0.2 * found["real"], (task, name, found)


def test_a_question_of_one_modality_loses_nothing(judged):
    together, alone = of_the_film(judged["together"]), of_the_film(judged["film"])
    assert alone > 0.9
    assert together >= alone - NOTHING_LOST


# Answers that one factor decides, which one modality alone tells.
UNIQUE = {
    ("phenotyping", "Diabetes mellitus with complications"): "series",
    ("phenotyping", "Chronic kidney disease"): "note",
    ("diagnosis", "Lung Opacity"): "film",
}
ASKED = 12  # samples a question


def taken_apart(folder, task: str, answer: str | None, **given: Any) -> list[dict[str, Any]]:
    """Explanations of some held-out samples of which everything is known."""
    store, bundle = Store(folder / "store"), load_bundle(folder / "together" / "bundle")
    has = [store.samples[f"has_{name}"].to_pylist() for name in ("series", "film", "note")]
    rows = [row for row in store.rows(task, "held_out").tolist() if all(h[row] for h in has)]
    samples = [store.samples["sample_id"][row].as_py() for row in rows[:ASKED]]
    assert len(samples) == ASKED
    found = [explain(bundle, store, sample, answer=answer, **given) for sample in samples]
    return [one["tasks"][task] for one in found]


def mean_sizes(parts: list[dict[str, Any]]) -> dict[str, float]:
    """By modality the mean absolute Shapley value."""
    return {
        name: float(np.mean([abs(part["modalities"][name]) for part in parts]))
        for name in ("series", "film", "note")
    }


@pytest.mark.parametrize(("task", "answer"), UNIQUE)
def test_the_modality_that_was_planted_adds_most(judged, folder, task, answer):
    planted = read_json(folder / "hospital" / "truth" / "truth.json", "the truth")
    needs, name = planted["tasks"][task]["labels"][answer]["needs"], UNIQUE[task, answer]
    assert needs[name] == "unique"
    sizes = mean_sizes(taken_apart(folder, task, answer))
    others = [size for other, size in sizes.items() if other != name]
    assert sizes[name] > 2 * max(others), sizes


def test_of_an_exclusive_or_both_modalities_matter_and_the_third_does_not(judged, folder):
    sizes = mean_sizes(taken_apart(folder, QUESTION, None))
    assert min(sizes["film"], sizes["note"]) > 2 * sizes["series"], sizes


def test_the_variables_that_were_planted_matter_most(judged, folder):
    (task, answer), *_ = UNIQUE
    parts = taken_apart(folder, task, answer, deletion=True)
    sums = Counter()
    for part in parts:
        for detail in part["details"]["series"]["details"]:
            sums[detail["what"]] += abs(detail["contribution"])
    assert {name for name, _ in sums.most_common(2)} == {"glucose", "temperature"}, sums
    assert all(part["check"]["complete"] for part in parts)
    areas = [part["deletion"]["area"] for part in parts]
    assert np.mean(areas) > 0.5, areas
    assert min(areas) > 0, areas


def test_the_patches_that_were_planted_matter_most(judged, folder):
    *_, (task, answer) = UNIQUE
    reach = np.array(films.STRAY) + 17  # an opacity strays, and is about so wide
    sizes: dict[bool, list[float]] = {True: [], False: []}
    for part in taken_apart(folder, task, answer):
        for detail in part["details"]["film"]["details"]:
            row, column, count = map(int, re.findall(r"\d+", detail["where"]))
            centre = (np.array([row, column]) - 0.5) / count * films.SIDE
            near = any((abs(centre - lung) < reach).all() for lung in np.array(films.LUNGS))
            sizes[near].append(abs(detail["contribution"]))
    assert np.mean(sizes[True]) > 2 * np.mean(sizes[False])


def test_the_words_that_were_planted_matter_most(judged, folder):
    _, (task, answer), _ = UNIQUE
    told = {word.lower() for side in words.HISTORY["t"] for text in side for word in text.split()}
    sizes: dict[bool, list[float]] = {True: [], False: []}
    for part in taken_apart(folder, task, answer, show_text=True):
        for detail in part["details"]["note"]["details"]:
            sizes[detail["value"] in told].append(abs(detail["contribution"]))
    assert np.mean(sizes[True]) > 2 * np.mean(sizes[False])
