"""Which samples are learned from together, and in what order."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from flexcare.config import TrainingConfig
from flexcare.training.schedules import SCHEDULES, Plan, Step, cycles, one_hour
from small_store import small_store

SEQUENCES = ("sequential", "round_robin", "proportional", "temperature")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("data") / "store", train=50)


def plan(store, schedule, without=0, **settings):
    """A plan over the training split; `without` of the samples of death are left out."""
    rows = {task: store.rows(task, "train") for task in store.tasks}
    rows["death"] = rows["death"][without:]
    return Plan(store, rows, TrainingConfig(schedule=schedule, **{"batch_size": 8} | settings))


def asked(steps, task):
    """Sample rows of one task, in the order they are learned from."""
    found = [step.rows[:, step.tasks.index(task)] for step in steps if task in step.tasks]
    rows = np.concatenate(found) if found else np.zeros(0, np.int64)
    return rows[rows >= 0]


def stays(store, rows):
    return store.samples["stay_id"].take(pa.array(rows)).to_pylist()


@pytest.mark.parametrize("schedule", ["sequential", "proportional", "parallel"])
def test_every_sample_is_learned_from_once_an_epoch(store, schedule):
    made = plan(store, schedule, without=30)
    for epoch in range(3):
        steps = made.epoch(epoch)
        for task in ("death", "findings"):
            assert sorted(asked(steps, task)) == list(made.rows[task])
        assert sorted(stays(store, asked(steps, "stay"))) == sorted(
            set(stays(store, made.rows["stay"]))
        )
        assert all(len(step.rows) <= 8 for step in steps)


@pytest.mark.parametrize("schedule", SEQUENCES)
def test_a_step_of_a_sequence_asks_one_task(store, schedule):
    for step in plan(store, schedule).epoch(0):
        assert len(step.tasks) == 1
        assert step.rows.shape[1] == 1
        assert (step.rows >= 0).all()
        names = store.samples["task"].take(pa.array(step.rows[:, 0])).to_pylist()
        assert set(names) == set(step.tasks)


def test_sequential_finishes_a_task_before_the_next(store):
    order = [step.tasks[0] for step in plan(store, "sequential").epoch(0)]
    assert order == ["death"] * 7 + ["stay"] * 7 + ["findings"] * 7


def test_round_robin_goes_on_until_the_longest_is_through(store):
    made = plan(store, "round_robin", without=40)  # 10, 50 and 50 samples
    steps = made.epoch(1)
    assert [step.tasks[0] for step in steps] == ["death", "stay", "findings"] * 7
    assert sorted(asked(steps, "findings")) == list(made.rows["findings"])
    times = Counter(asked(steps, "death").tolist())
    assert set(times) == set(made.rows["death"].tolist())
    assert set(times.values()) == {3, 4}  # whole passes, one after the other
    assert made.passes() == {"death": pytest.approx(3.4, abs=0.4), "stay": 1, "findings": 1}


def test_proportional_mixes_the_tasks(store):
    order = [step.tasks[0] for step in plan(store, "proportional").epoch(0)]
    assert Counter(order) == {"death": 7, "stay": 7, "findings": 7}
    assert sum(a != b for a, b in pairwise(order)) > 5


@pytest.mark.parametrize("temperature", [1.0, 2.0, 100.0])
def test_temperature_draws_tasks_by_a_power_of_their_size(store, temperature):
    made = plan(store, "temperature", without=40, batch_size=1, temperature=temperature)
    drawn = Counter(step.tasks[0] for epoch in range(30) for step in made.epoch(epoch))
    share = np.array([10, 50, 50]) ** (1 / temperature)
    total = 30 * (10 + 50 + 50)
    assert sum(drawn.values()) == total
    expected = share / share.sum()
    found = np.array([drawn[task] for task in ("death", "stay", "findings")]) / total
    assert np.abs(found - expected).max() < 4 * np.sqrt(0.25 / total)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_steps_are_a_function_of_seed_and_epoch(store, schedule):
    def shown(seed, epoch):
        steps = plan(store, schedule, seed=seed).epoch(epoch)
        return [(step.tasks, step.rows.tolist()) for step in steps]

    assert shown(1, 4) == shown(1, 4)
    assert shown(1, 4) != shown(1, 5)
    assert shown(1, 4) != shown(2, 4)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_samples_are_shuffled_by_seed_and_epoch(store, schedule):
    def order(seed, epoch):
        return asked(plan(store, schedule, seed=seed).epoch(epoch), "death").tolist()

    orders = [order(0, 0), order(0, 1), order(1, 0)]
    assert len({tuple(one) for one in [*orders, sorted(orders[0])]}) == 4


def test_an_hourly_task_takes_one_hour_of_each_stay(store):
    rows = store.rows("stay", "train")
    drawn = one_hour(store, rows, 0, 3)
    assert set(drawn) <= set(rows)
    assert sorted(stays(store, drawn)) == sorted(set(stays(store, rows)))


def test_hours_are_drawn_anew_each_epoch_and_spread_over_the_stay(store):
    rows = store.rows("stay", "train")
    times = Counter()
    for epoch in range(200):
        times.update(one_hour(store, rows, 0, epoch).tolist())
    hours = Counter(stays(store, rows))
    for row, stay in zip(rows.tolist(), stays(store, rows), strict=True):
        share = 1 / hours[stay]
        deviation = np.sqrt(200 * share * (1 - share))
        assert abs(times[row] - 200 * share) < 5 * deviation


def test_every_hour_is_learned_from_where_wanted(store):
    made = plan(store, "sequential", hours="every")
    assert sorted(asked(made.epoch(0), "stay")) == store.rows("stay", "train").tolist()


def test_stays_draw_their_hours_apart_from_each_other(store):
    rows = store.rows("stay", "train")
    hours = Counter(stays(store, rows))
    drawn = one_hour(store, rows, 0, 0)
    first = {stay: row for row, stay in zip(rows[::-1], stays(store, rows[::-1]), strict=True)}
    places = [
        (row - first[stay]) / hours[stay]
        for row, stay in zip(drawn, stays(store, drawn), strict=True)
    ]
    assert (min(places), max(places)) == (0, pytest.approx(0.9, abs=0.1))
    assert 0.3 < np.mean(places) < 0.6


def test_other_subjects_do_not_change_the_hour_of_a_stay(store):
    rows = store.rows("stay", "train")
    first = stays(store, rows)[0]
    alone = rows[[stay == first for stay in stays(store, rows)]]
    assert set(one_hour(store, alone, 0, 1)) <= set(one_hour(store, rows, 0, 1))


def test_rows_of_a_parallel_step_are_of_one_patient_and_time(store):
    several = 0
    for step in plan(store, "parallel").epoch(0):
        for row in step.rows:
            chosen = store.samples.take(pa.array(row[row >= 0])).to_pylist()
            same = ("subject_id", "prediction_time", "film_row", "series_hours", "text_rows")
            assert all(one[key] == chosen[0][key] for one in chosen for key in same)
            assert len({one["task"] for one in chosen}) == len(chosen)
            several += len(chosen) > 1
    assert several > 0


def test_a_parallel_step_names_only_tasks_that_some_row_has(store):
    steps = plan(store, "parallel", batch_size=1).epoch(0)
    assert all((step.rows >= 0).all() for step in steps)
    assert {step.tasks for step in steps} >= {("findings",), ("death",), ("stay",)}


def test_steps_of_one_task_are_gathered_until_a_task_comes_twice():
    names = ["a", "b", "c", "a", "b", "b", "ab", "c", "ab", "a", "a"]
    steps = [Step(tuple(name), np.zeros((1, len(name)), np.int64)) for name in names]
    made = cycles(steps)
    assert [[*map("".join, (step.tasks for step in one))] for one in made] == [
        ["a", "b", "c"], ["a", "b"], ["b"], ["ab"], ["c"], ["ab"], ["a"], ["a"]
    ]  # fmt: skip
    assert [step for one in made for step in one] == steps


@pytest.mark.parametrize(("without", "size"), [(0, 8), (46, 4)])
def test_steps_to_compare_tasks_by_are_of_one_size(store, without, size):
    made = plan(store, "sequential", without=without)
    steps = made.one_each(5)
    assert [step.tasks for step in steps] == [("death",), ("stay",), ("findings",)]
    for step in steps:
        assert step.rows.shape == (size, 1)
        assert len(set(step.rows[:, 0])) == size
        assert set(step.rows[:, 0]) <= set(made.rows[step.tasks[0]])
    again, other = made.one_each(5), made.one_each(6)
    assert all((a.rows == b.rows).all() for a, b in zip(steps, again, strict=True))
    assert not all((a.rows == b.rows).all() for a, b in zip(steps, other, strict=True))


def test_a_task_asked_twice_at_a_moment_is_learned_from_twice(store):
    made = plan(store, "parallel")
    rows = made.rows | {"death": np.concatenate([made.rows["death"], made.rows["death"][:5]])}
    steps = Plan(store, rows, made.config).epoch(0)
    assert sorted(asked(steps, "death")) == sorted(rows["death"])


def test_a_mixed_step_learns_all_that_its_patients_are_asked_then(store):
    made = plan(store, "mixed", without=30)
    steps = made.epoch(0)
    for task in ("death", "findings"):
        assert set(asked(steps, task)) == set(made.rows[task])
    # Death and some hour of the stay are asked at hour 8; whoever is asked both learns both twice.
    both = Counter(asked(steps, "death").tolist())
    alone = plan(store, "parallel", without=30).epoch(0)
    coincide = {
        row
        for step in alone
        if {"death", "stay"} <= set(step.tasks)
        for row, other in step.rows[:, [step.tasks.index(t) for t in ("death", "stay")]].tolist()
        if row >= 0 and other >= 0
    }
    assert {row for row, times in both.items() if times == 2} == coincide
    assert set(both.values()) <= {1, 2}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_an_epoch_has_as_many_steps_as_it_is_told(store, schedule):
    short, long = (plan(store, schedule, epoch_steps=steps).epoch(1) for steps in (2, 100))
    assert (len(short), len(long)) == (2, 100)
    whole = plan(store, schedule).epoch(1)
    for steps in (short, long):
        for one, two in zip(steps, whole, strict=False):
            assert one.tasks == two.tasks
            assert np.array_equal(one.rows, two.rows)
