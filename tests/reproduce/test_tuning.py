"""Settings are searched by the tuning split alone, and taken over by the protocol's table."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import average_precision_score

import flexcare.reproduce.work as work
from flexcare.cli import main
from flexcare.config import LogisticConfig
from flexcare.errors import UserError
from flexcare.reproduce import reproduce, tune
from flexcare.sources.synthetic import simulate
from flexcare.store import Store

PROTOCOL = """
first = "flexcare"
resamples = 20
[data]
source = "synthetic"
path = "hospital"
tasks = ["readmission", "phenotyping"]
preparation = { folds = 2 }
repeats = 2
[settings.model]
hidden = 16
layers = 1
[settings.training]
epochs = 1
schedule = "round_robin"
[models.flexcare]
kind = "network"
seeds = [0, 1]
[models.trees]
kind = "trees"
settings.min_data_in_leaf = 2
settings.modalities = ["series"]
[models.majority]
kind = "majority"
[tuning]
trials = 4
[tuning.network]
training.learning_rate = [1e-3, 1e-2]
model.dropout = [0.1, 0.2]
[tuning.trees]
num_leaves = [2, 15]
lambda_l2 = [0, 10]
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The folder of an invented hospital."""
    place: Path = tmp_path_factory.mktemp("data")
    simulate(place / "hospital", 60, 1, films=False)
    return place


@pytest.fixture(scope="module")
def done(data, tmp_path_factory) -> Path:
    """A search of all models that have something to try."""
    out: Path = tmp_path_factory.mktemp("done")
    search(data, out)
    return out


@pytest.fixture
def copied(done, tmp_path) -> Path:
    """The same, to be changed."""
    return shutil.copytree(done, tmp_path / "copy")


def written(out: Path, text: str = PROTOCOL) -> Path:
    path = out / "runs" / "tiny.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def search(data: Path, out: Path, text: str = PROTOCOL, **options: Any) -> list[str]:
    """What was said."""
    said: list[str] = []
    tune(written(out, text), data=data, out=out / "work", say=said.append, **options)
    return said


def table(data: Path, out: Path, text: str = PROTOCOL, **options: Any) -> list[str]:
    """What was said."""
    said: list[str] = []
    path = written(out, text)
    reproduce(path, data=data, out=out / "work", results=out, say=said.append, **options)
    return said


def found(out: Path) -> dict[str, Any]:
    models: dict[str, Any] = json.loads((out / "runs/tuned/tiny.json").read_text())["models"]
    return models


def values(out: Path) -> dict[str, list[tuple[Any, Any]]]:
    """By model the settings and values of its trials."""
    trials = {name: one["trials"] for name, one in found(out).items()}
    return {name: [(t["settings"], t["value"]) for t in some] for name, some in trials.items()}


def predictions(out: Path) -> list[Path]:
    return sorted((out / "work/predictions").iterdir())


def test_every_model_has_the_same_number_of_trials_and_begins_as_it_stands(done):
    models = found(done)
    assert set(models) == {"flexcare", "trees"}
    for one in models.values():
        assert len(one["trials"]) == 4
        assert one["trials"][0]["settings"] == {}
        assert all(trial["seconds"] > 0 for trial in one["trials"])
        best = max(one["trials"], key=lambda trial: trial["value"])
        assert (one["settings"], one["value"]) == (best["settings"], best["value"])
    # What the model has is tried, too, whether it is listed or not.
    assert models["flexcare"]["space"] == {
        "training.learning_rate": [1e-4, 1e-3, 1e-2],
        "model.dropout": [0.1, 0.2],
    }
    assert models["trees"]["space"] == {"num_leaves": [2, 15], "lambda_l2": [0.0, 10.0]}


def test_nothing_is_tried_twice_before_everything_is_tried_once(done):
    for name, trials in values(done).items():
        tried = {json.dumps(settings, sort_keys=True) for settings, _ in trials}
        assert len(tried) == len(trials), name
    every = [{**a, **b} for a in ({}, {"num_leaves": 2}) for b in ({}, {"lambda_l2": 10.0})]
    assert all(one in every for one, _ in values(done)["trees"])


def test_a_value_is_the_mean_of_the_own_metrics_over_the_pooled_folds(done):
    made: dict[str, list[dict[str, Any]]] = {}
    for path in predictions(done):
        if "-trees-" in path.name:
            kind = path.stem.split("-trees-")[1]
            made.setdefault(kind, []).extend(pq.read_table(path).to_pylist())
    known = set()
    for rows in made.values():
        again = [row for row in rows if row["task"] == "readmission"]
        labels, chances = (
            np.array([row[name] for row in rows if row["task"] == "phenotyping"])
            for name in ("label", "probabilities")
        )
        pairs = zip(labels.T, chances.T, strict=True)
        each = [average_precision_score(*pair) for pair in pairs if 0 < pair[0].mean() < 1]
        pair = ([row[name][0] for row in again] for name in ("label", "probabilities"))
        known.add(round((average_precision_score(*pair) + np.mean(each)) / 2, 6))
    assert len(known) > 1
    assert {value for _, value in values(done)["trees"]} == known


def test_only_the_tuning_split_of_one_repeat_and_one_seed_is_predicted(done):
    for path in predictions(done):
        assert path.name.startswith("repeat0-")
        assert path.name.endswith("-tuning.parquet")
        assert "seed1" not in path.name
        assert set(pq.read_table(path)["split"].to_pylist()) == {"tuning"}
    assert not (done / "work/pooled").exists()


def test_nobody_asks_for_the_held_out_samples(data, tmp_path, monkeypatch):
    asked, rows = [], Store.rows

    def seen(self: Store, task: str, split: str) -> Any:
        asked.append(split)
        return rows(self, task, split)

    monkeypatch.setattr(Store, "rows", seen)
    search(data, tmp_path, trials=1)
    assert set(asked) == {"train", "tuning"}


@pytest.mark.parametrize("split", ["held_out", "tuning"])
def test_answers_of_the_tuning_split_decide_and_of_the_held_out_split_do_not(data, copied, split):
    before = {name: trials[:1] for name, trials in values(copied).items()}
    for name in ("runs", "predictions"):
        shutil.rmtree(copied / "work" / name)
    for store in (copied / "work/stores").iterdir():
        path = store / "samples.parquet"
        rows = pq.read_table(path).to_pylist()
        for row in rows:
            if row["split"] == split:
                row["label"] = [1 - value for value in row["label"]]
        pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(path)), path)
    search(data, copied, trials=1)
    assert (values(copied) == before) == (split == "held_out")


def test_what_was_tried_is_not_tried_again(data, copied, monkeypatch):
    before = (copied / "runs/tuned/tiny.json").read_bytes()
    for name in ("prepare", "train", "load", "BASELINES"):
        monkeypatch.setattr(work, name, None)
    search(data, copied)
    assert (copied / "runs/tuned/tiny.json").read_bytes() == before


def test_an_interrupted_search_goes_on_to_the_same_result(data, done, tmp_path, monkeypatch):
    calls, train = [], work.train

    def stopped(store: Path, out: Path, **options: Any) -> None:
        calls.append(options["resume"])
        train(store, out, **options)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(work, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        search(data, tmp_path, models=["flexcare"], trials=2)
    assert not (tmp_path / "runs/tuned").exists()
    search(data, tmp_path, models=["flexcare"], trials=2)
    assert values(tmp_path)["flexcare"] == values(done)["flexcare"][:2]
    assert calls == [False, False, False, True, False]  # two folds of two trials


def test_a_training_that_diverges_is_a_failed_trial(data, copied):
    text = PROTOCOL.replace("[1e-3, 1e-2]", "[1e38]")
    said = search(data, copied, text, models=["flexcare"])
    trials = found(copied)["flexcare"]["trials"]
    failed = [one for one in trials if one["value"] is None]
    assert failed
    assert all("diverged" in one["failed"] for one in failed)
    assert all(one["settings"]["training.learning_rate"] == 1e38 for one in failed)
    assert "training.learning_rate" not in found(copied)["flexcare"]["settings"]
    assert any("1e+38: training diverged" in line for line in said)


def test_a_model_tuned_again_leaves_the_others(data, copied):
    before = found(copied)
    search(data, copied, PROTOCOL.replace("[2, 15]", "[2, 3, 15]"), models=["trees"])
    assert found(copied)["flexcare"] == before["flexcare"]
    assert found(copied)["trees"]["space"]["num_leaves"] == [2, 3, 15]
    with pytest.raises(UserError, match=r"4 of flexcare.*5 now"):
        search(data, copied, models=["trees"], trials=5)


def test_the_table_is_made_with_the_best_settings(data, copied):
    path = copied / "runs/tuned/tiny.json"
    whole = json.loads(path.read_text())
    whole["models"]["trees"]["settings"] = {"num_leaves": 2}
    whole["models"]["trees"]["trials"].pop()  # as if there were no fourth combination
    path.write_text(json.dumps(whole))
    said = table(data, copied, models=["trees"])
    assert said[0] == f"tuned settings of trees: {path}"
    page = (copied / "work/held_out/results.md").read_text()
    command = "flexcare tune runs/tiny.toml --data DATA --models trees --trials 4"
    assert (
        "Settings of trees (the best of 3 trials) by the tuning split,"
        f" `{command}`, from its tuned/tiny.json." in page
    )
    assert "| trees | trees, tuned: num_leaves = 2 | 0 |" in page

    def pooled() -> pa.Table:
        return pq.read_table(copied / "work/pooled/held_out/trees.parquet")["probabilities"]

    tuned = pooled()
    path.unlink()
    by_hand = PROTOCOL.replace('= ["series"]', '= ["series"]\nsettings.num_leaves = 2')
    assert not any("tuned" in line for line in table(data, copied, by_hand, models=["trees"]))
    assert pooled() == tuned
    table(data, copied, models=["trees"])
    assert pooled() != tuned


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("epochs = 1", "epochs = 2", "settings.training.epochs"),
        ("seeds = [0, 1]", "alone = true", "alone"),
        ("folds = 2", "folds = 3", "data.preparation.folds"),
    ],
)
def test_settings_found_for_another_model_are_refused(data, copied, old, new, told):
    shutil.rmtree(copied / "work")
    with pytest.raises(UserError) as error:
        table(data, copied, PROTOCOL.replace(old, new))
    assert f"changed since: {told}\n" in str(error.value)
    assert "--models flexcare" in str(error.value)
    assert not (copied / "work").exists()


def test_what_a_search_does_not_depend_on_may_change(data, copied):
    text = PROTOCOL.replace("seeds = [0, 1]", "seeds = [0]").replace("trials = 4", "trials = 9")
    assert "tuned settings of trees" in table(data, copied, text, models=["trees"])[0]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("training.learning_rate", "training.learning_rat", "tuning.network: 'training.learning_r"),
        ("training.learning_rate", "training.learning_rat", "'training.learning_rate'?"),
        ("[1e-3, 1e-2]", "[1e-3, -1]", "training.learning_rate = -1"),
        ("[1e-3, 1e-2]", "[]", "tuning.network.training.learning_rate"),
        ("[2, 15]", "2", "tuning.trees.num_leaves"),
        ("num_leaves", "num_leafs", "'num_leaves'"),
        ("[tuning.trees]", "[tuning.tree]", "'tuning.tree'"),
        ("trials = 4", "trials = 0", "tuning.trials = 0"),
        ('modalities = ["series"]', "num_leafs = 3", "'models.trees.settings.num_leafs'"),
        ('modalities = ["series"]', "rounds = 0", "models.trees.settings.rounds = 0"),
        ('modalities = ["series"]', "training.epochs = 3", "'models.trees.settings.training'"),
        ('kind = "majority"', 'kind = "majority"\nsettings.C = 1', "models.majority.settings.C"),
    ],
)
def test_a_wrong_setting_is_refused_before_any_work(old, new, told, tmp_path):
    assert old in PROTOCOL
    with pytest.raises(UserError) as error:
        search(tmp_path, tmp_path, PROTOCOL.replace(old, new))
    assert told in str(error.value)
    assert not (tmp_path / "work").exists()


def test_a_model_without_anything_to_try_is_named(data, tmp_path):
    with pytest.raises(UserError, match="nothing to tune of majority"):
        search(data, tmp_path, models=["majority"])
    with pytest.raises(UserError, match="nothing to tune of flexcare, trees, majority"):
        search(data, tmp_path, PROTOCOL[: PROTOCOL.index("[tuning]")])


def test_a_baseline_sees_the_modalities_of_its_settings(done):
    some = [pq.read_table(path) for path in predictions(done) if "-trees-" in path.name]
    assert {name for one in some for name in one["modalities"].to_pylist()} <= {"series", "none"}


def test_a_baseline_s_unknown_modality_is_refused(data, copied):
    (copied / "runs/tuned/tiny.json").unlink()
    with pytest.raises(UserError, match="unknown modality 'serie'"):
        table(data, copied, PROTOCOL.replace('["series"]', '["serie"]'), models=["trees"])


def test_the_command_says_where_the_result_is(data, copied, capsys):
    path = written(copied)
    line = ["tune", str(path), "--data", str(data), "--out", str(copied / "work")]
    main([*line, "--models", "trees,flexcare", "--trials", "1"])
    assert capsys.readouterr().out.endswith(f"tuned: {copied / 'runs/tuned/tiny.json'}\n")
    assert all(len(one["trials"]) == 1 for one in found(copied).values())


def test_a_file_that_is_no_search_is_refused(data, copied):
    (copied / "runs/tuned/tiny.json").write_text("[]")
    with pytest.raises(UserError, match="nothing that `flexcare tune` wrote"):
        table(data, copied)


def test_regression_s_own_search_is_one_of_the_values(data, tmp_path):
    text = PROTOCOL.replace('"trees"\nsettings.min_data_in_leaf = 2', '"logistic"')
    text = text[: text.index("[tuning.trees]")] + "[tuning.logistic]\nC = [0.01]\n"
    search(data, tmp_path, text, models=["trees"])
    assert LogisticConfig().C is None
    assert found(tmp_path)["trees"]["space"] == {"C": [None, 0.01]}
    assert [settings for settings, _ in values(tmp_path)["trees"]] == [{}, {"C": 0.01}]
