"""The whole line by its commands, and commands typed wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flexcare.cli import main
from hospital import Hospital
from prepared import everything

SMALL = """
[model]
hidden = 16
layers = 1
heads = 2
[training]
epochs = 1
schedule = "round_robin"
"""
TASKS = "in_hospital_mortality,phenotyping"


def flexcare(*words: object) -> int:
    """Exit code of a command."""
    try:
        main([str(word) for word in words])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An invented hospital, its store, an evaluated run and its report."""
    place: Path = tmp_path_factory.mktemp("line")
    (place / "small.toml").write_text(SMALL)
    assert flexcare("simulate", "--subjects", 60, "--seed", 1, "--out", place / "h") == 0
    line = ("prepare", "synthetic", place / "h", "--out", place / "store", "--tasks", TASKS)
    assert flexcare(*line) == 0
    line = ("train", place / "store", "--out", place / "run", "--config", place / "small.toml")
    assert flexcare(*line) == 0
    assert flexcare("evaluate", place / "run", "--resamples", 20) == 0
    assert flexcare("report", place / "run") == 0
    return place


def test_the_line_leaves_what_it_says(folder):
    run = folder / "run"
    names = {p.stem for p in (run / "predictions" / "held_out").iterdir()}
    assert names == {"flexcare", "trees", "logistic", "majority"}
    tuning = pq.read_table(run / "predictions" / "tuning" / "flexcare.parquet")
    assert set(tuning["split"].to_pylist()) == {"tuning"}
    page = (run / "report.html").read_text()
    assert "<html" in page
    assert "flexcare is not calibrated: fewer than 10 tuning subjects" in page  # of sixty patients
    assert "Sets of answers" in page


def test_modalities_taken_away_are_told_and_stand_in_the_report(folder, capsys):
    run = folder / "run"
    assert flexcare("missing", run, "--resamples", 20) == 0
    assert "series only" in capsys.readouterr().out
    names = {path.name for path in (run / "missing").iterdir()}
    assert names >= {"subsets.json", "grid.json", "grid.svg"}
    assert flexcare("report", run) == 0
    assert "without film" in (run / "report.html").read_text()
    assert flexcare("missing", run, "--split", "tuning", "--resamples", 2) == 0
    assert flexcare("report", run) == 0  # which is of held_out
    assert "without film" not in (run / "report.html").read_text()


def test_the_value_of_a_modality_is_told_of_a_split_and_of_one_sample(folder, capsys):
    run = folder / "run"
    assert flexcare("value", run) == 0
    assert "film" in capsys.readouterr().out
    found = json.loads((run / "missing" / "value.json").read_text())
    assert found["tasks"].keys() == set(TASKS.split(","))
    samples = pq.read_table(folder / "store" / "samples.parquet")
    sample = samples.filter([not there for there in samples["has_film"].to_pylist()])["sample_id"][
        0
    ]
    assert flexcare("value", run, "--sample", sample) == 0
    assert "film" in capsys.readouterr().out
    assert flexcare("value", run, "--sample", "drg/1") == 2
    assert "answers no sample 'drg/1'" in capsys.readouterr().err


def test_judging_a_run_names_the_groups_that_it_serves_worse(folder, monkeypatch, capsys):
    found = json.loads((folder / "run" / "evaluation" / "held_out.json").read_text())
    name, task = next(iter(found["tasks"].items()))
    worse = {"key": "sex", "group": "F", "number": "coverage", "value": 0.5, "low": 0, "high": 0.6}
    next(iter(task["models"].values()))["under_served"] = [worse]
    monkeypatch.setattr("flexcare.evaluation.run.evaluate", lambda *given, **settings: found)
    assert flexcare("evaluate", folder / "run") == 0
    assert f"question of the report: {name.replace('_', ' ')} (sex F)" in capsys.readouterr().out


def test_models_are_judged_on_the_same_samples(folder):
    where = folder / "run" / "predictions" / "held_out"
    tables = [
        pq.read_table(where / f"{n}.parquet") for n in ("flexcare", "trees", "logistic", "majority")
    ]
    ids = [sorted(table["sample_id"].to_pylist()) for table in tables]
    assert all(one == ids[0] != [] for one in ids)


def test_a_bundle_answers_a_store_and_the_raw_folder_alike(folder, tmp_path):
    bundle = folder / "run" / "bundle"
    first, second = tmp_path / "a.parquet", tmp_path / "b.parquet"
    assert flexcare("predict", bundle, folder / "store", "--out", first) == 0
    line = ("predict", bundle, folder / "h", "--source", "synthetic", "--out", second)
    assert flexcare(*line) == 0
    assert pq.read_table(first).equals(pq.read_table(second))


