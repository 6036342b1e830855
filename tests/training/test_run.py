"""What a run leaves behind, and what it refuses."""

import json
import threading

import pytest
import torch
from safetensors.torch import load_file
from short_runs import MODEL, STEPS, assert_same, lines, run, settings

from flexcare.errors import UserError
from flexcare.serving.bundle import load_bundle
from flexcare.training.run import train
from small_store import TINY, small_store


def test_a_bundle_is_that_of_the_best_epoch(whole):
    best = max(lines(whole), key=lambda line: line["mean"])
    bundle = load_bundle(whole / "bundle")
    assert bundle.provenance["epoch"] == best["epoch"]
    assert [info.name for info in bundle.tasks] == ["death", "stay", "findings"]
    for task in ("death", "stay", "findings"):
        first = max(lines(whole), key=lambda line: line["tuning"][task]["primary"])
        kept = load_bundle(whole / "task_bests" / task).provenance
        assert (kept["epoch"], kept["best_of"]) == (first["epoch"], task)


def test_task_bests_are_kept_only_if_asked_for(store, tmp_path):
    out = run(store, tmp_path / "run", epochs=1, keep_task_bests=False)
    assert not (out / "task_bests").exists()


def test_a_seed_decides_every_number(store, whole, tmp_path):
    assert_same(whole, run(store, tmp_path / "same"))
    other = run(store, tmp_path / "other", seed=1)
    assert lines(other)[0]["train"] != lines(whole)[0]["train"]


def test_a_run_in_another_thread_trains_too(store, tmp_path):
    """Where no signal can be heard."""
    thread = threading.Thread(target=run, args=(store, tmp_path / "run"), kwargs={"epochs": 1})
    thread.start()
    thread.join()
    assert len(lines(tmp_path / "run")) == 1


def test_early_stopping_ends_a_run_for_good(store, tmp_path, capsys):
    """A rate of nothing: no epoch is better than the first."""
    given = settings(epochs=9, patience=2, learning_rate=1e-30, checkpoint_minutes=1000)
    out = train(store, tmp_path / "run", settings=given)
    assert "no better mean for 2 epochs" in capsys.readouterr().err
    assert [line["epoch"] for line in lines(out)] == [0, 1, 2]
    assert load_bundle(out / "bundle").provenance["epoch"] == 0
    train(store, out, resume=True, quiet=True)
    assert len(lines(out)) == 3


