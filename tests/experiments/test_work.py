"""The work of experiments: what is refused before it begins, and what it says it took."""

import math
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import flexcare.experiments.work as work
from flexcare.errors import Diverged, UserError
from flexcare.experiments import experiment
from flexcare.experiments.measures.trained import Found
from flexcare.experiments.page import claims
from flexcare.experiments.verdict import Value


def test_what_cannot_be_run_is_said(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="cannot be run on eicu"):
        experiment("F1", data="eicu", out=tmp_path)
    with pytest.raises(UserError, match="unknown set of data"):
        experiment("M1", data="eciu", out=tmp_path)
    for option in ("seeds", "processes"):
        with pytest.raises(UserError, match=f"too few {option}"):
            experiment("M1", out=tmp_path, **{option: 0})
    for name in ("M1", "F1", "R1"):
        for data in ("nope/store", "store"):
            with pytest.raises(UserError, match=f"no manifest.json in {data}"):
                experiment(name, data=data, out=tmp_path)
    monkeypatch.delenv("FLEXCARE_OPEN_DATA", raising=False)
    with pytest.raises(UserError, match="neither --folder nor"):
        experiment("M1", data="eicu", out=tmp_path)
    with pytest.raises(UserError, match="no experiment in"):
        claims(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def job(monkeypatch, tmp_path):
    """A job whose training is a function of the test's, and whose one family tells a number."""
    monkeypatch.setattr(work, "Store", lambda path: None)
    monkeypatch.setattr(work, "Trained", lambda *args: None)
    tell = {"a": Value(1.0), "b": Value(math.nan)}
    monkeypatch.setitem(work.MEASURES, "some", lambda run: Found(tell))

    class Plain(work.Job):
        run = tmp_path / "run"
        train = None

    (tmp_path / "values").mkdir()
    return Plain(SimpleNamespace(store=None, truth=None), tmp_path, {}, ("some",))


def trained(job, train):
    type(job).train = lambda self, store: train()
    return work.done(job), job.found()


@pytest.fixture
def clocks(monkeypatch):
    """Clocks that only the test moves: how long things really take is the machine's affair."""
    clocks = SimpleNamespace(wall=100.0, processor=10.0)
    reading = SimpleNamespace(monotonic=lambda: clocks.wall, process_time=lambda: clocks.processor)
    monkeypatch.setattr(work, "time", reading)
    return clocks


def working(clocks, seconds):
    clocks.wall += 2 * seconds  # as on a core that another work has half of
    clocks.processor += seconds


def test_seconds_are_those_of_the_processor(job, clocks):
    """Waiting is not work: what a result says it took does not depend on what else runs."""
    took, found = trained(job, lambda: working(clocks, 5))
    assert took == 10
    assert found.seconds == 5


def test_a_training_that_experiments_share_counts_in_each(job, clocks, monkeypatch):
    def other(run):
        working(clocks, 3)
        return Found()

    monkeypatch.setitem(work.MEASURES, "other", other)
    _, first = trained(job, lambda: working(clocks, 5))
    _, second = trained(replace(job, families=("other",)), lambda: None)
    assert first.seconds == 5
    assert second.seconds == 5 + 3


def test_what_cannot_be_told_of_a_run_is_no_number(job):
    _, found = trained(job, lambda: None)
    assert found.values == {"a": Value(1.0)}
    assert not found.diverged


def test_a_training_that_diverged_is_not_tried_again(job):
    def diverge():
        raise Diverged("loss is nan")

    _, found = trained(job, diverge)
    assert found.diverged
    assert found.values == {}
    assert not job.missing


def test_workers_end_with_the_command_that_began_them(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, os, time\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from flexcare.experiments.work import begin_worker\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    with ProcessPoolExecutor(1, context, begin_worker) as pool:\n"
        "        print(pool.submit(os.getpid).result(), flush=True)\n"
        "        time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as command:
        worker = int(command.stdout.readline())
        os.kill(worker, 0)  # it is there
        command.kill()
    deadline = time.monotonic() + 60
    while state(worker) not in (None, "Z"):
        assert time.monotonic() < deadline, "the worker is still there"
        time.sleep(0.1)


def state(process):
    """R, S, ..., Z where only its parent has not heard of its end; None: there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def test_a_training_that_another_command_is_at_is_waited_for(job):
    trainings = []

    def train():
        trainings.append(None)
        time.sleep(0.2)

    type(job).train = lambda self, store: train()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work.done, [job, job]))
    assert len(trainings) == 1