def test_an_ensemble_of_seeds_answers_a_store_and_the_raw_folder_alike(folder, tmp_path, capsys):
    line = ("train", folder / "store", "--out", tmp_path / "run", "--seed", 1)
    assert flexcare(*line, "--config", folder / "small.toml") == 0
    line = ("ensemble", folder / "run", tmp_path / "run" / "bundle", "--out", tmp_path / "both")
    assert flexcare(*line) == 0
    first, second = tmp_path / "a.parquet", tmp_path / "b.parquet"
    assert flexcare("predict", tmp_path / "both", folder / "store", "--out", first) == 0
    line = ("predict", tmp_path / "both", folder / "h", "--source", "synthetic", "--out", second)
    assert flexcare(*line) == 0
    found = pq.read_table(first)
    assert found.equals(pq.read_table(second))
    assert found["model"].unique().to_pylist() == ["ensemble"]
    before = (tmp_path / "both" / "bundle.json").read_bytes()
    assert flexcare("ensemble", folder / "run", tmp_path / "run", "--out", tmp_path / "both") == 2
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "both" / "bundle.json").read_bytes() == before


@pytest.mark.parametrize("what", ["store", "run", "run/bundle"])
def test_show_explains(folder, what, capsys):
    assert flexcare("show", folder / what) == 0
    assert "phenotyping" in capsys.readouterr().out


def test_show_explains_predictions(folder, capsys):
    path = folder / "run" / "predictions" / "held_out" / "trees.parquet"
    assert flexcare("show", path) == 0
    assert "trees" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("prepar",), "prepare"),
        (("prepare", "mimic-4", "x", "--out", "y"), "mimic-iv"),
        (("prepare", "mimic-iv", "x", "--out", "y", "--preset", "papper"), "'paper'"),
        (("prepare", "mimic-iv", "x", "--out", "y", "--tasks", "readmision"), "'readmission'"),
        (("train", "nowhere", "--out", "y"), "store"),
        (("train", "nowhere", "--out", "y", "--epoch", "3"), "--epochs"),
        (("evaluate", "nowhere"), "run"),
        (("missing", "nowhere"), "run"),
        (("value", "nowhere"), "run"),
        (("report", "nowhere"), "run"),
        (("predict", "nowhere", "x", "--out", "y"), "bundle"),
        (("ensemble", "nowhere", "neither", "--out", "y"), "bundle"),
        (("ensemble", "nowhere", "--out", "y"), "at least two"),
        (("explain", "nowhere", "x", "--sample", "y"), "bundle"),
        (("import-authors", "nowhere", "--out", "y"), "nowhere"),
        (("show", "nowhere"), "nowhere"),
        (("simulate", "--subjects", "many", "--out", "y"), "many"),
    ],
)
def test_a_mistake_is_one_clear_message(words, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert flexcare(*words) != 0
    captured = capsys.readouterr()
    assert told in captured.err + captured.out
    assert "Traceback" not in captured.err + captured.out
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_where(capsys):
    assert flexcare("show", "nowhere", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_existing_result_is_not_touched(folder, capsys):
    before = (folder / "store" / "manifest.json").read_bytes()
    assert flexcare("prepare", "synthetic", folder / "h", "--out", folder / "store") == 2
    assert "exists already" in capsys.readouterr().err
    assert (folder / "store" / "manifest.json").read_bytes() == before


def test_help_needs_no_torch():
    code = (
        "import sys; from flexcare.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit('torch' in sys.modules or 'duckdb' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize("command", ["simulate", "prepare", "show", "report"])
def test_commands_without_a_network_never_import_torch(folder, tmp_path, command):
    arguments = {
        "simulate": ["--subjects", "20", "--no-films", "--out", tmp_path / "h"],
        "prepare": ["synthetic", folder / "h", "--tasks", "readmission", "--out", tmp_path / "s"],
        "show": [folder / "run"],
        "report": [folder / "run"],
    }
    code = (
        "import sys; from flexcare.cli import main; main(sys.argv[1:]);"
        "sys.exit('torch' in sys.modules)"
    )
    line = [sys.executable, "-c", code, command, *map(str, arguments[command])]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_python_uses_the_same_words(folder, tmp_path):
    import flexcare as package

    hospital: Hospital = everything()
    raw = hospital.write(tmp_path / "h")
    store = package.prepare(
        "mimic-iv", raw, tmp_path / "s", tasks="phenotyping", say=lambda s: None
    )
    assert store == tmp_path / "s"
    settings = {"model": {"hidden": 16, "layers": 1}}
    words = {"tasks": ["phenotyping"], "modalities": ["series"], "epochs": 1, "seed": 3}
    run = package.train(store, tmp_path / "r", settings=settings, quiet=True, **words)
    result = package.evaluate(run, "train", baselines=False, resamples=5, say=lambda s: None)
    assert list(result["tasks"]) == ["phenotyping"]
    assert result["tasks"]["phenotyping"]["models"]["flexcare"]["conformal"]
    result = package.evaluate(run, "tuning", baselines=False, resamples=5, say=lambda s: None)
    assert result["tasks"]["phenotyping"]["models"]["flexcare"]["conformal"] is None
    assert package.load(folder / "run" / "bundle").predict({}).modalities == "none"
