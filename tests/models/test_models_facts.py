"""Static fields, codes and vectors in the network: shapes, padding, absence, many modalities."""

import pytest
import torch
from random_batches import NAMES, SMALL, TASKS

from flexcare.batch import Batch, Tokens
from flexcare.config import ModelConfig
from flexcare.errors import UserError
from flexcare.models.encoders import ENCODERS
from flexcare.models.flexcare import FlexCare
from flexcare.schema import ModalityInfo

FIELDS = {"variables": {"age": {}, "sex": {}, "unit": {}}}
INFOS = {
    "static": ModalityInfo("s", "static", 5, FIELDS),
    "codes": ModalityInfo("c", "codes", 7, {}),
    "embedding": ModalityInfo("v", "embedding", 4, {}),
}


def tokens_of(kind, n, seed=0, dtype=torch.float64):
    """Random values of n samples with some places empty, full of NaN."""
    random = torch.Generator().manual_seed(seed)
    length = {"static": 3, "codes": 6, "embedding": 2}[kind]
    valid = torch.rand(n, length, generator=random) < 0.6
    valid[:, -1] = True
    width = {"static": 5, "codes": 2, "embedding": 4}[kind]
    values = torch.randn(n, length, width, generator=random, dtype=dtype)
    if kind == "codes":
        values[..., 0] = torch.randint(0, 7, (n, length), generator=random).to(dtype)
    return values.masked_fill(~valid[..., None], float("nan")), valid


@pytest.mark.parametrize("kind", INFOS)
def test_one_token_a_place_and_garbage_in_padding_changes_nothing(kind):
    torch.manual_seed(0)
    encoder = ENCODERS[kind](INFOS[kind], ModelConfig(hidden=6)).double()
    values, valid = tokens_of(kind, 8)
    found, kept = encoder(values, valid)
    assert found.shape == (*valid.shape, 6)
    assert torch.equal(kept, valid)
    other, _ = encoder(values.masked_fill(~valid[..., None], 1e30), valid)
    assert found.isfinite().all()
    assert torch.equal(found[valid], other[valid])


def test_a_field_is_told_by_its_place_and_a_code_by_its_number():
    torch.manual_seed(0)
    fields, codes = (
        ENCODERS[k](INFOS[k], ModelConfig(hidden=6)).double() for k in ("static", "codes")
    )
    zeros = torch.zeros(1, 3, 5, dtype=torch.float64)
    found, _ = fields(zeros, torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(found[0], fields.project.bias + fields.fields)
    values = torch.tensor([[[3.0, 0.0], [5.0, 2.0]]], dtype=torch.float64)
    found, _ = codes(values, torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(found[0, 0], codes.codes.weight[3] + codes.project.bias)
    age = codes.project.weight[:, 0] * 2
    torch.testing.assert_close(found[0, 1], codes.codes.weight[5] + codes.project.bias + age)


def model_of(infos, **settings):
    torch.manual_seed(0)
    model = FlexCare(ModelConfig(**(SMALL | settings)), infos, TASKS).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model.eval()


def batch_of(infos, present, seed=0, dtype=torch.float64):
    inputs = {}
    for column, info in enumerate(infos):
        rows = present[:, column].nonzero()[:, 0]
        values, valid = tokens_of(info.kind, len(present), seed + column, dtype)
        inputs[info.name] = Tokens(values[rows], valid[rows], rows)
    return Batch(len(present), inputs, NAMES)


@pytest.mark.parametrize("mask", ["boolean", "additive"])
def test_an_absent_modality_has_no_influence(mask):
    infos = list(INFOS.values())
    model = model_of(infos, mask=mask)
    present = torch.cartesian_prod(*[torch.tensor([False, True])] * 3)
    whole = model(batch_of(infos, present))
    for row, has in enumerate(present):
        names = [info.name for info, there in zip(infos, has, strict=True) if there]
        batch = batch_of(infos, present)
        alone = {}
        for name in names:
            place = int((batch.inputs[name].rows == row).nonzero())
            given = batch.inputs[name]
            alone[name] = Tokens(given.values[[place]], given.valid[[place]], torch.tensor([0]))
        found = model(Batch(1, alone, NAMES))
        for task in NAMES:
            torch.testing.assert_close(found.logits[task][0], whole.logits[task][row])


@pytest.mark.parametrize("kind", INFOS)
def test_every_valid_place_matters_and_values_of_another_shape_are_refused(kind):
    infos = [INFOS[kind]]
    model = model_of(infos)
    before = model(batch_of(infos, torch.ones(3, 1, dtype=torch.bool)))
    batch = batch_of(infos, torch.ones(3, 1, dtype=torch.bool))
    (tokens,) = batch.inputs.values()
    tokens.values[1, -1, -1] += 1
    after = model(batch)
    changed = (before.logits["death"] != after.logits["death"])[:, 0].tolist()
    assert changed == [False, True, False]
    tokens.values = torch.zeros(3, tokens.valid.shape[1], 9, dtype=torch.float64)
    with pytest.raises(UserError, match="do not fit the model"):
        model(batch)


ECG = {"channels": ["I", "II", "V1"], "unit": "mV", "kind": "wave", "rate": 4, "samples": 12}
WAVE = ModalityInfo("w", "wave", 12, {"variables": {"ecg": ECG}})


def test_a_patch_of_a_wave_is_a_linear_function_of_its_samples_and_gaps():
    torch.manual_seed(0)
    encoder = ENCODERS["wave"](WAVE, ModelConfig(hidden=6, wave_patch=4)).double()
    waves = torch.randn(2, 3, 12, dtype=torch.float64)
    waves[0, 1, 5] = float("nan")
    waves[1, 2] = float("nan")  # a channel that was not recorded
    waves[1, :, 8:] = float("nan")
    found, valid = encoder(waves, torch.ones(2, 1, dtype=torch.bool))
    assert valid.tolist() == [[True, True, True], [True, True, False]]
    weight, bias = encoder.project.weight, encoder.project.bias
    for row in range(2):
        for patch in range(3):
            part = waves[row, :, 4 * patch : 4 * patch + 4]
            there = part.isfinite().double()
            columns = torch.cat([part.nan_to_num(0).flatten(), there.mean(1)])
            expected = weight @ columns + bias + encoder.positions[patch]
            if valid[row, patch]:
                torch.testing.assert_close(found[row, patch], expected)
    assert found.isfinite().all()


def test_a_wave_that_cannot_be_cut_into_patches_is_refused():
    with pytest.raises(UserError, match="12 samples, patch 5"):
        ENCODERS["wave"](WAVE, ModelConfig(hidden=6, wave_patch=5))


@pytest.mark.parametrize(("cap", "combinations"), [(2, 78), (3, 298)])
def test_twelve_modalities_with_a_cap(cap, combinations):
    kinds = list(INFOS) * 4
    infos = [
        ModalityInfo(f"m{i:02}", kind, INFOS[kind].width, INFOS[kind].settings)
        for i, kind in enumerate(kinds)
    ]
    torch.manual_seed(0)
    model = FlexCare(ModelConfig(**(SMALL | {"max_combination": cap})), infos, TASKS)
    present = torch.rand(16, 12) < 0.7
    output = model(batch_of(infos, present, dtype=torch.float32))
    assert len(output.combinations) == combinations
    for combination, there in zip(output.combinations, output.present.T, strict=True):
        columns = [int(name[1:]) for name in combination.split("+")]
        assert torch.equal(there, present[:, columns].all(1))
    sum(x.sum() for x in output.logits.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
