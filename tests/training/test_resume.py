"""A run goes on as if it had never stopped."""

import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file
from short_runs import STEPS, assert_same, files, lines, place, run, settings

from flexcare.errors import UserError
from flexcare.training import folder
from flexcare.training.loop import Loop
from flexcare.training.run import train
from small_store import small_store

EPOCH_ENDS = 1 + 2 * STEPS + 2  # the second such checkpoint: one at the start, one after each step


@pytest.fixture(scope="module")
def seldom(store, tmp_path_factory):
    """The same, with a checkpoint at the end of each epoch only."""
    return run(store, tmp_path_factory.mktemp("seldom") / "run", checkpoint_minutes=1000)


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


# What a run remembers beside the weights, and the update in which it is killed.
MEMORIES = {
    "a running mean of weights": ({"average": 0.9}, STEPS + 4),
    "uncertainties": ({"weighting": "uncertainty", "average": 0.9}, STEPS + 4),
    "how fast losses fell": ({"weighting": "dwa"}, 2 * STEPS + 4),
    "FAMO's shares": ({"weighting": "famo", "schedule": "round_robin"}, 5),
    "FAMO's shares, in parallel": ({"weighting": "famo", "schedule": "parallel"}, 7),
    "GradVac's cosines": ({"aggregator": "gradvac"}, 5),
    "Nash-MTL's weights": ({"aggregator": "nash_mtl", "schedule": "parallel"}, 7),
    "what PCGrad draws": ({"aggregator": "pcgrad", "schedule": "round_robin", "average": 0.9}, 5),
    "all at once": ({"aggregator": "gradvac", "weighting": "famo", "measure_gradients": 3}, 5),
}


@pytest.mark.parametrize("what", MEMORIES)
def test_what_is_remembered_goes_on(store, tmp_path, what):
    training, update = MEMORIES[what]
    through = run(store, tmp_path / "through", **training)
    with pytest.MonkeyPatch.context() as patch:
        kill(patch, Loop, "_step", update, False)
        with pytest.raises(SystemExit):
            run(store, tmp_path / "run", **training)
    train(store, tmp_path / "run", resume=True, quiet=True)
    assert_same(through, tmp_path / "run")


def test_hidden_modalities_are_hidden_again(store, tmp_path):
    through = run(store, tmp_path / "through", modality_dropout=0.4)
    with pytest.MonkeyPatch.context() as patch:
        kill(patch, Loop, "_step", STEPS + 4, False)
        with pytest.raises(SystemExit):
            run(store, tmp_path / "run", modality_dropout=0.4)
    train(store, tmp_path / "run", resume=True, quiet=True)
    assert_same(through, tmp_path / "run")


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


def test_resuming_with_settings_that_are_none_is_refused(store, whole):
    with pytest.raises(UserError, match="not usable"):
        train(store, whole, settings={"training": 3}, resume=True, quiet=True)


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
