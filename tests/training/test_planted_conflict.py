"""Two invented tasks and one shared factor: where aggregators beat the sum, and where they may not
lose.

A linear unit, started at 0, has to answer both tasks. One asks for f + a, the other for b - f
(conflict) or b + f (synergy): f is shared, a and b are each one's own. The first task's loss counts
30 times, as losses of different units do. In theory: the sum ends at the loud task's answer, so the
quiet one's correlation with its own falls to -1/2 in conflict, below that of knowing nothing.
Halfway, both have 1/2. Aggregators that let no task's loss rise, or do not mind lengths, end near
there. With losses of one loudness the sum is halfway by itself, and nothing is to be gained.
"""

from functools import cache
from types import SimpleNamespace

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from flexcare.config import TrainingConfig
from flexcare.training.gradients import Gradients
from flexcare.training.objectives import Losses

SEEDS, STEPS, PATIENTS, LOUD, RATE = (0, 1, 2), 80, 64, 30.0, 0.03
CONFLICT, SYNERGY = -1.0, 1.0
BOTH = ("loud", "quiet")
MARGIN = 0.1  # in the mean correlation of the two
SURE = ("upgrad", "pcgrad", "mgda", "imtl_g")
BLIND = ("mean", "cagrad")  # they stay near the mean, in which the quiet task is not heard


class Unit(nn.Module):
    """Answers every task with one number."""

    def __init__(self):
        super().__init__()
        self.tasks = [SimpleNamespace(name=task) for task in BOTH]
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return x @ self.weight


def asked(x, sign):
    """What each task wants to know of patients (n, 3) of f, a and b."""
    return {"loud": x[:, 0] + x[:, 1], "quiet": sign * x[:, 0] + x[:, 2]}


@cache
def learned(sign, seed, aggregator="sum", loud=LOUD, cycle=False):
    """By task the correlation of its answers with the truth, on new patients."""
    random = torch.Generator().manual_seed(seed)
    factors = {"loud": loud, "quiet": 1.0}
    schedule = "round_robin" if cycle else "parallel"
    config = TrainingConfig(schedule=schedule, aggregator=aggregator)
    fabric = Fabric(accelerator="cpu", devices=1)
    unit = Unit()
    wrapped, optimizer = fabric.setup(unit, torch.optim.Adam(unit.parameters(), lr=RATE))
    gradients = Gradients(fabric, unit, config)

    def lose(batch):
        tasks, x = batch
        answer, truth = wrapped(x), asked(x, sign)
        parts = {f"loss/{task}": (answer - truth[task]).square().mean() for task in tasks}
        return Losses({task: factors[task] * parts[f"loss/{task}"] for task in tasks}, parts)

    for step in range(STEPS):
        tasks = [(task,) for task in BOTH] if cycle else [BOTH]
        batches = [(one, torch.randn(PATIENTS, 3, generator=random)) for one in tasks]
        optimizer.zero_grad()
        gradients.fill(lose, batches, [], step)
        optimizer.step()
    x = torch.randn(4000, 3, generator=torch.Generator().manual_seed(100 + seed))
    with torch.no_grad():
        answer, truth = unit(x), asked(x, sign)
    return {t: torch.corrcoef(torch.stack([answer, truth[t]]))[0, 1].item() for t in BOTH}


def gains(sign, **chosen):
    """By seed, how far the mean over both tasks is above that of the sum on the same patients."""
    held = {key: chosen[key] for key in ("loud", "cycle") if key in chosen}
    pairs = [(learned(sign, seed, **chosen), learned(sign, seed, **held)) for seed in SEEDS]
    return [(sum(one.values()) - sum(plain.values())) / 2 for one, plain in pairs]


def test_the_sum_gives_up_the_quiet_task_for_the_loud_one():
    for seed in SEEDS:
        found = learned(CONFLICT, seed)
        assert found["loud"] > 0.95
        assert found["quiet"] < -0.3


@pytest.mark.parametrize("name", [*SURE, "nash_mtl"])
def test_in_conflict_an_aggregator_beats_the_sum(name):
    assert min(gains(CONFLICT, aggregator=name)) > MARGIN


@pytest.mark.parametrize("name", ["upgrad", "mgda", "imtl_g"])
def test_over_cycles_of_single_tasks_it_does_too(name):
    assert min(gains(CONFLICT, aggregator=name, cycle=True)) > MARGIN


@pytest.mark.parametrize("name", BLIND)
def test_what_stays_near_the_mean_gains_nothing(name):
    """So the margin is not won by just any rule."""
    assert max(map(abs, gains(CONFLICT, aggregator=name))) < MARGIN / 2


def test_with_one_loudness_there_is_nothing_to_gain():
    assert max(map(abs, gains(CONFLICT, aggregator="upgrad", loud=1.0))) < MARGIN / 2


@pytest.mark.parametrize("loud", [1.0, LOUD])
@pytest.mark.parametrize("name", SURE)
def test_in_synergy_an_aggregator_does_not_lose(name, loud):
    assert min(gains(SYNERGY, aggregator=name, loud=loud)) > -0.01
