"""Two processes learn what one learns from the same steps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from short_runs import measured
from torch import nn
from train_worker import main

from flexcare.processes import add_gradients, anyone, mean, total
from small_store import TINY, small_store

WORKER = Path(__file__).parent / "train_worker.py"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
SURE = {"dropout": 0, "gate_noise": False}  # nothing drawn: two processes draw differently
# Runs of 3 epochs. Of 31 subjects the last step has 1, which leaves nothing to the other process.
RUNS = {
    "sequential": {"training": {"schedule": "sequential"}},
    "round_robin": {"training": {"schedule": "round_robin", "clip": 0.5, "warmup_steps": 3}},
    "parallel": {"training": {"schedule": "parallel"}},
    "single": {"training": {"schedule": "round_robin"}},
    "stopped": {"training": {"schedule": "proportional"}},
    "flex_moe": {"network": "flex_moe", "training": {"schedule": "parallel"}},
    "moe_health": {"network": "moe_health", "training": {"schedule": "round_robin"}},
    "aggregated": {
        "training": {"schedule": "parallel", "aggregator": "upgrad", "weighting": "uncertainty"}
    },
    "cycles": {
        "training": {
            "schedule": "round_robin",
            "aggregator": "pcgrad",
            "weighting": "famo",
            "measure_gradients": 2,
            "clip": 0.5,
        }
    },
    "notes": {"modalities": ["film", "note"], "objective": {"decorrelation": "correlation"}},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folder of the runs: NAME1 by one process, NAME2 by two."""
    folder = tmp_path_factory.mktemp("runs")
    store = small_store(folder / "store", train=31).path

    def jobs(count):
        made = []
        for name, settings in RUNS.items():
            rest = {"epochs": 3, "batch_size": 15, "learning_rate": 1e-3}
            settings = settings | {"model": TINY | SURE}
            settings["training"] = rest | settings.get("training", {})
            job = {"store": str(store), "out": str(folder / f"{name}{count}")}
            made.append(job | {"settings": settings, "exact": name != "single"})
        return made

    apart = jobs(2)
    for job in [job for job in apart if job["out"].endswith("stopped2")]:
        job["stop_at"] = 14
        apart.append({key: job[key] for key in ("store", "out", "exact")} | {"resume": True})
    (folder / "jobs.json").write_text(json.dumps(apart))
    command = [*TORCHRUN, str(WORKER), str(folder / "jobs.json")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    try:
        main(jobs(1))
    finally:
        torch.set_default_dtype(torch.float32)
    return folder


def numbers(value):
    """All numbers of a line of metrics, in order, but the time it took."""
    if isinstance(value, dict):
        return [x for key, one in value.items() if key != "wall_s" for x in numbers(one)]
    if isinstance(value, list):
        return [x for one in value for x in numbers(one)]
    return [value] if isinstance(value, int | float) else []


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", [name for name in RUNS if name != "single"])
@pytest.mark.parametrize("file", ["checkpoint.safetensors", "bundle/weights.safetensors"])
def test_two_processes_learn_what_one_learns(runs, name, file):
    one, two = (load_file(runs / f"{name}{count}" / file) for count in (1, 2))
    assert one.keys() == two.keys()  # what was never used has no moments in either
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, atol=1e-9, rtol=1e-9, msg=key)


def test_two_processes_equal_one_in_single_precision(runs):
    one, two = (load_file(runs / f"single{count}" / "checkpoint.safetensors") for count in (1, 2))
    for key, value in one.items():
        # A key's bias adds the same to all scores and changes nothing: its gradient is rounding
        # alone, which Adam makes large.
        if not key.startswith("weights/fusion.layers.0.query_key_value.bias"):
            torch.testing.assert_close(two[key], value, atol=1e-5, rtol=0, msg=key)


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_report_what_one_reports(runs, name):
    one, two = (lines(runs / f"{name}{count}") for count in (1, 2))
    assert len(one) == len(two) == 3
    assert numbers(one[2])
    for a, b in zip(one, two, strict=True):
        assert numbers(a) == pytest.approx(numbers(b), abs=1e-5)


def test_two_processes_measure_what_one_measures(runs):
    one, two = (measured(runs / f"cycles{count}") for count in (1, 2))
    assert len(one) == len(two) > 3
    assert numbers(one[2])
    for a, b in zip(one, two, strict=True):
        assert numbers(a) == pytest.approx(numbers(b), abs=1e-5, rel=1e-4)


def test_one_process_writes_for_all(runs):
    """The worker fails where another one writes."""
    one, two = ({p.name for p in (runs / f"parallel{n}").rglob("*")} for n in (1, 2))
    assert {n for n in one if "tfevents" not in n} == {n for n in two if "tfevents" not in n}
    assert json.loads((runs / "parallel2" / "config.json").read_text())["processes"] == 2


def test_alone_sums_are_what_they_are():
    value = torch.tensor([1.0, 2.0])
    assert total(value) is value
    assert float(mean(value.sum(), torch.tensor(2))) == 1.5
    assert float(mean(torch.tensor(0.0), torch.tensor(0))) == 0
    device = torch.device("cpu")
    assert anyone(True, device)
    assert not anyone(False, device)


def test_a_gradient_of_zeros_becomes_none():
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad, parameters[1].grad = torch.zeros(2), torch.tensor([0.0, 1e-30])
    add_gradients(parameters)
    assert parameters[0].grad is None
    assert parameters[1].grad is not None
    assert parameters[2].grad is None
