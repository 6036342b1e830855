"""The known ways in which the method fails are seen, with the number that tells them."""

import json

import numpy as np
import pytest
import torch
from short_runs import MODEL, run, settings

from flexcare.config import ModelConfig, ObjectiveConfig
from flexcare.evaluation.routing import ALIKE, distance
from flexcare.loading.loader import Loader
from flexcare.models.flexcare import FlexCare
from flexcare.training.run import train
from flexcare.training.watch import (
    ROWS,
    Watch,
    chance_correlation,
    correlations,
    fullest,
    leaks,
)
from small_store import small_store


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("watched") / "store")


def network(store, **model):
    torch.manual_seed(0)
    config = ModelConfig(**(MODEL | model))
    return FlexCare(config, list(store.modalities.values()), list(store.tasks.values()))


def batch(store, model):
    loader = Loader(store, store.manifest["scaling"], model=model.config)
    return loader.batch(store.rows("death", "train")[:, None], ("death",))


def test_only_a_mask_that_leaks_is_said_to_leak(opened):
    found = {}
    for mask in ("boolean", "additive", "none"):
        model = network(opened, mask=mask)
        found[mask] = leaks(model, batch(opened, model))
    names = {"film", "note", "series", "film+note", "film+series", "note+series"}
    assert all(set(one) == names for one in found.values())
    assert set(found["boolean"].values()) == {0.0}
    assert min(found["none"].values()) > 0.05
    assert min(found["additive"].values()) > 0.05


def test_looking_for_leaks_changes_nothing(opened):
    model = network(opened).train()
    before = [parameter.clone() for parameter in model.parameters()]
    one = batch(opened, model)
    leaks(model, one, 2)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(map(torch.equal, before, model.parameters()))
    assert not any(encoder._forward_hooks for encoder in model.encoders.values())


def test_correlations_are_those_of_numpy():
    torch.manual_seed(0)
    z = torch.randn(3, 4, 9, dtype=torch.float64)
    present = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 0, 1, 1]]).bool()
    found = correlations(z, present)
    for row, value in zip((0, 2), found, strict=True):  # one present combination has no pair
        table = np.abs(np.corrcoef(z[row, present[row]].numpy()))
        assert value.item() == pytest.approx(table[np.triu_indices(3, 1)].mean(), rel=1e-6)


def test_unrelated_vectors_have_the_correlation_of_chance():
    torch.manual_seed(0)
    found = correlations(torch.randn(2000, 4, 32), torch.ones(2000, 4, dtype=torch.bool))
    assert found.mean().item() == pytest.approx(chance_correlation(32), rel=0.03)


def test_distance_between_tasks_is_that_of_their_shares():
    assert distance(np.array([[1.0, 1.0], [5.0, 5.0]])) == 0
    assert distance(np.array([[1.0, 0.0], [0.0, 3.0]])) == 1
    assert distance(np.array([[3.0, 1.0], [1.0, 3.0]])) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("numbers", "warned"),
    [
        ({"leak": 0.0, "routing_distance": 2 * ALIKE, "correlation": 0.9}, set()),
        ({"leak": 1e-9}, {"mask"}),
        ({"routing_distance": ALIKE / 2}, {"experts"}),
        ({"correlation": 0.001}, {"regulariser"}),
        ({}, set()),
    ],
)
def test_a_warning_names_the_number_that_made_it(opened, numbers, warned):
    watch = Watch(network(opened), None, {})
    found = watch.warnings(numbers, ObjectiveConfig())
    assert set(found) == warned
    assert all(f"{min(numbers.values()):.3g}" in text for text in found.values())


def test_without_the_term_no_correlation_is_too_small(opened):
    watch = Watch(network(opened), None, {})
    for off in (ObjectiveConfig(decorrelation="none"), ObjectiveConfig(decorrelation_weight=0)):
        assert watch.warnings({"correlation": 0.001}, off) == {}


@pytest.mark.parametrize(
    ("model", "warned"),
    [({}, set()), ({"mask": "none"}, {"mask"}), ({"mixture": "one_expert"}, {"experts"})],
)
def test_every_training_is_watched(store, tmp_path, capsys, model, warned):
    given = settings(epochs=2) | {"model": MODEL | model}
    out = train(store, tmp_path / "run", settings=given)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert ("leak" in lines[0]["watch"], "leak" in lines[1]["watch"]) == (True, False)
    assert {name for line in lines for name in line["warnings"]} & {"mask", "experts"} == warned
    said = capsys.readouterr().err
    assert ("the mask leaks" in said) == ("mask" in warned)
    assert ("experts alike" in said) == ("experts" in warned)


def test_networks_without_combinations_are_left_alone(store, tmp_path):
    given = settings(epochs=1) | {"network": "early_fusion"}
    out = train(store, tmp_path / "run", settings=given, quiet=True)
    line = json.loads((out / "metrics.jsonl").read_text())
    assert (line["watch"], line["warnings"]) == ({}, {})


def test_watching_draws_nothing(store, tmp_path, monkeypatch):
    """The weights are those of a training that nobody watches."""
    watched = run(store, tmp_path / "watched", epochs=1)
    monkeypatch.setattr(Watch, "numbers", lambda *args: {})
    blind = run(store, tmp_path / "blind", epochs=1)
    one, two = ((out / "bundle/weights.safetensors").read_bytes() for out in (watched, blind))
    assert one == two


def test_leaks_are_looked_for_in_patients_who_have_something_to_leak(opened):
    """The first of a split may all have one modality."""
    model = network(opened, mask="none")
    loader = Loader(opened, opened.manifest["scaling"], model=model.config)
    rows = opened.rows("death", "train")
    has = np.array([opened.samples[f"has_{name}"].to_numpy()[rows] for name in model.encoders])
    several = rows[has.sum(0) > 1]
    single = rows[(has.sum(0) == 1) & has[0]]
    behind = np.concatenate([np.repeat(single, ROWS)[:ROWS], several[:1]])
    assert fullest(loader, behind)[0] == several[0]
    assert Watch(model, loader, {"death": behind})._leak() > 0.05
    assert Watch(model, loader, {"none": rows[:0], "death": behind})._leak() > 0.05
    assert Watch(model, loader, {"death": single})._leak() is None
