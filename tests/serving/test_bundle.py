"""A bundle gives back the very network that was saved, or says why it cannot."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from flexcare.batch import Batch, Tokens
from flexcare.config import ModelConfig
from flexcare.errors import UserError
from flexcare.files import sha256
from flexcare.models.flexcare import FlexCare
from flexcare.schema import ModalityInfo, TaskInfo
from flexcare.serving.bundle import DESCRIPTION, WEIGHTS, load_bundle, save_bundle

SERIES = ModalityInfo("series", "time_series", 3, {"columns": ["hr", "ph", "ph mask"], "hours": 1})
NOTE = ModalityInfo("note", "text", 5, {"encoder": {"name": "n-grams", "fingerprint": "3f2a"}})
TASKS = (
    TaskInfo("death", "Will they die?", "binary", ("dead",), "average_precision", 0.2),
    TaskInfo("days", "How long?", "multiclass", ("0", "1"), "quadratic_kappa", 0.5, hourly=True),
)
SCALING = {"series": {"center": [1.5, 7.4], "scale": [0.1, 1.0]}, "empty": {}}
PROVENANCE = {"run": "r1", "seed": 3, "notes": ["é"]}


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = ModelConfig(hidden=8, layers=1, experts=3, max_combination=2, dropout=0.3)
    return FlexCare(config, [SERIES, NOTE], TASKS).train()


@pytest.fixture
def folder(model, tmp_path):
    save_bundle(tmp_path / "b", model, SCALING, PROVENANCE)
    return tmp_path / "b"


def some_batch():
    torch.manual_seed(1)
    rows, valid = torch.arange(2), torch.ones(2, 4, dtype=torch.bool)
    inputs = {
        "series": Tokens(torch.randn(2, 4, 3), valid, rows),
        "note": Tokens(torch.randn(2, 4, 5), valid, rows + 1),
    }
    return Batch(3, inputs, ("death", "days"))


def test_predictions_are_bit_identical_after_a_round_trip(model, folder):
    bundle = load_bundle(folder)
    expected, found = model.eval()(some_batch()), bundle.model(some_batch())
    for task in ("death", "days"):
        assert torch.equal(found.logits[task], expected.logits[task])
    assert not bundle.model.training
    assert all(p.requires_grad for p in bundle.model.parameters())


def test_everything_else_survives_too(model, folder):
    bundle = load_bundle(folder)
    assert bundle.model.config == model.config
    assert bundle.modalities == (NOTE, SERIES)  # sorted by name
    assert bundle.tasks == TASKS
    assert (bundle.scaling, bundle.provenance) == (SCALING, PROVENANCE)


def test_weights_keep_their_precision(model, tmp_path):
    save_bundle(tmp_path / "b", model.double(), {}, {})
    state = load_bundle(tmp_path / "b").model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert {tensor.dtype for tensor in state.values()} == {torch.float64}


def test_a_bundle_is_replaced_whole(model, folder):
    (folder / "left over").touch()
    save_bundle(folder, model, {}, {"second": True})
    assert sorted(p.name for p in folder.iterdir()) == sorted([WEIGHTS, DESCRIPTION])
    assert load_bundle(folder).provenance == {"second": True}
    assert [p.name for p in folder.parent.iterdir()] == ["b"]


def test_what_is_no_json_is_refused_and_nothing_is_left(model, tmp_path):
    for value in ({"x": float("nan")}, {"x": torch.zeros(1)}):
        with pytest.raises(UserError, match="cannot hold"):
            save_bundle(tmp_path / "b", model, value, {})
    assert not any(tmp_path.iterdir())


def change_description(folder, **values):
    file = folder / DESCRIPTION
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def cut_weights(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-8])


def cut_weights_on_purpose(folder):
    cut_weights(folder)
    change_description(folder, weights_sha256=sha256(folder / WEIGHTS))


def other_weights(folder):
    weights = load_file(folder / WEIGHTS)
    weights["pooling.inner.weight"] = weights["pooling.inner.weight"][:, :-1].contiguous()
    del weights["heads.norm.bias"]
    weights["more"] = torch.zeros(1)
    save_file(weights, folder / WEIGHTS)
    change_description(folder, weights_sha256=sha256(folder / WEIGHTS))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / DESCRIPTION).unlink(), "no such file"),
        (lambda f: (f / DESCRIPTION).write_text("{"), "damaged"),
        (lambda f: (f / DESCRIPTION).write_text("[]"), "not a table"),
        (lambda f: change_description(f, version=99), "version 99"),
        (lambda f: change_description(f, tasks=[{}]), "damaged"),
        (lambda f: change_description(f, model={"hiden": 8}), "hidden"),
        (lambda f: (f / WEIGHTS).unlink(), "no weights.safetensors"),
        (cut_weights, "is not the file"),
        (cut_weights_on_purpose, "damaged"),
        (other_weights, r"missing heads.norm.bias; unexpected more; pooling.*instead of \(8, 16\)"),
    ],
)
def test_damaged_bundles_are_refused_in_words(folder, damage, words):
    damage(folder)
    with pytest.raises(UserError, match=words):
        load_bundle(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_bundle(tmp_path / "nowhere")
