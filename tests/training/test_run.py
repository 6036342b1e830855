"""What a run leaves behind, and that it goes on as if it had never stopped."""

import json
import os
import signal
import threading

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from small_store import TINY, small_store

from flexcare.errors import UserError
from flexcare.serving.bundle import load_bundle
from flexcare.training import folder
from flexcare.training.loop import Loop
from flexcare.training.run import train

MODEL = TINY | {"dropout": 0.3, "gate_noise": True}
TRAINING = {
    "epochs": 3,
    "batch_size": 8,
    "learning_rate": 3e-3,
    "schedule": "proportional",
    "keep_task_bests": True,
    "checkpoint_minutes": 0,
}
STEPS = 9  # in an epoch
EPOCH_ENDS = 1 + 2 * STEPS + 2  # the second such checkpoint: one at the start, one after each step


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("data") / "store").path


def settings(**training):
    return {"model": MODEL, "training": TRAINING | training}


def run(store, out, **training):
    return train(store, out, settings=settings(**training), quiet=True)


@pytest.fixture(scope="module")
def whole(store, tmp_path_factory):
    """A run that nothing interrupted."""
    return run(store, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def seldom(store, tmp_path_factory):
    """The same, with a checkpoint at the end of each epoch only."""
    return run(store, tmp_path_factory.mktemp("seldom") / "run", checkpoint_minutes=1000)


def lines(out):
    """metrics.jsonl without the time."""
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "wall_s"} for line in found]


def place(out):
    with safe_open(out / "checkpoint.safetensors", "pt") as file:
        found = json.loads(file.metadata()["about"])["progress"]
    for line in found["lines"]:
        line.pop("wall_s")
    return found


def files(out, *parts):
    """Contents of all files of some parts of a run, by name."""
    paths = [path for part in parts for path in (out / part).rglob("*") if path.is_file()]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def assert_same(one, two):
    """The same weights, moments, place, metrics and bundles, bit for bit."""
    a, b = (load_file(out / "checkpoint.safetensors") for out in (one, two))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert place(one) == place(two)
    assert lines(one) == lines(two)
    assert files(one, "bundle", "task_bests") == files(two, "bundle", "task_bests")
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}


def kill(monkeypatch, owner, name, call, before):
    """Let the run die before or after the given call (from 1) of a function."""
    real, calls = getattr(owner, name), []

    def dying(*given, **named):
        calls.append(name)
        if before and len(calls) == call:
            raise SystemExit
        out = real(*given, **named)
        if not before and len(calls) == call:
            raise SystemExit
        return out

    monkeypatch.setattr(owner, name, dying)


KILLED = {
    "inside the first step": (Loop, "_step", 1, False),
    "in the middle of an epoch": (Loop, "_step", STEPS + 4, False),
    "while looking at the tuning split": (Loop, "_look", 5, False),
    "before the checkpoint that ends an epoch": (folder, "save_checkpoint", EPOCH_ENDS, True),
    "after the checkpoint that ends an epoch": (folder, "save_checkpoint", EPOCH_ENDS, False),
    "before the second bundle": (folder, "save_bundle", 2, True),
    "after the second bundle": (folder, "save_bundle", 2, False),
    "after the last step": (Loop, "_step", 3 * STEPS, False),
}


@pytest.mark.parametrize("minutes", [0, 1000])
@pytest.mark.parametrize("when", KILLED)
def test_interrupted_run_equals_uninterrupted_run(store, whole, seldom, tmp_path, when, minutes):
    owner, name, call, before = KILLED[when]
    with pytest.MonkeyPatch.context() as patch:
        kill(patch, owner, name, 3 if call == EPOCH_ENDS and minutes else call, before)
        with pytest.raises(SystemExit):
            run(store, tmp_path / "run", checkpoint_minutes=minutes)
    published = lines(tmp_path / "run")  # never more than can be resumed from
    assert published == place(tmp_path / "run")["lines"][: len(published)]
    (tmp_path / "run" / ".bundle.1.partial").mkdir()  # as a killed process leaves it
    train(store, tmp_path / "run", resume=True, quiet=True)
    assert_same(seldom if minutes else whole, tmp_path / "run")


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


def test_resuming_a_finished_run_changes_nothing(store, whole):
    parts = ("bundle", "task_bests", "metrics.jsonl", "config.json", "checkpoint.safetensors")
    before = files(whole, *parts) | {part: (whole / part).read_bytes() for part in parts[2:]}
    train(store, whole, resume=True, quiet=True)
    assert before == files(whole, *parts) | {p: (whole / p).read_bytes() for p in parts[2:]}


def test_a_run_that_is_given_more_epochs_equals_a_longer_one(store, tmp_path):
    short = run(store, tmp_path / "short", epochs=1)
    train(store, short, settings={"training": {"epochs": 2}}, resume=True, quiet=True)
    long = run(store, tmp_path / "long", epochs=2)
    a, b = (load_file(out / "checkpoint.safetensors") for out in (short, long))
    assert all(torch.equal(a[key], b[key]) for key in b)
    assert lines(short) == lines(long)
    assert json.loads((short / "config.json").read_text())["config"]["training"]["epochs"] == 2


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"training": {"seed": 1, "epochs": 9}}, "training.seed"),
        ({"model": {"hidden": 16}}, "model"),
        ({"tasks": ["death"]}, "tasks"),
    ],
)
def test_resuming_with_other_settings_is_refused(store, whole, more, named):
    with pytest.raises(UserError, match=rf"settings it was started with\n  found:    {named}\n"):
        train(store, whole, settings=more, resume=True, quiet=True)


def test_resuming_on_another_store_is_refused(whole, tmp_path):
    other = small_store(tmp_path / "other", seed=1).path
    with pytest.raises(UserError, match="was not trained on store"):
        train(other, whole, resume=True, quiet=True)


def test_resuming_what_is_no_run_is_refused(store, tmp_path):
    for place_of in (tmp_path, store):
        with pytest.raises(UserError, match="is not a run"):
            train(store, place_of, resume=True, quiet=True)
    (tmp_path / "config.json").write_text('{"artefact": "other"}')
    with pytest.raises(UserError, match="is not a run"):
        train(store, tmp_path, resume=True, quiet=True)


def test_a_seed_decides_every_number(store, whole, tmp_path):
    assert_same(whole, run(store, tmp_path / "same"))
    other = run(store, tmp_path / "other", seed=1)
    assert lines(other)[0]["train"] != lines(whole)[0]["train"]


def interrupt(monkeypatch, at, times):
    """Press ctrl-C in the middle of a step."""
    real = Loop._step

    def stepped(loop, *given):
        if loop.progress.total == at:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
        real(loop, *given)

    monkeypatch.setattr(Loop, "_step", stepped)


@pytest.mark.parametrize(("presses", "kept"), [(1, 13), (2, 9)])
def test_ctrl_c_leaves_a_checkpoint_that_resumes(store, whole, tmp_path, capsys, presses, kept):
    """Once: at the end of the step. Twice: at once, with the last checkpoint, of the epoch."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, at=12, times=presses)
        with pytest.raises(KeyboardInterrupt):
            train(store, out, settings=settings(checkpoint_minutes=1000))
    assert "--resume" in capsys.readouterr().err
    assert place(out)["total"] == kept
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    train(store, out, resume=True, quiet=True)
    a, b = (load_file(run / "checkpoint.safetensors") for run in (out, whole))
    assert all(torch.equal(a[key], b[key]) for key in b)


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
