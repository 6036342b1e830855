"""What aggregators do with gradients that disagree, and what is remembered of whom."""

import sys
import warnings
from typing import get_args

import pytest
import torch
from torchjd import aggregation

from flexcare.config import TrainingConfig
from flexcare.errors import UserError
from flexcare.training.aggregators import RULES, Aggregator

TASKS = ("death", "stay", "findings")
# Under these no task's loss rises, to first order, whatever the lengths of two gradients.
KIND = ("upgrad", "pcgrad", "gradvac", "mgda", "imtl_g", "config", "nash_mtl")


def gradients(seed, rows=3, columns=20):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def opposed(loud=30.0):
    """Two gradients of opposite sign in what they share, one of which is far longer."""
    return torch.tensor([[loud, 0.6 * loud, 0.0], [-1.0, 0.0, 0.6]])


def test_the_settings_name_what_there_is():
    names = get_args(TrainingConfig.model_fields["aggregator"].annotation)
    assert set(names) == {"sum", *RULES}


def test_the_sum_gives_way_to_the_louder_task():
    rows = opposed()
    assert (rows @ rows.sum(0))[1] < 0


@pytest.mark.parametrize("name", KIND)
def test_no_task_loses_where_two_disagree(name):
    rows = opposed()
    out = Aggregator(name, TASKS)(("death", "findings"), rows)
    assert (rows @ out >= -1e-3).all()
    assert out.norm() > 0


@pytest.mark.parametrize("name", sorted(RULES.keys() - {"pcgrad", "gradvac"}))
def test_tasks_that_agree_go_their_common_way(name):
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    out = Aggregator(name, TASKS)(("death", "stay"), rows)
    torch.testing.assert_close(out / out.norm(), rows[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", RULES)
def test_a_task_alone_is_left_as_it_is(name):
    rows = gradients(0, rows=1)
    assert torch.equal(Aggregator(name, TASKS)(("stay",), rows), rows[0])
    with_nothing = torch.cat([rows, torch.zeros_like(rows)])
    assert torch.equal(Aggregator(name, TASKS)(("stay", "death"), with_nothing), rows[0])


@pytest.mark.parametrize("name", RULES)
def test_a_gradient_of_zeros_has_no_say(name):
    rows = gradients(1)
    silent = torch.cat([rows[:1], torch.zeros(1, 20), rows[1:2]])
    torch.manual_seed(0)
    expected = Aggregator(name, TASKS)(("death", "findings"), rows[:2])
    torch.manual_seed(0)
    assert torch.equal(Aggregator(name, TASKS)(TASKS, silent), expected)


@pytest.mark.parametrize("name", RULES)
def test_what_diverged_is_not_hidden(name):
    rows = gradients(2)
    rows[1, 3] = torch.nan
    assert Aggregator(name, TASKS)(TASKS, rows).isnan().any()


@pytest.mark.parametrize("name", RULES)
def test_short_gradients_are_aggregated_as_long_ones_are(name):
    rows, found = gradients(3), []
    for scale in (1.0, 1e-5):
        torch.manual_seed(0)
        found.append(Aggregator(name, TASKS)(TASKS, rows * scale) / scale)
    torch.testing.assert_close(found[0], found[1], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["gradvac", "nash_mtl"])
def test_with_every_task_in_every_step_it_remembers_as_theirs_does(name):
    mine = Aggregator(name, TASKS)
    theirs = {"gradvac": aggregation.GradVac, "nash_mtl": lambda: aggregation.NashMTL(3)}[name]()
    start = mine.memory.clone()
    for step in range(5):
        rows = gradients(step)
        rows = rows / rows.norm()
        torch.manual_seed(step)
        found = mine(TASKS, rows)
        torch.manual_seed(step)
        with warnings.catch_warnings(action="ignore"):  # of their solver
            expected = theirs(rows)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert not torch.equal(mine.memory, start)


@pytest.mark.parametrize("name", ["gradvac", "nash_mtl"])
def test_a_step_of_some_tasks_changes_what_is_remembered_of_them_alone(name):
    made = Aggregator(name, TASKS)
    made(TASKS, gradients(0))
    before = made.memory.clone()
    made(("findings", "death"), gradients(1, rows=2))
    changed = made.memory != before
    assert not changed[1].any()
    assert changed.ndim != 2 or not changed[:, 1].any()
    assert changed[0].any()
    assert changed[2].any()


def test_without_torchjd_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchjd", None)
    with pytest.raises(UserError, match=r"flexcare\[gradients\]"):
        Aggregator("upgrad", TASKS)


def test_without_a_solver_the_extra_is_named(monkeypatch):
    from torchjd import _mixins

    monkeypatch.setattr(_mixins, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"(?s)NashMTL.*flexcare\[gradients\]"):
        Aggregator("nash_mtl", TASKS)
