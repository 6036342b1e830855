"""The line from training to the report and to predictions works with every network."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from flexcare.baselines.networks import NETWORKS
from flexcare.cli import main
from flexcare.errors import UserError
from flexcare.files import read_json
from flexcare.serving.bundle import load_bundle
from flexcare.serving.predictor import load
from flexcare.training.run import train

TASKS = ["in_hospital_mortality", "phenotyping"]
SMALL = {
    "model": {"hidden": 8, "layers": 1, "heads": 2, "patch": 28, "experts": 4, "max_pieces": 32},
    "training": {"epochs": 1, "schedule": "parallel", "batch_size": 16},
}
OTHERS = sorted(NETWORKS.keys() - {"flexcare"})


def trained(folder, out, name, tasks=TASKS, **training):
    settings = SMALL | {"network": name, "training": SMALL["training"] | training}
    return train(folder, out, tasks=tasks, settings=settings, quiet=True)


@pytest.mark.parametrize("name", OTHERS)
def test_a_run_is_judged_shown_and_asked(folder, tmp_path, name, capsys):
    run, asked = trained(folder, tmp_path / "run", name), tmp_path / "asked.parquet"
    main(["evaluate", str(run), "--no-baselines", "--resamples", "10"])
    main(["report", str(run)])
    main(["predict", str(run / "bundle"), str(folder), "--split", "held_out", "--out", str(asked)])
    main(["show", str(run / "bundle")])
    assert name in capsys.readouterr().out
    page = (run / "report.html").read_text()
    assert "film + note + series" in page[page.index('<section id="missing">') :]  # who has what
    assert "expert 1" not in page  # nothing about routing where there is none
    result = read_json(run / "evaluation" / "held_out.json", "an evaluation")
    assert list(result["tasks"]["phenotyping"]["models"]) == [name]
    assert result["routing"] == {}
    judged = pq.read_table(run / "predictions" / "held_out" / f"{name}.parquet")
    found = pq.read_table(asked)
    assert found["model"].unique().to_pylist() == [name]
    order = judged["sample_id"].to_pylist(), found["sample_id"].to_pylist()
    assert sorted(order[0]) == sorted(order[1])
    one, other = (
        np.concatenate([row for _, row in sorted(zip(ids, table, strict=True))])
        for ids, table in zip(
            order, (t["probabilities"].to_pylist() for t in (judged, found)), strict=True
        )
    )
    np.testing.assert_allclose(one, other, atol=1e-6)
    line = json.loads((run / "metrics.jsonl").read_text())
    assert "decorrelation" not in line["train"]
    known = load(run / "bundle").predict({"series": [(1.0, "heart_rate", 90.0)]}, hours=48)
    assert all(0 < value < 1 for value in known["in_hospital_mortality"].values())


def test_a_bundle_names_its_network_and_one_that_does_not_is_flexcare(folder, tmp_path):
    run = trained(folder, tmp_path / "run", "flexcare")
    path = run / "bundle" / "bundle.json"
    description = read_json(path, "a bundle")
    assert description.pop("network") == "flexcare"
    path.write_text(json.dumps(description))
    assert load_bundle(run / "bundle").model.name == "flexcare"
    for name in ("gru_dd", 7):
        path.write_text(json.dumps(description | {"network": name}))
        with pytest.raises(UserError, match="unknown network of bundle"):
            load_bundle(run / "bundle")


def test_an_unknown_network_is_refused_before_anything_is_written(folder, tmp_path):
    with pytest.raises(UserError, match="Did you mean 'medfuse'"):
        trained(folder, tmp_path / "run", "medfusion")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["gru_d", "flex_moe"])
def test_a_resumed_run_equals_one_that_nothing_interrupted(folder, tmp_path, name):
    whole = trained(folder, tmp_path / "whole", name, epochs=2)
    trained(folder, tmp_path / "parts", name, epochs=1)
    parts = train(folder, tmp_path / "parts", epochs=2, resume=True, quiet=True)
    weights = [load_bundle(run / "bundle").model.state_dict() for run in (whole, parts)]
    assert all(weights[0][key].equal(weights[1][key]) for key in weights[0])


@pytest.mark.parametrize("name", ["gru_d", "medfuse", "early_fusion"])
def test_hours_of_a_stay_that_share_a_series_are_answered_as_if_they_did_not(
    folder, tmp_path, name
):
    """causal_series only says what may be shared: no answer of these networks depends on it."""
    run = trained(folder, tmp_path / "run", name, ["decompensation"])
    answers = []
    path = run / "bundle" / "bundle.json"
    for shared in (False, True):
        description = read_json(path, "a bundle")
        description["model"]["causal_series"] = shared
        path.write_text(json.dumps(description))
        table = load(run / "bundle").predict_store(folder, split="held_out")
        answers.append(np.concatenate(table["probabilities"].to_pylist()))
    np.testing.assert_allclose(*answers, atol=1e-6)
