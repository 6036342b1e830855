"""The objective against plain computations."""

import math

import numpy as np
import pytest
import torch

from flexcare.batch import Batch
from flexcare.config import ObjectiveConfig
from flexcare.errors import UserError
from flexcare.models.flexcare import Output
from flexcare.schema import TaskInfo
from flexcare.training.objectives import decorrelation, objective, task_loss, task_weights

BINARY = TaskInfo("death", "?", "binary", ("dead",), "average_precision", 0.2)
SEVERAL = TaskInfo("days", "?", "multiclass", ("0", "1", "2"), "quadratic_kappa", 0.5)
LABELS = TaskInfo("findings", "?", "multilabel", ("a", "b"), "macro_average_precision")


def test_binary_and_multilabel_loss_is_the_mean_over_labels_that_exist():
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0], [1.0, 1.0]])
    labels = torch.tensor([[1.0, 0.0], [0.0, math.nan], [math.nan, 1.0]])
    mask = torch.tensor([[True, True], [True, False], [False, True]])
    chances = 1 / (1 + np.exp(-logits.numpy()))
    terms = [chances[0, 0], 1 - chances[0, 1], 1 - chances[1, 0], chances[2, 1]]
    expected = -np.mean(np.log(terms))
    assert task_loss(LABELS, logits, labels, mask).item() == pytest.approx(expected, rel=1e-6)
    one = task_loss(BINARY, logits[:, :1], labels[:, :1], mask[:, :1])
    assert one.item() == pytest.approx(-np.mean(np.log([terms[0], terms[2]])), rel=1e-6)


def test_multiclass_loss_is_cross_entropy_over_labels_that_exist():
    logits = torch.tensor([[2.0, -1.0, 0.0], [0.5, 3.0, 1.0], [9.0, 9.0, 9.0]])
    labels, mask = torch.tensor([[1.0], [2.0], [-1.0]]), torch.tensor([[True], [True], [False]])
    chances = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    expected = -np.mean(np.log([chances[0, 1], chances[1, 2]]))
    assert task_loss(SEVERAL, logits, labels, mask).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("info", [BINARY, SEVERAL, LABELS])
def test_without_labels_the_loss_and_its_gradient_are_zero(info):
    logits = torch.randn(3, info.outputs, requires_grad=True)
    width = 1 if info.kind == "multiclass" else info.outputs
    loss = task_loss(info, logits, torch.full((3, width), math.nan), torch.zeros(3, width).bool())
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_masked_labels_have_no_gradient():
    logits = torch.randn(2, 2, requires_grad=True)
    mask = torch.tensor([[True, False], [False, True]])
    task_loss(LABELS, logits, torch.tensor([[1.0, math.inf], [math.nan, 0.0]]), mask).backward()
    assert (logits.grad[~mask] == 0).all()
    assert (logits.grad[mask] != 0).all()


@pytest.mark.parametrize("how", ["covariance", "correlation"])
def test_decorrelation_by_hand(how):
    torch.manual_seed(0)
    z = torch.randn(5, 4, 6).double()
    present = torch.tensor(
        [[1, 1, 1, 1], [1, 0, 1, 1], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]]
    ).bool()
    table = {"covariance": np.cov, "correlation": np.corrcoef}[how]
    of_samples = []
    for vectors, there in zip(z.numpy(), present.numpy(), strict=True):
        if there.sum() >= 2:
            entries = table(vectors[there])
            off = entries[~np.eye(len(entries), dtype=bool)]
            of_samples.append((off**2).mean())
    dirty = torch.where(present[..., None], z, math.nan).requires_grad_()
    found = decorrelation(dirty, present, how)
    found.backward()
    assert found.item() == pytest.approx(np.mean(of_samples), rel=1e-6)
    assert dirty.grad.isfinite().all()


def test_correlation_is_free_of_scale_and_covariance_is_not():
    torch.manual_seed(0)
    z, present = torch.randn(3, 3, 6).double(), torch.ones(3, 3).bool()
    for how, same in (("correlation", True), ("covariance", False)):
        pair = [decorrelation(x, present, how).item() for x in (z, 10 * z + 3)]
        assert (pair[0] == pytest.approx(pair[1], rel=1e-6)) == same


