"""The instrument against itself: what is known to be good and known to be broken is told apart.

On the invented hospital, small: a claim that holds there is supported, its broken variant refuted.
"""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import flexcare.experiments
import flexcare.experiments.work as work
from flexcare.errors import UserError
from flexcare.experiments import experiment
from flexcare.experiments.page import claims
from flexcare.experiments.plan import read_data
from flexcare.files import read_json, write_json
from flexcare.models.experts import Experts
from flexcare.models.mixtures import MIXTURES

TASKS = ["planted_series", "planted_note", "planted_shared"]
SMALL = {
    "subjects": 240,
    "settings": {
        "tasks": TASKS,
        "modalities": ["series", "note"],
        "model": {"hidden": 16, "layers": 1},
        "training": {"epochs": 12, "batch_size": 32, "learning_rate": 3e-3},
    },
}

SCHEDULES = """
id = "X"
name = "x"
question = "?"
equal = "steps"
refuted_by = "nothing"
minutes = { demo = 1 }
measures = ["answers", "spent"]
settings.training = { epochs = 2, epoch_steps = 3 }
[arms.one]
settings.training.schedule = "proportional"
[arms.all]
settings.training.schedule = "parallel"
[[rules]]
says = "a step of all tasks has more answers"
measure = "answers"
of = "all"
minus = "one"
at_least = 1
[[figures]]
kind = "epochs"
of = ["mean"]
title = "by step"
"""

JOINS = """
id = "J"
name = "joins"
question = "?"
equal = "steps"
refuted_by = "nothing"
minutes = { demo = 1 }
measures = ["answers", "extension", "spent"]
settings.training = { epochs = 2, epoch_steps = 3 }
[arms.extended]
extends = "before"
[arms.before]
settings.training.label_share = 1.0
settings.KIND = ["OLD"]
[sweep]
setting = "training.label_share"
axis = "share"
values = [0.5, 1.0]
[[rules]]
says = "old answers stay"
measure = "changed"
of = "extended at 0.5"
at_most = 0
[[figures]]
kind = "lines"
of = ["forgotten"]
title = "by share"
[broken.extended]
unfreeze = true
"""


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory) -> Path:
    place: Path = tmp_path_factory.mktemp("laboratory")
    return place


@pytest.fixture(autouse=True)
def small(monkeypatch) -> None:
    """A hospital of 240 subjects and networks that learn it in seconds."""

    def read(name: str) -> Any:
        found = read_data(name)
        given = found.model_dump(exclude_unset=True)
        return type(found)(**given | {"sizes": {"demo": SMALL}})

    monkeypatch.setattr(work, "read_data", read)


def run(laboratory: Path, name: str, **options: Any) -> dict[str, Any]:
    said: list[str] = []
    chosen = {"seeds": 2, "out": laboratory, "processes": 1, "say": said.append} | options
    place = experiment(name, **chosen)
    result: dict[str, Any] = json.loads((place / "result.json").read_text())
    assert f"{result['id']} on synthetic: {result['verdict']}" in said
    return result


def rules(result: dict[str, Any]) -> dict[str, str]:
    return {rule["measure"]: rule["verdict"] for rule in result["rules"]}


def test_a_mask_that_leaks_is_refuted_and_one_that_does_not_is_not(laboratory):
    good = run(laboratory, "M1", seeds=3)
    assert good["verdict"] == "supported", good["rules"]
    bad = run(laboratory, "M1", broken=True)
    assert bad["verdict"] == "refuted"
    assert rules(bad)["leak_most"] == "refuted"
    tables = [good["shown"][arm]["similarity"] for arm in ("on", "off")]
    assert all(one["rows"] == ["note", "series", "note+series"] for one in tables)
    on, off = (np.array(one["values"], dtype=float) for one in tables)
    assert np.nanmean(on) < np.nanmean(off)


class ByName(Experts):
    """A router that specialises by construction: two experts of its own for each task and size."""

    def scores(self, z, task_tokens):
        tasks, combos = task_tokens.shape[1], z.shape[2]
        task, combo = torch.arange(tasks)[:, None, None], torch.arange(combos)[:, None]
        first = (3 * task + combo.clamp(max=2)) % self.count
        own = (torch.arange(self.count) - first) % self.count < 2
        return torch.where(own, 0.0, -1e4).expand(len(z), -1, -1, -1)


