"""z_S holds its own modalities and nothing else: the gradient from all else is exactly 0."""

from functools import lru_cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_batches import MIXED, NAMES, network, random_batch

cached_network = lru_cache(network)


def gradients(model, batch, combination, row):
    """By modality, the gradient of a random reading of one row's z_S with respect to its input."""
    for tokens in batch.inputs.values():
        tokens.values.requires_grad_(True)
    names = list(batch.inputs)
    z = model(batch).combined[row, combination]
    reading = (z * torch.linspace(-1, 2, len(z), dtype=z.dtype)).sum()
    values = [batch.inputs[name].values for name in names]
    found = torch.autograd.grad(reading, values, allow_unused=True)
    return {
        name: torch.zeros_like(value) if gradient is None else gradient
        for name, value, gradient in zip(names, values, found, strict=True)
    }


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_combinations_hold_only_their_own_modalities(data):
    count = data.draw(st.integers(1, 5))
    absent = data.draw(st.sampled_from(["hidden", "visible"]))
    bits = st.lists(st.booleans(), min_size=count, max_size=count)
    present = torch.tensor(data.draw(st.lists(bits, min_size=2, max_size=3)))
    model = cached_network(MIXED[:count], absent_combinations=absent)
    batch = random_batch(
        model,
        present,
        NAMES[:1],
        seed=data.draw(st.integers(0, 1000)),
        empty_rows=data.draw(st.booleans()),
    )
    for combination, members in enumerate(model.combinations):
        row = combination % len(present)
        for name, gradient in gradients(model, batch, combination, row).items():
            tokens = batch.inputs[name]
            column = [info.name for info in model.modalities].index(name)
            there = all(present[row, int(member[1:])] for member in members)
            for place, owner in enumerate(tokens.rows.tolist()):
                mine = owner == row and name in members and there and present[row, column]
                valid = tokens.valid[place][:, None].expand_as(gradient[place])
                if mine:  # else a gradient of 0 would show nothing
                    assert gradient[place][valid].abs().max() > 0
                    assert (gradient[place][~valid] == 0).all()
                else:
                    assert (gradient[place] == 0).all()


@pytest.mark.parametrize("mask", ["additive", "none"])
def test_a_leaking_mask_shows_in_the_gradient(mask):
    model = network(MIXED[:3], mask=mask)
    batch = random_batch(model, torch.ones(2, 3, dtype=torch.bool), NAMES[:1])
    found = gradients(model, batch, 0, 0)
    assert all(found[name][0].abs().max() > 0 for name in ("m1", "m2"))  # z of m0 alone


@pytest.mark.parametrize("mask", ["boolean", "additive", "none"])
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), -1e30])
def test_absent_modality_and_padding_have_no_influence(mask, garbage):
    model = network(MIXED[:3], mask=mask)
    present = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 0, 0]]).bool()
    clean = random_batch(model, present, padding=0.0, empty_rows=True)
    dirty = random_batch(model, present, padding=garbage, empty_rows=True)
    for task in NAMES:
        found = model(dirty).logits[task]
        assert found.isfinite().all()
        assert torch.equal(found, model(clean).logits[task])
    without_rows = random_batch(model, present[:, :], padding=0.0)
    for tokens, filled in zip(without_rows.inputs.values(), clean.inputs.values(), strict=True):
        tokens.values = filled.values[tokens.rows]
        tokens.valid = filled.valid[tokens.rows]
    for task in NAMES:
        torch.testing.assert_close(model(without_rows).logits[task], model(clean).logits[task])


@pytest.mark.parametrize("absent", ["hidden", "visible"])
@pytest.mark.parametrize("mask", ["boolean", "additive", "none"])
@pytest.mark.parametrize("empty_rows", [True, False])
def test_training_on_patients_of_whom_nothing_is_known_gives_finite_gradients(
    mask, absent, empty_rows
):
    model = network(MIXED[:3], mask=mask, absent_combinations=absent).train()
    for present in ([[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [1, 1, 0]]):
        output = model(random_batch(model, torch.tensor(present).bool(), empty_rows=empty_rows))
        with torch.autograd.set_detect_anomaly(True):  # no NaN on the way either
            (sum(logits.sum() for logits in output.logits.values()) + output.balance).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
