"""A protocol from raw data to its table, by its command."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import flexcare.reproduce.work as work
from flexcare.cli import main
from flexcare.errors import UserError
from flexcare.reproduce import reproduce
from flexcare.reproduce.protocol import read_protocol
from flexcare.sources.synthetic import simulate

TASKS = ("in_hospital_mortality", "phenotyping")
PROTOCOL = """
about = "Invented patients."
first = "flexcare"
resamples = 20
every_subset = true
[data]
source = "synthetic"
path = "hospital"
tasks = ["in_hospital_mortality", "phenotyping"]
preparation = { folds = 2 }
[settings.model]
hidden = 16
layers = 1
[settings.training]
epochs = 1
schedule = "round_robin"
[models.flexcare]
kind = "network"
seeds = [0, 1]
[models.one_seed]
kind = "network"
[models.alone]
kind = "network"
alone = true
[models.trees]
kind = "trees"
[models.majority]
kind = "majority"
"""
KEYS = {"protocol", "task", "model", "metric", "value", "low", "high", "n", "command", "date"}
SUBSETS = ("note only", "series only", "all")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The folder of an invented hospital and the protocol about it."""
    place: Path = tmp_path_factory.mktemp("data")
    simulate(place / "hospital", 60, 1, films=False)
    return place


@pytest.fixture(scope="module")
def done(data, tmp_path_factory) -> tuple[Path, list[str]]:
    """The work of the protocol, with its results, and what was said."""
    out: Path = tmp_path_factory.mktemp("done")
    return out, run(data, out)


def run(data: Path, out: Path, **options: Any) -> list[str]:
    """What was said."""
    path = out / "runs" / "tiny.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(PROTOCOL)
    said: list[str] = []
    reproduce(path, data=data, out=out / "work", results=out, say=said.append, **options)
    return said