def test_a_router_fixed_to_one_expert_is_refuted_and_one_by_name_is_not(
    laboratory, tmp_path, monkeypatch
):
    bad = run(laboratory, "M2", broken=True)
    assert bad["verdict"] == "refuted"
    assert rules(bad)["dead"] == "refuted"
    values = {name: one["value"] for name, one in bad["arms"]["learned"]["measures"].items()}
    assert (values["apart"], values["mutual_task"], values["dead"]) == (0, 0, 9)
    monkeypatch.setitem(MIXTURES, "dense_total", ByName)
    plan = tmp_path / "M2.toml"
    mixture = 'settings.model.mixture = "dense_total"'
    text = (Path(flexcare.experiments.__file__).parent / "M2.toml").read_text()
    plan.write_text(text.replace("[arms.learned]\n", f"[arms.learned]\n{mixture}\n"))
    good = run(laboratory, str(plan), seeds=3)
    assert good["verdict"] == "supported", good["rules"]


def test_the_truth_is_read_from_a_network_that_learned_it(laboratory):
    result = run(laboratory, "Q3")
    values = {name: one["value"] for name, one in result["arms"]["on"]["measures"].items()}
    assert values["foreign"] == pytest.approx(0.5, abs=0.1)
    assert values["own"] > 0.8
    assert values["right"] > 0.8
    probes = result["shown"]["on"]["probes"]
    of = {row[0]: dict(zip(probes["columns"], areas, strict=True))
          for row, areas in zip(probes["rows"], probes["values"], strict=True)}  # fmt: skip
    assert of["s"]["note+series"] > 0.7  # what the pair tells is what its modalities tell
    assert of["t"]["note+series"] > 0.7
    assert abs(of["f"]["note+series"] - 0.5) < 0.15
    blind = run(laboratory, "Q3", broken=True)
    assert blind["arms"]["on"]["measures"]["right"]["value"] < values["right"]


def test_experiments_share_their_trainings(laboratory, monkeypatch):
    run(laboratory, "M1")
    runs = set((laboratory / "runs").iterdir())
    run(laboratory, "A1")
    assert set((laboratory / "runs").iterdir()) == runs


def test_a_rule_that_was_changed_after_the_run_began_is_refused(laboratory):
    place = laboratory / "synthetic/demo/M1/plan.json"
    run(laboratory, "M1")
    plan = read_json(place, "a plan")
    changed = [plan["rules"][0] | {"at_most": 1}, *plan["rules"][1:]]
    write_json(place, plan | {"rules": changed})
    with pytest.raises(UserError, match="begun with another rule"):
        run(laboratory, "M1")
    write_json(place, plan)
    run(laboratory, "M1")


def test_other_conditions_after_the_run_began_are_refused(laboratory, monkeypatch):
    run(laboratory, "M1")
    place = laboratory / "synthetic/demo/M1/plan.json"
    plan = read_json(place, "a plan")
    assert plan["conditions"]["data"]["subjects"] == 240
    assert plan["conditions"]["data"]["tasks"]
    training = SMALL["settings"]["training"] | {"epochs": 13}
    with monkeypatch.context() as longer:
        longer.setitem(SMALL, "settings", SMALL["settings"] | {"training": training})
        with pytest.raises(UserError, match="begun with another rule"):
            run(laboratory, "M1")
    assert read_json(place, "a plan") == plan


def test_two_stores_of_one_name_are_told_apart(laboratory, tmp_path):
    run(laboratory, "M1")
    made = next((laboratory / "stores").iterdir())
    plan, places = tmp_path / "x.toml", set()
    plan.write_text(SCHEDULES)
    for number in range(2):
        store = tmp_path / str(number) / "store"
        shutil.copytree(made, store)
        manifest = read_json(store / "manifest.json", "a store")
        write_json(store / "manifest.json", manifest | {"number": number})
        places.add(experiment(str(plan), data=str(store), seeds=1, out=tmp_path, processes=1))
    assert len(places) == 2
    assert all((place / "result.json").exists() for place in places)
    assert len(list((tmp_path / "runs").iterdir())) == 4
    claims(tmp_path)
    rows = (tmp_path / "claims.md").read_text().count("| X | ? | store-")
    assert rows == 2


