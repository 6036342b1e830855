"""The work of experiments: what is refused before it begins, and what it says it took."""

import time
from types import SimpleNamespace

import pytest

import flexcare.experiments.work as work
from flexcare.errors import UserError
from flexcare.experiments import experiment
from flexcare.experiments.measures.trained import Found
from flexcare.experiments.page import claims
from flexcare.files import read_json


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


def test_seconds_are_those_of_the_processor(monkeypatch, tmp_path):
    """Waiting is not work: what a result says it took does not depend on what else runs."""
    monkeypatch.setattr(work, "Store", lambda path: None)
    monkeypatch.setattr(work, "Trained", lambda *args: None)
    monkeypatch.setitem(work.MEASURES, "none", lambda run: Found())
    job = SimpleNamespace(
        missing=["none"], ground=SimpleNamespace(store=None, truth=None), base=None, run=tmp_path,
        train=lambda store: time.sleep(0.5), values=lambda family: tmp_path / f"{family}.json",
    )  # fmt: skip
    assert work.done(job) >= 0.5
    assert read_json(tmp_path / "none.json", "what was measured")["seconds"] < 0.3
