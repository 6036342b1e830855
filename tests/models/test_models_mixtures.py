"""What stands in the experts' place: as large as it says, and as blind."""

import pytest
import torch
from random_batches import every_pattern, network, random_batch

from flexcare.config import ModelConfig
from flexcare.models.experts import Experts
from flexcare.models.mixtures import MIXTURES, OneExpert

THREE = ("time_series", "image", "text")


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("hidden", [32, 128])
def test_a_dense_layer_has_the_parameters_it_replaces(hidden):
    config = ModelConfig(hidden=hidden)
    every = size(Experts(config))
    gates = 3 * hidden * config.experts
    active = (every - gates) * config.experts_per_token / config.experts + gates
    for name, wanted in (("dense_total", every), ("dense_active", active)):
        assert abs(size(MIXTURES[name](config)) - wanted) <= hidden + 1


@pytest.mark.parametrize("mixture", ["dense_active", "dense_total"])
def test_a_dense_layer_treats_all_alike(mixture):
    model = network(THREE, mixture=mixture)
    batch = random_batch(model, every_pattern(3))
    output = model(batch)
    assert output.gates.shape[-1] == model.routes == 0
    assert output.balance is None
    assert all(logits.isfinite().all() for logits in output.logits.values())
    made = model.experts(output.combined_by_task, torch.randn(8, 3, 8).double(), output.present)
    assert torch.equal(made.values[:, 0], made.values[:, 2])
    assert (made.values[:, 0][~output.present] == 0).all()


def test_one_expert_serves_everything():
    model = network(THREE, mixture="one_expert").train()
    assert isinstance(model.experts, OneExpert)
    output = model(random_batch(model, every_pattern(3)))
    present = output.present[:, None].expand(output.gates.shape[:3])
    assert (output.gates[..., 0][present] == 1).all()
    assert (output.gates[..., 1:] == 0).all()
    (sum(x.sum() for x in output.logits.values()) + output.balance).backward()
    assert model.experts.weight1.grad[0].any()
    assert not model.experts.weight1.grad[1:].any()