def test_a_diverging_run_says_so_and_keeps_finite_weights(store, tmp_path):
    with pytest.raises(UserError, match=r"training diverged after \d+ steps") as error:
        run(store, tmp_path / "run", learning_rate=1e30)
    assert "learning_rate" in str(error.value)
    kept = load_file(tmp_path / "run" / "checkpoint.safetensors")
    assert all(torch.isfinite(value).all() for value in kept.values())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tasks": ["deaths"]}, "unknown task 'deaths'(.|\n)*Did you mean 'death'"),
        ({"modalities": ["films"]}, "unknown modality 'films'(.|\n)*Did you mean 'film'"),
        ({"training": {"epoch": 3}}, "unknown setting(.|\n)*Did you mean 'training.epochs'"),
        ({"training": {"seed": -1}}, "training.seed"),
        ({"objective": {"task_weights": {"deaths": 1}}}, "Did you mean 'death'"),
        ({"model": {"heads": 3}}, "model.hidden"),
        ({"tasks": ["death", "death"]}, "'death' is there twice"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(store, tmp_path, given, message):
    given = given | {"model": TINY | given.get("model", {})}
    with pytest.raises(UserError, match=message):
        train(store, tmp_path / "run", settings=given, quiet=True)
    assert not list(tmp_path.iterdir())


def test_a_place_that_is_taken_is_refused(store, tmp_path):
    with pytest.raises(UserError, match="exists already"):
        run(store, tmp_path)


def test_a_store_without_training_samples_is_refused(tmp_path):
    empty = small_store(tmp_path / "store", train=0).path
    with pytest.raises(UserError, match="nothing to learn from"):
        run(empty, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [({"tuning": 0}, "no sample has a label"), ({"alike": True}, "labels are 0")],
)
def test_without_a_metric_on_the_tuning_split_the_last_model_is_kept(
    tmp_path, capsys, content, reason
):
    store = small_store(tmp_path / "store", **content).path
    out = train(store, tmp_path / "run", settings=settings(epochs=2))
    said = capsys.readouterr().err
    assert f"death has no metric on the tuning split: {'no' if 'no' in reason else 'all'}" in said
    assert reason in said
    assert said.count("the last model is kept") == 1
    assert [line["mean"] for line in lines(out)] == [None, None]
    assert load_bundle(out / "bundle").provenance["epoch"] == 1


def test_the_resolved_configuration_names_everything(store, whole):
    about = json.loads((whole / "config.json").read_text())
    assert about["config"]["tasks"] == ["death", "stay", "findings"]
    assert about["config"]["modalities"] == ["series", "film", "note"]
    assert about["config"]["model"]["experts_per_token"] == 2
    assert about["store"] == str(store)
    assert about["versions"].keys() >= {"flexcare", "torch", "numpy", "python"}
    assert load_bundle(whole / "bundle").provenance["config"] == about["config"]


def test_the_presets_settings_hold_unless_told_otherwise(store, tmp_path):
    manifest = json.loads((store / "manifest.json").read_text())
    copy = small_store(tmp_path / "store").path
    (copy / "manifest.json").write_text(json.dumps(manifest | {"preset": "authors"}))
    out = run(copy, tmp_path / "run", epochs=1)
    found = json.loads((out / "config.json").read_text())["config"]["model"]
    assert (found["mask"], found["hidden"]) == ("additive", TINY["hidden"])
    given = settings(epochs=1) | {"model": MODEL | {"mask": "none"}}
    out = train(copy, tmp_path / "other", settings=given, quiet=True)
    found = json.loads((out / "config.json").read_text())["config"]["model"]
    assert (found["mask"], found["absent_combinations"]) == ("none", "visible")


def test_weights_of_tasks_that_are_left_out_do_not_matter(store, tmp_path):
    given = settings(epochs=1) | {"tasks": ["death"]}
    given["objective"] = {"task_weights": {"death": 0.5, "stay": 2.0}}
    out = train(store, tmp_path / "run", settings=given, quiet=True)
    found = json.loads((out / "config.json").read_text())["config"]["objective"]
    assert found["task_weights"] == {"death": 0.5}


def test_progress_is_said(store, tmp_path, capsys):
    given = settings(epochs=2, schedule="round_robin", batch_size=16)
    train(store, tmp_path / "run", settings=given)
    said = capsys.readouterr().err
    assert "passes over the samples in an epoch: death 1, stay 1, findings 1\n" in said
    assert "epoch 1 of 2, 0:00:0" in said
    assert "epoch 2 of 2, 0:00:00 left: death " in said


def test_tensorboard_reads_the_metrics_of_a_resumed_run_once(store, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out = run(store, tmp_path / "run", epochs=1)
    train(store, out, settings={"training": {"epochs": 2}}, resume=True, quiet=True)
    found = accumulator.EventAccumulator(str(out / "tensorboard")).Reload()
    events = found.Scalars("tuning/findings/primary")
    assert [event.step for event in events] == [STEPS, 2 * STEPS]
    expected = [line["tuning"]["findings"]["primary"] for line in lines(out)]
    assert [event.value for event in events] == pytest.approx(expected)
    assert "train/loss/death" in found.Tags()["scalars"]


def test_without_tensorboard_a_run_trains(store, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    out = run(store, tmp_path / "run", epochs=1)
    assert not (out / "tensorboard").exists()
