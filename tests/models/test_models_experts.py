"""The gate and its experts against plain computations."""

import math

import pytest
import torch
from torch import nn

from flexcare.config import ModelConfig
from flexcare.models.experts import Experts, top_k, variation


def experts(**settings):
    torch.manual_seed(0)
    return Experts(ModelConfig(**({"hidden": 6, "experts": 5} | settings))).double()


def some_input(tasks=3):
    torch.manual_seed(1)
    z = torch.randn(4, 1, 7, 6, dtype=torch.float64)
    present = torch.rand(4, 7) < 0.6
    present[3] = False
    return z, torch.randn(4, tasks, 6, dtype=torch.float64), present


@pytest.mark.parametrize("chosen", [1, 2, 5])
@pytest.mark.parametrize("training", [True, False])
def test_gate_weights_of_present_combinations_are_k_and_sum_to_one(chosen, training):
    z, tasks, present = some_input()
    gates = experts(experts_per_token=chosen).train(training)(z, tasks, present).gates
    shown = present[:, None].expand(4, 3, 7)
    assert ((gates > 0).sum(-1)[shown] == chosen).all()
    torch.testing.assert_close(gates.sum(-1)[shown], torch.ones_like(gates[shown][:, 0]))
    assert (gates[~shown] == 0).all()


@pytest.mark.parametrize("by_task", [False, True])
def test_only_chosen_experts_are_computed_and_the_sum_is_that_of_all(by_task):
    model = experts().eval()
    z, tasks, present = some_input()
    if by_task:
        z = torch.randn(4, 3, 7, 6, dtype=torch.float64)
    routed = model(z, tasks, present)
    everything = torch.stack([model.expert(e, z.flatten(0, 2)) for e in range(5)], 1)
    everything = everything.reshape(*z.shape[:3], 5, 6).expand(4, 3, 7, 5, 6)
    expected = (routed.gates[..., None] * everything).sum(-2)
    torch.testing.assert_close(routed.values, expected)
    rows = []
    one_expert = model.expert
    model.expert = lambda index, x: rows.append(len(x)) or one_expert(index, x)
    model(z, tasks, present)
    chosen = routed.gates > 0
    assert sum(rows) == (chosen if by_task else chosen.any(1)).sum()  # once for all tasks


def test_gradients_of_sparse_experts_equal_those_of_all():
    z, tasks, present = some_input()
    found = []
    for sparse in (True, False):
        model = experts().eval()
        routed = model(z, tasks, present)
        values = routed.values
        if not sparse:
            everything = torch.stack([model.expert(e, z.flatten(0, 2)) for e in range(5)], 1)
            everything = everything.reshape(4, 1, 7, 5, 6)
            values = (routed.gates[..., None] * everything).sum(-2)
        values.square().sum().backward()
        found.append([p.grad for n, p in model.named_parameters() if n != "gate_noise.weight"])
    for sparse_gradient, full_gradient in zip(*found, strict=True):
        torch.testing.assert_close(sparse_gradient, full_gradient)


def test_absent_combinations_may_hold_anything():
    z, tasks, present = some_input()
    dirty = torch.where(present[:, None, :, None], z, 1e9)
    clean, other = (experts().eval()(x, tasks, present) for x in (z, dirty))
    assert torch.equal(clean.values, other.values)
    assert torch.equal(clean.balance, other.balance)


def test_each_expert_starts_as_linear_layers_do():
    model = experts()
    torch.manual_seed(0)
    for _ in range(3):
        nn.Linear(6, 5, bias=False)
    first = nn.Linear(6, 6).double()
    x = torch.randn(2, 6, dtype=torch.float64)
    torch.testing.assert_close(x @ model.weight1[0] + model.bias1[0], first(x))


def test_noise_only_in_training_and_only_if_asked():
    z, tasks, present = some_input()
    for training, noisy, same in ((True, True, False), (True, False, True), (False, True, True)):
        model = experts(gate_noise=noisy).train(training)
        first, second = model(z, tasks, present), model(z, tasks, present)
        assert torch.equal(first.gates, second.gates) == same


def naive_load(clean, noisy, noise, k):
    """For each expert the chance that it stays above the k-th of the others, one by one."""
    out = torch.zeros_like(clean)
    for row in range(len(clean)):
        for e in range(clean.shape[1]):
            others = sorted(noisy[row, i].item() for i in range(clean.shape[1]) if i != e)
            z = (clean[row, e].item() - others[-k]) / noise[row, e].item()
            out[row, e] = 0.5 * (1 + math.erf(z / math.sqrt(2)))
    return out


@pytest.mark.parametrize("k", [1, 2, 4])
def test_load_is_the_chance_of_being_chosen_again(k):
    torch.manual_seed(2)
    clean, noise = torch.randn(20, 5).double(), torch.rand(20, 5).double() + 0.1
    noisy = clean + noise * torch.randn(20, 5).double()
    _, load = top_k(noisy, clean, noise, k)
    torch.testing.assert_close(load, naive_load(clean, noisy, noise, k))


def test_load_agrees_with_drawing_the_noise_again():
    torch.manual_seed(3)
    clean, noise = torch.randn(1, 5).double(), torch.rand(1, 5).double() + 0.3
    noisy = clean + noise * torch.randn(1, 5).double()
    _, load = top_k(noisy, clean, noise, 2)
    for e in range(5):
        again = noisy.repeat(20000, 1)
        again[:, e] = clean[0, e] + noise[0, e] * torch.randn(20000).double()
        share = (top_k(again, again, None, 2)[0][:, e] > 0).double().mean()
        assert abs(share.item() - load[0, e].item()) < 0.015


def test_balance_is_the_variation_of_importance_and_load():
    model = experts().eval()
    z, tasks, present = some_input()
    routed = model(z, tasks, present)
    gates = routed.gates[present[:, None].expand(4, 3, 7)]
    expected = 0.0
    for amounts in (gates.sum(0), (gates > 0).double().sum(0)):
        mean = amounts.mean().item()
        variance = sum((a.item() - mean) ** 2 for a in amounts) / (len(amounts) - 1)
        expected += variance / (mean**2 + 1e-10)
    assert routed.balance.item() == pytest.approx(expected)


def test_balance_in_training_uses_the_smooth_load():
    model = experts().train()
    z, tasks, present = some_input(tasks=1)
    torch.manual_seed(5)
    routed = model(z, tasks, present)
    torch.manual_seed(5)
    clean = model.gate(z) + model.gate_task(tasks)[:, :, None]
    noise = nn.functional.softplus(model.gate_noise(z)) + 0.01
    noisy = clean + torch.randn_like(clean) * noise
    shown = present[:, None]
    load = naive_load(clean[shown], noisy[shown], noise[shown], 2).sum(0)
    importance = routed.gates[shown].sum(0)
    expected = sum(a.var() / (a.mean() ** 2 + 1e-10) for a in (importance, load))
    torch.testing.assert_close(routed.balance, expected)


def test_equal_use_has_no_variation():
    assert variation(torch.full((5,), 3.0)).item() == 0
    assert variation(torch.zeros(5)).item() == 0