def test_without_decorrelation_the_term_is_zero():
    assert decorrelation(torch.randn(2, 3, 6), torch.ones(2, 3).bool(), "none").item() == 0


@pytest.mark.parametrize("how", ["covariance", "correlation"])
def test_decorrelation_of_single_combinations_is_zero_with_finite_gradient(how):
    z = torch.randn(2, 3, 6, requires_grad=True)
    loss = decorrelation(z, torch.tensor([[1, 0, 0], [0, 0, 0]]).bool(), how)
    loss.backward()
    assert loss.item() == 0
    assert (z.grad == 0).all()


def test_decorrelation_moves_only_present_combinations():
    z = torch.randn(1, 3, 6, requires_grad=True)
    decorrelation(z, torch.tensor([[True, True, False]]), "covariance").backward()
    assert (z.grad[0, :2] != 0).any(1).all()
    assert (z.grad[0, 2] == 0).all()


def asked(*infos):
    torch.manual_seed(0)
    logits = {i.name: torch.randn(4, i.outputs, requires_grad=True) for i in infos}
    names = tuple(logits)
    z, present = torch.randn(4, 1, 3, 6), torch.ones(4, 3).bool()
    routing = torch.zeros(4, len(names), 3, 5), torch.zeros(4, len(names), 3)
    output = Output(logits, names, ("a", "b", "a+b"), z, present, *routing, torch.tensor(3.0))
    labels = {i.name: torch.ones(4, 1 if i.kind == "multiclass" else i.outputs) for i in infos}
    masks = {name: torch.ones_like(value).bool() for name, value in labels.items()}
    return output, Batch(4, {}, names, labels, masks)


def test_total_is_the_weighted_sum_over_tasks():
    output, batch = asked(BINARY, SEVERAL, LABELS)
    config = ObjectiveConfig(
        decorrelation_weight=0.7, balance_weight=0.02, task_weights={"findings": 3.0}
    )
    parts = objective(output, batch, [LABELS, SEVERAL, BINARY], config)
    shared = 0.7 * parts["decorrelation"].item() + 0.02 * 3.0
    expected = sum(
        weight * (parts[f"loss/{name}"].item() + shared)
        for name, weight in (("death", 0.2), ("days", 0.5), ("findings", 3.0))
    )
    assert parts["total"].item() == pytest.approx(expected)
    assert set(parts) == {
        "total", "decorrelation", "balance", "loss/death", "loss/days", "loss/findings"
    }  # fmt: skip
    assert parts["decorrelation"].item() == pytest.approx(
        decorrelation(output.combined, output.present, "covariance").item()
    )
    parts["total"].backward()
    assert all(logits.grad.any() for logits in output.logits.values())


def test_a_task_that_is_not_asked_costs_nothing():
    output, batch = asked(BINARY)
    parts = objective(output, batch, [BINARY, SEVERAL], ObjectiveConfig(decorrelation="none"))
    expected = 0.2 * (parts["loss/death"].item() + 0.01 * 3.0)
    assert parts["total"].item() == pytest.approx(expected)


def test_what_a_network_does_not_have_is_no_term():
    output, batch = asked(BINARY, SEVERAL)
    bare = Output(output.logits, output.tasks)
    parts = objective(bare, batch, [BINARY, SEVERAL], ObjectiveConfig())
    assert set(parts) == {"total", "loss/death", "loss/days"}
    expected = 0.2 * parts["loss/death"].item() + 0.5 * parts["loss/days"].item()
    assert parts["total"].item() == pytest.approx(expected)
    bare.balance = torch.tensor(3.0)
    parts = objective(bare, batch, [BINARY, SEVERAL], ObjectiveConfig(balance_weight=0.1))
    assert parts["total"].item() == pytest.approx(expected + (0.2 + 0.5) * 0.1 * 3.0)


def test_weight_of_an_unknown_task_is_refused():
    with pytest.raises(UserError, match="Did you mean 'death'"):
        task_weights([BINARY], ObjectiveConfig(task_weights={"deaths": 1.0}))
