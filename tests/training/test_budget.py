"""Arms are stopped at one cost, and told where they stood."""

from pathlib import Path

import pytest
from short_runs import MODEL

from flexcare.errors import UserError
from flexcare.store import Store
from flexcare.training import budget
from flexcare.training.budget import compare, price
from flexcare.training.loop import Loop

TASKS = ("death", "stay", "findings")
BASE = {"model": MODEL, "training": {"batch_size": 8, "schedule": "round_robin"}}


def arm(**training):
    return BASE | {"training": BASE["training"] | training}


ARMS = {"sum": arm(), "mean": arm(aggregator="mean")}


def test_arms_take_as_many_steps_and_an_epoch_is_no_limit(store):
    found = compare(store, ARMS, steps=24, looks=2, seeds=(0, 1))  # 9 steps an epoch
    assert [(one["arm"], one["seed"]) for one in found] == [
        ("sum", 0), ("mean", 0), ("sum", 1), ("mean", 1)
    ]  # fmt: skip
    for one in found:
        assert [look["steps"] for look in one["curve"]] == [12, 24]
        assert [look["updates"] for look in one["curve"]] == (
            [12, 24] if one["arm"] == "sum" else [4, 8]
        )
        first, last = one["curve"]
        assert 0 < first["seconds"] < last["seconds"]
        assert last["tuning"].keys() == set(TASKS)
        known = [last["tuning"][task]["primary"] for task in TASKS]
        assert last["mean"] == pytest.approx(sum(known) / 3)
    assert found[0]["curve"] != found[2]["curve"]


def test_a_budget_of_steps_gives_the_same_numbers_again(store):
    def numbers():
        (found,) = compare(store, {"sum": ARMS["sum"]}, steps=10)
        return [look["tuning"] for look in found["curve"]]

    assert numbers() == numbers()


def test_seconds_are_of_training_alone(store, monkeypatch):
    """Of a clock on which a step takes 1 second and each look at the tuning split 100."""
    now = [0.0]
    monkeypatch.setattr(budget.time, "perf_counter", lambda: now[0])

    def slow(name, seconds):
        real = getattr(Loop, name)

        def slowly(*given):
            now[0] += seconds
            return real(*given)

        monkeypatch.setattr(Loop, name, slowly)

    slow("_step", 1.0)
    slow("look", 100.0)
    (found,) = compare(store, {"sum": ARMS["sum"]}, seconds=12.5, looks=2)
    assert [look["seconds"] for look in found["curve"]] == [7.0, 13.0]
    assert [look["steps"] for look in found["curve"]] == [7, 13]


def test_a_price_is_of_a_step_and_the_first_update_does_not_count(store, monkeypatch):
    """Of a clock on which a cycle of three steps takes 6 seconds, a step 1, the first of all 50."""
    now, real, seen = [0.0], Loop._step, []
    monkeypatch.setattr(budget.time, "perf_counter", lambda: now[0])

    def slowly(loop, tasks, batches):
        now[0] += (6.0 if loop.gradients.cycles else 1.0) if loop in seen else 50.0
        seen.append(loop)
        real(loop, tasks, batches)

    monkeypatch.setattr(Loop, "_step", slowly)
    assert price(Store(store), ARMS["mean"], ARMS["sum"], updates=2) == 2


def test_nothing_is_written(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(Path(store).rglob("*"))
    compare(store, {"sum": ARMS["sum"]}, steps=3)
    assert sorted(Path(store).rglob("*")) == before
    assert not list(tmp_path.iterdir())


def test_ctrl_c_is_not_taken_for_the_end(store, monkeypatch):
    def pressed(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "_step", pressed)
    with pytest.raises(KeyboardInterrupt):
        compare(store, {"sum": ARMS["sum"]}, steps=3)


@pytest.mark.parametrize("limits", [{}, {"steps": 3, "seconds": 1.0}])
def test_a_comparison_has_one_budget(store, limits):
    with pytest.raises(UserError, match="one budget"):
        compare(store, ARMS, **limits)