def test_what_was_interrupted_goes_on(laboratory, tmp_path, monkeypatch):
    """The third of four trainings is stopped; the next call makes what is missing, and no more."""
    done, calls = work.finished_run, []

    def stopped(place: Path, *args: Any) -> None:
        calls.append(place.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        done(place, *args)

    plan = tmp_path / "x.toml"
    plan.write_text(SCHEDULES)
    monkeypatch.setattr(work, "finished_run", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(laboratory, str(plan))
    assert not (laboratory / "synthetic/demo/X/result.json").exists()
    result = run(laboratory, str(plan))
    assert len(calls) == 5  # two, the one that was stopped and is begun again, and the last
    assert len(set(calls)) == 4
    arms = {arm: one["measures"] for arm, one in result["arms"].items()}
    assert {arm: one["steps"]["value"] for arm, one in arms.items()} == {"one": 6, "all": 6}
    assert arms["all"]["answers"]["value"] > 2 * arms["one"]["answers"]["value"]


def test_a_rule_on_what_was_not_measured_is_undecided(laboratory, tmp_path):
    plan = tmp_path / "x.toml"
    text = SCHEDULES.replace('measure = "answers"', 'measure = "apart"')
    plan.write_text(text.replace('"X"', '"Y"'))
    result = run(laboratory, str(plan), seeds=1)
    assert result["verdict"] == "undecided at this size"
    assert result["rules"][0]["value"] is None


@pytest.mark.parametrize(
    ("kind", "old", "new", "asked"),
    [
        ("modalities", "series", ["series", "note"], TASKS),
        ("tasks", "planted_series", ["planted_note"], ["planted_series", "planted_note"]),
    ],
)
def test_what_joins_leaves_old_answers_and_unfrozen_does_not(
    laboratory, tmp_path, kind, old, new, asked
):
    plan = tmp_path / "j.toml"
    text = JOINS.replace("KIND", kind).replace("OLD", old).replace('"J"', f'"J-{kind}"')
    plan.write_text(
        text.replace('extends = "before"', f'extends = "before"\nsettings.{kind} = {new}')
    )
    runs = set((laboratory / "runs").glob("*"))
    good, bad = (run(laboratory, str(plan), broken=broken) for broken in (False, True))
    assert len(set((laboratory / "runs").iterdir()) - runs) == 2 * 5  # the base is trained once
    assert good["verdict"] == "supported"
    assert min(bad["rules"][0]["seeds"]) > 1e-3  # two seeds are too few for a verdict
    arms = {arm: one["measures"] for arm, one in good["arms"].items()}
    assert "changed" not in arms["before at 1.0"]
    assert arms["extended at 1.0"]["forgotten"]["seeds"] == [0, 0]
    assert (
        arms["extended at 0.5"]["labelled"]["value"] < arms["extended at 1.0"]["labelled"]["value"]
    )
    assert set(asked) <= {name.split("/")[0] for name in arms["extended at 0.5"]}
    assert bad["arms"]["extended at 0.5"]["measures"]["forgotten"]["seeds"] != [0, 0]


def test_an_extension_that_was_interrupted_goes_on(laboratory, tmp_path, monkeypatch):
    plan = tmp_path / "j.toml"
    text = JOINS.replace("KIND", "tasks").replace("OLD", "planted_shared").replace('"J"', '"K"')
    asked = 'settings.tasks = ["planted_note"]'
    plan.write_text(text.replace('extends = "before"', f'extends = "before"\n{asked}'))
    extend, calls = work.extend_task, []

    def stopped(*args: Any) -> None:
        """The first stops after an epoch."""
        calls.append(args[-1].resume)
        if len(calls) == 1:
            settings = {**args[-1].settings}
            settings["training"] = settings["training"] | {"epochs": 1}
            extend(*args[:-1], replace(args[-1], settings=settings))
            raise KeyboardInterrupt
        extend(*args)

    monkeypatch.setattr(work, "extend_task", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(laboratory, str(plan), seeds=1)
    result = run(laboratory, str(plan), seeds=1)
    assert calls == [False, True, False]
    assert result["arms"]["extended at 0.5"]["measures"]["changed"]["value"] == 0


def test_all_claims_stand_on_one_page(laboratory):
    run(laboratory, "M1")
    run(laboratory, "M1", broken=True)
    page = claims(laboratory)
    html, text = page.read_text(), (laboratory / "claims.md").read_text()
    assert "http" not in html.replace("http://www.w3.org", "")
    assert "<svg" in html
    assert "flexcare experiment M1 --data synthetic --seeds 2" in text
    assert "| M1 |" in text
    line = next(line for line in text.splitlines() if line.startswith("| M1 |"))
    assert "| refuted |" in line  # the broken variant


def test_claims_of_another_laboratory_stay_as_they_were_told(laboratory, tmp_path):
    run(laboratory, "M1")
    claims(laboratory, tmp_path)
    told = json.loads((tmp_path / "claims.json").read_text())
    known = [one for one in told["claims"] if one["id"] == "M1" and not one["broken"]]
    other = [{**one, "data": "eicu", "date": "2020-01-01"} for one in known]
    stale = [{**one, "date": "2020-01-01"} for one in known]
    (tmp_path / "claims.json").write_text(json.dumps({**told, "claims": [*other, *stale]}))
    claims(laboratory, tmp_path)
    text = (tmp_path / "claims.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| M1 |")]
    assert [line.endswith("2020-01-01 |") for line in rows] == [False, True]
    assert "| eicu, demo |" in rows[1]


def test_without_torchjd_no_training_is_begun(laboratory, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchjd", None)
    before = set(laboratory.rglob("finished"))
    with pytest.raises(UserError, match=r"flexcare\[gradients\]"):
        run(laboratory, "Q1")
    assert set(laboratory.rglob("finished")) == before
