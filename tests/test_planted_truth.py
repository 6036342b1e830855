"""Cross-task synergy on the invented hospital, learned anew: about three minutes on one core.

Readmission is planted as film factor XOR note factor: neither modality alone tells anything.
Findings of films teach the one factor, diagnosis-related groups the other (SPEC 8).
"""

from pathlib import Path
from typing import Any

import pytest

from flexcare.config import read_toml
from flexcare.evaluation.run import evaluate
from flexcare.preparation import prepare
from flexcare.sources.synthetic import simulate
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


@pytest.fixture(scope="module")
def auroc(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """By run and task: AUROC (macro for findings) on the held-out split."""
    folder: Path = tmp_path_factory.mktemp("planted")
    simulate(folder / "hospital", 2000, seed=0)
    tasks = ",".join(RUNS["together"][0])
    prepare("synthetic", folder / "hospital", folder / "store", tasks=tasks, say=lambda line: None)
    settings = read_toml(Path(__file__).parents[1] / "runs" / "demo.toml")
    del settings["objective"]["task_weights"]
    settings["objective"]["task_weights"] = {QUESTION: 1.0, "diagnosis": 1.0}
    out = {}
    for name, (asked, modalities) in RUNS.items():
        chosen: dict[str, Any] = settings | {"tasks": asked, "modalities": modalities}
        run = train(folder / "store", folder / name, settings=chosen, quiet=True)
        result = evaluate(run, baselines=False, resamples=20, say=lambda line: None)
        out[name] = {
            task: found["models"]["flexcare"]["metrics"][metric]["value"]
            for task, found in result["tasks"].items()
            for metric in ("auroc", "macro_auroc")
            if metric in found["models"]["flexcare"]["metrics"]
        }
    return out


def test_questions_together_answer_what_no_single_modality_can(auroc):
    together = auroc["together"][QUESTION]
    for modality in ("film", "note", "series"):
        assert together >= auroc[modality][QUESTION] + MARGIN, auroc


def test_alone_the_question_stays_near_chance_after_as_many_passes(auroc):
    assert auroc["alone"][QUESTION] < 0.65, auroc
    assert auroc["together"][QUESTION] >= auroc["alone"][QUESTION] + MARGIN, auroc


def test_a_question_of_one_modality_loses_nothing(auroc):
    assert auroc["together"]["diagnosis"] >= auroc["film"]["diagnosis"] - NOTHING_LOST, auroc
