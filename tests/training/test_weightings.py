"""Weightings against TorchJD's, and what ours have to do beyond: steps that ask few tasks."""

from typing import get_args

import pytest
import torch
from torchjd import scalarization

from flexcare.config import TrainingConfig
from flexcare.training.weightings import DWA, FAMO, WEIGHTINGS, Uncertainty

TASKS = ("death", "stay", "findings")


def drawn(seed, tasks=TASKS):
    """Totals of some tasks."""
    values = torch.rand(len(tasks), generator=torch.Generator().manual_seed(seed)) + 0.1
    return dict(zip(tasks, values.tolist(), strict=True))


def tensor(values):
    return torch.tensor([values[task] for task in TASKS], dtype=torch.float64, requires_grad=True)


def theirs(scalarizer, values):
    """The factors: derivatives of their scalar by the totals."""
    totals = tensor(values)
    scalar = scalarizer(totals)
    (factors,) = torch.autograd.grad(scalar, totals, retain_graph=True)
    return scalar, factors.tolist()


def test_the_settings_name_what_there_is():
    assert set(get_args(TrainingConfig.model_fields["weighting"].annotation)) == set(WEIGHTINGS)


def test_uncertainty_is_learned_as_theirs_is():
    mine, other = Uncertainty(TASKS), scalarization.UW(3).double()
    adam = torch.optim.Adam(other.parameters(), lr=0.05)
    for step in range(20):
        totals = drawn(step)
        scalar, factors = theirs(other, totals)
        assert list(mine.factors(totals, ()).values()) == pytest.approx(factors)
        adam.zero_grad()
        scalar.backward()
        adam.step()
        mine.learn(totals, {}, 0.05)
    assert max(abs(number.item()) for number in mine.numbers.values()) > 0.3


def test_famo_is_learned_as_theirs_is():
    mine, other = FAMO(TASKS), scalarization.FAMO(3).double()
    for step in range(30):
        before = drawn(step)
        after = {task: value * (0.8 + 0.2 * (task == "stay")) for task, value in before.items()}
        _, factors = theirs(other, before)
        assert list(mine.factors(before, ()).values()) == pytest.approx(factors)
        other.update(tensor(after))
        mine.learn(before, after, 0.7)
    numbers = {task: number.item() for task, number in mine.numbers.items()}
    assert max(numbers, key=numbers.get) == "stay"  # which fell least


def test_dwa_weighs_as_theirs_does():
    mine, other, epochs = DWA(TASKS), scalarization.DWA(), []
    for epoch in range(4):
        steps = [drawn(10 * epoch + step) for step in range(3)]
        for totals in steps:
            _, factors = theirs(other, totals)
            assert list(mine.factors(totals, epochs).values()) == pytest.approx(factors)
        other.step()
        epochs.append({f"loss/{t}": sum(one[t] for one in steps) / 3 for t in TASKS})
    assert len(set(mine.factors(drawn(0), epochs).values())) == 3


def test_dwa_weighs_a_task_among_all_though_it_is_asked_alone():
    epochs = [{f"loss/{task}": value for task, value in drawn(seed).items()} for seed in (0, 1)]
    every = DWA(TASKS).factors(drawn(2), epochs)
    assert DWA(TASKS).factors({"stay": 0.3}, epochs) == {"stay": every["stay"]}


def test_dwa_does_without_a_loss_that_is_not_known():
    epochs = [{"loss/death": 0.0, "loss/stay": 1.0}, {"loss/death": 1.0, "loss/stay": 1.0}]
    assert set(DWA(TASKS).factors(drawn(0), epochs).values()) == {1.0}


@pytest.mark.parametrize("kind", [Uncertainty, FAMO])
def test_a_task_that_is_not_asked_keeps_its_number(kind):
    made = kind(TASKS)
    for step in range(3):
        made.learn(drawn(step), drawn(step + 50), 0.1)
    before = {task: number.item() for task, number in made.numbers.items()}
    asked = ("death", "stay")
    made.learn(drawn(7, asked), drawn(8, asked), 0.1)
    for task in TASKS:
        assert (made.numbers[task].item() == before[task]) == (task not in asked)


def test_famo_leaves_a_total_of_zero_out():
    made = FAMO(TASKS)
    totals = drawn(0) | {"stay": 0.0}
    others = {task: value for task, value in totals.items() if task != "stay"}
    assert made.factors(totals, ()) == made.factors(others, ()) | {"stay": 1.0}
    made.learn(totals, drawn(1), 0.1)
    assert made.numbers["stay"].item() == 0
    assert all(made.numbers[task].item() for task in others)


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_what_was_learned_comes_back_and_goes_on(name):
    made, again = WEIGHTINGS[name](TASKS), WEIGHTINGS[name](TASKS)
    for step in range(3):
        made.learn(drawn(step), drawn(step + 50), 0.1)
    again.load({key: value.clone() for key, value in made.state().items()})
    for one in (made, again):
        one.learn(drawn(4), drawn(5), 0.1)
    state, other = made.state(), again.state()
    assert state.keys() == other.keys()
    assert bool(state) == (name in ("uncertainty", "famo"))
    assert all(torch.equal(state[key], other[key]) for key in state)
