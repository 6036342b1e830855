"""The gradient of an update: as before where nothing is asked for, and what aggregators make."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from short_runs import TRAINING, files, measured, settings

from flexcare.baselines.networks import NETWORKS
from flexcare.config import Config
from flexcare.errors import UserError
from flexcare.store import Store
from flexcare.training.conflicts import group_of
from flexcare.training.gradients import shared_parameters
from flexcare.training.objectives import objective
from flexcare.training.run import assembled, resolved, train
from small_store import TINY

TASKS = ("death", "stay", "findings")
SURE = TINY | {"dropout": 0.0, "gate_noise": False}


def loop(store, **training):
    """A loop on the small store, at its beginning."""
    config = {"model": SURE, "training": {"batch_size": 8, "learning_rate": 1e-3} | training}
    return assembled(Store(store), resolved(Store(store), config))


def update(made, number):
    """The tasks and batches of one update."""
    made.model.train()
    return next(made._batches(made.updates(0)[number:]))


def full_update(made):
    """The first update that asks every task."""
    number = next(n for n, one in enumerate(made.updates(0)) if sum(len(s.tasks) for s in one) == 3)
    return update(made, number)


def filled(made, batches):
    """By name, the gradients of an update; 0 where there is none."""
    made.optimizer.zero_grad(set_to_none=True)
    made.gradients.fill(made._lose, batches, [], 0)
    named = made.model.named_parameters()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in named}


def apart(made, batches):
    """By task and name, the gradient of its total, by plain means."""
    out = {}
    for batch in batches:
        for task in batch.tasks:
            made.model.zero_grad()
            made._lose(batch).totals[task].backward()
            named = made.model.named_parameters()
            out[task] = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in named}
            out[task] = {n: value.clone() for n, value in out[task].items()}
    return out


@pytest.mark.parametrize("schedule", ["parallel", "proportional"])
def test_the_sum_is_the_plain_gradient_of_the_objective(store, schedule):
    """Bit for bit."""
    made, other = loop(store, schedule=schedule), loop(store, schedule=schedule)
    for number in range(4):
        tasks, batches = update(made, number)
        made._step(tasks, batches)
        made.progress.total += 1
        other.optimizer.zero_grad(set_to_none=True)
        config = other.config.objective
        objective(other.model(batches[0]), batches[0], other.model.tasks, config)[
            "total"
        ].backward()
        for parameter in other.model.parameters():
            if parameter.grad is not None and not parameter.grad.any():
                parameter.grad = None
        other.optimizer.step()
        for a, b in zip(made.model.parameters(), other.model.parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("schedule", ["parallel", "round_robin"])
@pytest.mark.parametrize("weighting", ["fixed", "uncertainty", "famo"])
def test_shared_parameters_take_the_aggregate_and_a_tasks_own_the_sum(store, schedule, weighting):
    """The mean, as an aggregator, is a third of the sum on what is shared and there alone."""
    made = loop(store, schedule=schedule, aggregator="mean", weighting=weighting)
    tasks, batches = full_update(made)
    assert sorted(tasks) == sorted(TASKS)
    rows, found = apart(made, batches), filled(made, batches)
    values = {
        task: value.item() for one in batches for task, value in made._lose(one).totals.items()
    }
    factors = made.gradients.weighting.factors(values, [])
    shared = shared_parameters(made.model)
    for name, gradient in found.items():
        expected = sum(factors[task] * rows[task][name] for task in TASKS)
        expected = expected / (3 if name in shared else 1)
        torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-4, msg=name)
    assert any(found[name].any() for name in shared)


def test_no_task_loses_by_an_aggregate(store):
    made = loop(store, schedule="round_robin", aggregator="upgrad")
    _, batches = full_update(made)
    rows, found = apart(made, batches), filled(made, batches)
    for task in TASKS:
        towards = sum(
            float((rows[task][n] * found[n]).sum()) for n in shared_parameters(made.model)
        )
        assert towards > -1e-6


def test_what_an_aggregator_draws_depends_on_the_step_alone(store):
    made = loop(store, schedule="round_robin", aggregator="pcgrad")
    _, batches = full_update(made)
    once = filled(made, batches)
    torch.randn(1)
    assert all(torch.equal(once[name], value) for name, value in filled(made, batches).items())


@pytest.mark.parametrize("name", NETWORKS)
def test_only_what_is_of_one_task_is_not_shared(store, name):
    opened = Store(store)
    model = NETWORKS[name](
        Config.model_validate({"model": TINY}).model,
        list(opened.modalities.values()),
        list(opened.tasks.values()),
    )
    alone = {n for n, _ in model.named_parameters()} - shared_parameters(model).keys()
    words = {word for one in alone for word in one.split(".")}
    assert words >= set(TASKS)
    assert not words & set(opened.modalities)
    for one in alone:
        assert one.startswith("task_embedding.") or set(TASKS) & set(one.split("."))
    with_task = {n for n, _ in model.named_parameters() if set(TASKS) & set(n.split("."))}
    assert with_task <= alone


def test_groups_are_parts_of_the_network_and_single_layers():
    assert group_of("encoders.film.project.weight") == "encoders"
    assert group_of("fusion.layers.2.norm1.weight") == "fusion.layers.2"
    assert group_of("pooling.outer.weight") == "pooling"


@pytest.mark.parametrize("given", [{"aggregator": "upgrad"}, {"weighting": "famo"}])
def test_tasks_one_after_the_other_have_nothing_to_compare(store, tmp_path, given):
    with pytest.raises(UserError, match="round_robin"):
        train(store, tmp_path / "run", settings=settings(schedule="sequential", **given))
    assert not list(tmp_path.iterdir())


def test_a_cycle_is_one_update(store):
    alone, together = (loop(store, schedule="round_robin", aggregator=a) for a in ("sum", "upgrad"))
    assert [len(one) for one in alone.updates(0)] == [1] * 9
    assert [len(one) for one in together.updates(0)] == [3] * 3
    asked = [[s.tasks[0] for s in one] for one in together.updates(0)]
    assert asked == [list(TASKS)] * 3


@pytest.fixture(scope="module")
def watched(store, tmp_path_factory):
    """The run of the fixture `whole`, measured at every fourth step."""
    out = tmp_path_factory.mktemp("watched") / "run"
    return train(store, out, settings=settings(measure_gradients=4), quiet=True)


def test_measuring_changes_nothing(whole, watched):
    a, b = (load_file(run / "checkpoint.safetensors") for run in (whole, watched))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert files(whole, "task_bests").keys() == files(watched, "task_bests").keys()
    assert not (whole / "gradients.jsonl").exists()


def test_gradients_are_measured_at_every_so_many_steps(watched):
    found = measured(watched)
    assert [line["step"] for line in found] == [0, 4, 8, 12, 16, 20, 24]
    assert [line["epoch"] for line in found] == [0, 0, 0, 1, 1, 2, 2]
    for line in found:
        assert line["batch"] == TRAINING["batch_size"]
        assert line["tasks"] == list(TASKS)
        assert line["groups"].keys() >= {"all", "encoders", "fusion.layers.0", "experts", "pooling"}
        for group in line["groups"].values():
            cosine = np.array(group["cosine"], float)
            assert cosine == pytest.approx(cosine.T)
            assert np.diag(cosine) == pytest.approx(1)
            assert abs(cosine).max() <= 1 + 1e-6
    assert len({line["groups"]["all"]["cosine"][0][1] for line in found}) == len(found)


def test_measured_cosines_are_those_of_the_task_losses(store):
    made = loop(store, measure_gradients=1)
    made.model.train()
    made._measure()
    assert made.model.training
    (line,) = made.progress.measured
    made.model.eval()
    rows = []
    for step in made.plan.one_each(0):
        assert len(step.rows) == 8
        made.model.zero_grad()
        made._lose(made._share(step)).parts[f"loss/{step.tasks[0]}"].backward()
        known = shared_parameters(made.model)
        own = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in known.items()}
        rows.append({name: value.flatten().clone() for name, value in own.items()})
    for group, told in line["groups"].items():
        names = [name for name in rows[0] if group in ("all", group_of(name))]
        flat = torch.stack([torch.cat([row[name] for name in names]) for row in rows])
        assert told["norm"] == pytest.approx(flat.norm(dim=1).tolist(), rel=1e-4)
        unit = flat / flat.norm(dim=1, keepdim=True)
        expected = (unit @ unit.T).tolist()
        for row, own in zip(told["cosine"], expected, strict=True):
            assert row == pytest.approx(own, abs=1e-4)


def test_a_gradient_of_zeros_has_no_cosine(store):
    """A head of zeros sends nothing back."""
    made = loop(store, measure_gradients=1)
    with torch.no_grad():
        made.model.heads.linear["death"].weight.zero_()
    made._measure()
    found = made.progress.measured[0]["groups"]["all"]
    assert found["cosine"][0] == [None] * 3
    assert [row[0] for row in found["cosine"]] == [None] * 3
    assert found["norm"][0] == 0
    assert found["cosine"][1][1] == 1


def test_factors_are_told(store, tmp_path):
    given = settings(schedule="round_robin", weighting="uncertainty", epochs=1)
    out = train(store, tmp_path / "run", settings=given, quiet=True)
    line = json.loads((out / "metrics.jsonl").read_text())
    assert {f"weight/{task}" for task in TASKS} <= line["train"].keys()
    assert line["train"]["weight/death"] == pytest.approx(0.5, abs=0.01)


def test_what_diverges_under_an_aggregator_is_refused(store, tmp_path):
    given = settings(schedule="parallel", aggregator="upgrad", learning_rate=1e30)
    with pytest.raises(UserError, match="training diverged"):
        train(store, tmp_path / "run", settings=given, quiet=True)