def results(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((out / "results.json").read_text())
    return found


def entries(out: Path) -> list[dict[str, Any]]:
    """All that does not depend on the machine."""
    return [{k: v for k, v in one.items() if k != "minutes"} for one in results(out)]


def test_every_model_is_judged_on_every_subject_once(done):
    out, _ = done
    tables = {p.stem: pq.read_table(p) for p in (out / "work/pooled/held_out").iterdir()}
    assert set(tables) == {"flexcare", "one_seed", "alone", "trees", "majority"}
    ids = {name: sorted(table["sample_id"].to_pylist()) for name, table in tables.items()}
    assert all(own == ids["trees"] for own in ids.values())
    stores = list((out / "work/stores").iterdir())
    every = set().union(
        *(pq.read_table(s / "samples.parquet")["sample_id"].to_pylist() for s in stores)
    )
    assert {one.split("#")[0] for one in ids["trees"]} == every
    assert len(ids["trees"]) == len(every)


def test_the_table_has_what_it_says(done):
    out, _ = done
    found = entries(out)
    assert {key for one in results(out) for key in one} == KEYS | {"minutes"}
    told = {(one["task"], one["model"], one["metric"]) for one in found}
    for task, metric in zip(TASKS, ("average_precision", "macro_average_precision"), strict=True):
        for model in ("flexcare", "trees", "flexcare minus trees", "flexcare, note only"):
            assert (task, model, metric) in told
    assert ("mean over tasks", "flexcare minus alone", "own_metric") in told
    assert len(told) == len(found)
    page = (out / "results.md").read_text()
    assert all(f"| {name} |" in page for name in ("flexcare", "trees", *SUBSETS))
    assert "\n    flexcare reproduce runs/tiny.toml --data DATA\n" in page


def test_seeds_tune_on_different_subjects_and_hold_out_the_same(done):
    out, _ = done
    splits = [
        {name: set(table.filter(pc.equal(table["split"], name))["subject_id"].to_pylist())
         for name in ("tuning", "held_out")}
        for table in (pq.read_table(s / "samples.parquet") for s in (out / "work/stores").iterdir())
    ]  # fmt: skip
    assert len(splits) == 2 * 2  # folds x seeds
    for n, one in enumerate(splits):
        for other in splits[:n]:
            assert not one["tuning"] & other["tuning"]
    assert len({frozenset(one["held_out"]) for one in splits}) == 2


def test_what_is_taken_away_is_not_used(done):
    out, _ = done
    found = [p for p in (out / "work/predictions").iterdir() if "without-series" in p.name]
    assert len(found) == 2 * 2  # folds x seeds
    used = {m for p in found for m in pq.read_table(p)["modalities"].unique().to_pylist()}
    assert used <= {"note", "none"}


def test_a_difference_is_that_of_the_values(done):
    out, _ = done
    values = {(o["task"], o["metric"], o["model"]): o["value"] for o in entries(out)}
    for (task, metric, model), gap in values.items():
        if " minus " in model and gap is not None:
            one, two = (values[task, metric, m] for m in model.split(" minus "))
            assert gap == pytest.approx(one - two, abs=2e-6)


def test_equal_settings_are_trained_once(done):
    out, _ = done
    assert len(list((out / "work/runs").iterdir())) == 2 * (2 + 2)  # folds x (seeds + tasks alone)


def test_an_interrupted_protocol_goes_on_to_the_same_table(data, done, tmp_path, monkeypatch):
    calls, train = [], work.train

    def begun(store: Path, out: Path, **options: Any) -> None:
        out.mkdir(parents=True)
        (out / "config.json").touch()
        raise KeyboardInterrupt

    def stopped(store: Path, out: Path, **options: Any) -> Path:
        calls.append(options["resume"])
        train(store, out, **options)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return out

    for interruption in (begun, stopped):
        monkeypatch.setattr(work, "train", interruption)
        with pytest.raises(KeyboardInterrupt):
            run(data, tmp_path)
    assert not (tmp_path / "results.json").exists()
    run(data, tmp_path)
    assert calls == [False] * 3 + [True] + [False] * 5
    assert entries(tmp_path) == entries(done[0])


def test_what_stands_is_not_made_again(data, done, tmp_path, monkeypatch):
    before = entries(done[0])
    for name in ("prepare", "train", "load"):
        monkeypatch.setattr(work, name, None)
    run(data, done[0])
    assert entries(done[0]) == before


def test_every_model_s_time_holds_the_preparation(data, tmp_path):
    (tmp_path / "copy.py").write_text("import shutil, sys\nshutil.copytree(*sys.argv[1:])\n")
    path = tmp_path / "tiny.toml"
    path.write_text(PROTOCOL.replace('path = "hospital"', 'path = "hospital"\nmake = "copy.py"'))
    protocol = read_protocol(path)
    mine = work.Work.begin(protocol, path, data, tmp_path / "work", str)
    for model in protocol.models.values():
        mine.used.clear()
        mine.store(model, (0, 0))
        known = json.loads((tmp_path / "work/seconds.json").read_text())
        assert len(known) == 2  # the tables and the store
        assert mine.seconds == pytest.approx(sum(known.values()))
        assert mine.seconds > 0


def test_other_protocols_keep_their_results(data, done, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(done[0], out)
    known = json.loads((out / "results.json").read_text())
    others = [{"protocol": "another", "value": 1}]
    (out / "results.json").write_text(json.dumps(others + known))
    page = (out / "results.md").read_text()
    (out / "results.md").write_text(page + "\n## another\nIts table.\n")
    run(data, out)
    after = json.loads((out / "results.json").read_text())
    assert after[0] == others[0]
    assert [one for one in after if one["protocol"] == "tiny"] == known
    page = (out / "results.md").read_text()
    assert page.index("## another\nIts table.\n") < page.index("## tiny\n")
    assert page.count("\n## ") == 2


def test_looking_at_the_tuning_split_publishes_nothing(data, done):
    out, _ = done
    before = (out / "results.json").read_bytes(), (out / "results.md").read_bytes()
    run(data, out, split="tuning")
    assert ((out / "results.json").read_bytes(), (out / "results.md").read_bytes()) == before
    tables = [pq.read_table(p) for p in (out / "work/pooled/tuning").iterdir()]
    assert {s for table in tables for s in table["split"].unique().to_pylist()} == {"tuning"}
    assert (out / "work/tuning/results.json").exists()


def test_one_row_is_repeated_by_its_command(data, done, tmp_path):
    rows = {tuple(one[k] for k in ("task", "model", "metric")): one for one in entries(done[0])}
    command = {one["model"]: one["command"] for one in rows.values()}
    assert command["trees"].endswith(" --models trees")
    assert command["flexcare minus trees"].endswith(" --models flexcare,trees")
    run(data, tmp_path, models=["trees"])
    assert not (tmp_path / "results.json").exists()
    again = entries(tmp_path / "work" / "held_out")
    assert again == [one for one in entries(done[0]) if one["model"] == "trees"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("epochs = 1", "epoch = 1", "'settings.training.epoch'"),
        ("alone = true", "allone = true", "'models.alone.allone'"),
        ("alone = true", "allone = true", "models.NAME.alone"),
        ("epochs = 1", "epochs = 0", "settings.training.epochs = 0"),
        ("seeds = [0, 1]", "seeds = []", "models.flexcare.seeds"),
        ("seeds = [0, 1]", "seeds = [-1]", "models.flexcare.seeds.0 = -1"),
        ("folds = 2", "folds = 1", "data.preparation.folds"),
        ('kind = "trees"', 'kind = "tree"', "'trees'"),
        ("alone = true", 'settings.network = "gru"', "'gru_d'"),
        ('source = "synthetic"', 'source = "sinthetic"', "'synthetic'"),
        ('first = "flexcare"', 'first = "flexcar"', "'flexcare'"),
        ('first = "flexcare"', 'first = "trees"', "every_subset"),
        ('first = "flexcare"', "", "first = nothing\n"),
    ],
)
def test_a_wrong_protocol_is_refused_before_any_work(old, new, told, tmp_path):
    assert old in PROTOCOL
    (tmp_path / "tiny.toml").write_text(PROTOCOL.replace(old, new))
    with pytest.raises(UserError) as error:
        reproduce(tmp_path / "tiny.toml", data=tmp_path, out=tmp_path / "work")
    assert told in str(error.value)
    assert not (tmp_path / "work").exists()


def test_without_data_it_is_said_how_to_name_them(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("FLEXCARE_OPEN_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(PROTOCOL)
    with pytest.raises(SystemExit):
        main(["reproduce", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "work")])
    assert "--data" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["reproduce", str(tmp_path / "tiny.toml"), "--data", str(tmp_path)])
    assert "no hospital" in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["tiny.toml"]


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "runs").glob("*.toml")))
def test_the_protocols_of_the_package_can_be_read(path):
    if path.stem != "demo":  # settings of `flexcare train`
        protocol = read_protocol(path)
        script = protocol.data.make
        assert not script or (path.parent / script).is_file()
