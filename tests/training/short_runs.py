"""Short runs with everything random in them, and what they leave behind."""

import json

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from flexcare.training.run import train
from small_store import TINY

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


def settings(**training):
    return {"model": MODEL, "training": TRAINING | training}


def run(store, out, **training):
    return train(store, out, settings=settings(**training), quiet=True)


def lines(out):
    """metrics.jsonl without the time."""
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "wall_s"} for line in found]


def measured(out):
    """gradients.jsonl"""
    return [json.loads(line) for line in (out / "gradients.jsonl").read_text().splitlines()]


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
    if (one / "gradients.jsonl").exists():
        assert measured(one) == measured(two)
    assert files(one, "bundle", "task_bests") == files(two, "bundle", "task_bests")
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
