"""An ensemble answers with the mean of its members' probabilities."""

import math

import pytest
import torch
from random_batches import MIXED, NAMES, SMALL, TASKS, every_pattern, modalities, random_batch

from flexcare.baselines.networks import NETWORKS
from flexcare.config import ModelConfig
from flexcare.models.ensemble import Ensemble, mean_logits
from flexcare.serving.predictor import probabilities

KINDS = MIXED[:3]


def members(name="flexcare", count=3):
    """Networks in eval mode that answer differently."""
    torch.manual_seed(0)
    config = ModelConfig(**SMALL)
    models = [NETWORKS[name](config, modalities(KINDS), TASKS).double() for _ in range(count)]
    for model in models:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.5 * torch.randn_like(parameter)
    return [model.eval() for model in models]


@pytest.mark.parametrize("info", TASKS, ids=NAMES)
@pytest.mark.parametrize("name", ["flexcare", "early_fusion", "moe_health"])
def test_answers_are_the_mean_of_the_members_probabilities(name, info):
    models = members(name)
    batch = random_batch(models[0], every_pattern(len(KINDS)))
    each = torch.stack([probabilities(info, m(batch).logits[info.name]) for m in models])
    found = probabilities(info, Ensemble(models)(batch).logits[info.name])
    torch.testing.assert_close(found, each.mean(0), rtol=0, atol=1e-12)
    assert each.std(0).max() > 0.05


def test_only_the_tasks_asked_are_answered():
    models = members()
    batch = random_batch(models[0], every_pattern(len(KINDS)), NAMES[1:])
    output = Ensemble(models)(batch)
    assert output.tasks == tuple(output.logits) == NAMES[1:]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saturated_answers_have_finite_logits(dtype):
    logits = torch.tensor([[[200.0, -200.0, 200.0]], [[300.0, -210.0, -200.0]]], dtype=dtype)
    low = -200 + math.log((1 + math.exp(-10)) / 2)
    expected = torch.tensor([[200 + math.log(2), low, 0.0]], dtype=dtype)
    torch.testing.assert_close(mean_logits("multilabel", logits), expected)
    found = mean_logits("multiclass", 100 * logits)
    assert found.isfinite().all()
    torch.testing.assert_close(found.exp(), torch.tensor([[0.75, 0.0, 0.25]], dtype=dtype))


def test_half_precision_is_widened():
    logits = torch.tensor([[[9.0]], [[9.5]]], dtype=torch.bfloat16)
    found = mean_logits("binary", logits)
    torch.testing.assert_close(found.sigmoid(), logits.float().sigmoid().mean(0))


def test_gates_and_weights_are_means_and_nothing_else_is_claimed():
    models = members()
    batch = random_batch(models[0], every_pattern(len(KINDS)))
    output, outputs = Ensemble(models)(batch), [model(batch) for model in models]
    assert output.combinations == outputs[0].combinations
    assert torch.equal(output.present, outputs[0].present)
    for name in ("gates", "weights"):
        each = torch.stack([getattr(one, name) for one in outputs])
        torch.testing.assert_close(getattr(output, name), each.mean(0))
    known = output.present.any(1)
    torch.testing.assert_close(output.weights[known].sum(-1), torch.ones(7, 3).double())
    assert output.balance is None
    assert output.combined_by_task.numel() == 0


def test_networks_without_combinations_have_neither():
    models = members("early_fusion")
    output = Ensemble(models)(random_batch(models[0], every_pattern(len(KINDS))))
    assert output.combinations == ()
    assert output.gates.numel() == output.weights.numel() == output.present.numel() == 0
