"""What the experiments of the package say, and what a plan may not."""

import json

import pytest

import flexcare.experiments
from flexcare.cli import main
from flexcare.errors import UserError
from flexcare.experiments.measures import MEASURES
from flexcare.experiments.plan import experiments, nested, read_data, read_experiment
from flexcare.files import write_json

CLAIMS = {
    *("M1", "M1b", "M2", "M2b", "S1", "M3", "F1", "Q1", "Q2", "Q3", "R1", "R2", "A1", "A3"),
}
PLAN = """
id = "X"
name = "x"
question = "?"
equal = "all"
refuted_by = "nothing"
minutes = { demo = 1 }
measures = ["mask"]
[arms.one]
settings.model.hidden = 8
[arms.two]
[[rules]]
says = "one is more"
measure = "leak"
of = "one"
minus = "two"
at_least = 0
[[figures]]
kind = "dots"
of = ["leak"]
title = "leak"
"""


def read(folder, text):
    path = folder / "x.toml"
    path.write_text(text)
    return read_experiment(str(path))


def test_every_claim_has_an_experiment_and_a_broken_variant():
    known = experiments()
    assert {one.id for one in known} == CLAIMS
    assert len({one.name for one in known}) == len(known)
    for one in known:
        assert one.broken
        assert set(one.measures) <= set(MEASURES)
        assert one.seeds >= 5
        assert read_experiment(one.id) == read_experiment(one.name) == one


def test_what_needs_no_planted_truth_runs_on_open_data():
    known = {one.id: one.known() for one in experiments()}
    assert all("store" in known[one] for one in ("M3", "A3", "Q1"))
    assert all("physionet2012" in known[one] for one in ("Q2", "R1"))


@pytest.mark.parametrize("data", ["synthetic", "eicu", "physionet2012", "store"])
@pytest.mark.parametrize("size", ["demo", "full"])
def test_rules_speak_of_arms_that_are_there(data, size):
    base = {"training": {"schedule": "parallel"}}
    assert read_data(data).sizes.keys() == {"demo", "full"}
    for one in experiments():
        if data not in (one.known() or [data]):
            with pytest.raises(UserError, match="cannot be run on"):
                one.on(data)
            continue
        plan = one.on(data)
        good, bad = (plan.variants(base, size, broken) for broken in (False, True))
        assert good.keys() == bad.keys()
        freed = any(plan.arm(one, True).unfreeze != plan.arms[one].unfreeze for one in plan.arms)
        assert freed or good != bad
        for rule in plan.rules:
            assert {rule.of, rule.minus or rule.of} <= good.keys()


def test_an_arm_differs_from_the_others_in_what_it_says(tmp_path):
    plan = read(tmp_path, PLAN).on("eicu")
    variants = plan.variants({"model": {"layers": 2}}, "demo", False)
    assert variants == {
        "one": {"model": {"layers": 2, "hidden": 8}},
        "two": {"model": {"layers": 2}},
    }


def test_a_sweep_is_every_arm_at_every_value(tmp_path):
    sweep = '[sweep]\nsetting = "training.label_share"\naxis = "x"\nvalues = [0.5, 1]\n'
    text = PLAN.replace('"one"', '"one at 0.5"').replace('"two"', '"one at 1"')
    plan = read(tmp_path, text + sweep + "full = [0.1, 0.5, 1]\n")
    assert plan.points("full") == (0.1, 0.5, 1)
    variants = plan.variants({}, "demo", False)
    assert list(variants) == ["one at 0.5", "one at 1", "two at 0.5", "two at 1"]
    assert variants["two at 0.5"] == nested("training.label_share", 0.5)


def test_an_arm_that_sets_what_is_swept_keeps_it(tmp_path):
    sweep = '[sweep]\nsetting = "model.hidden"\naxis = "x"\nvalues = [4, 16]\n'
    text = PLAN.replace('"one"', '"one at 4"').replace('"two"', '"two at 4"')
    variants = read(tmp_path, text + sweep).variants({}, "demo", False)
    assert [one["model"]["hidden"] for one in variants.values()] == [8, 8, 4, 16]


def test_an_arm_is_merged_with_what_is_said_of_it_on_a_set_of_data_and_broken(tmp_path):
    text = PLAN.replace("[arms.two]", '[arms.two]\nextends = "one"')
    here = "[data.eicu.arms.two.settings]\ntasks = ['t']\n[broken.two]\nunfreeze = true\n"
    plan = read(tmp_path, text + here).on("eicu")
    good, bad = (plan.arm("two at 0.5", broken) for broken in (False, True))
    assert (good.extends, good.unfreeze, good.settings.tasks) == ("one", False, ("t",))
    assert (bad.extends, bad.unfreeze, bad.settings.tasks) == ("one", True, ("t",))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('minus = "two"', 'minus = "three"', "three"),
        ("at_least = 0", "", "no one bound"),
        ("at_least = 0", "at_least = 0\nat_most = 1", "no one bound"),
        ("hidden = 8", "hiden = 8", "hiden"),
        ("[arms.two]", "[broken.three]", "three"),
        ("[arms.two]", '[arms.two]\nextends = "on"', "Did you mean 'one'"),
        ("[arms.two]", '[arms.two]\nextends = "two"', "extends: 'two'"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(tmp_path, old, new, said):
    text = PLAN.replace(old, new).replace(
        'minus = "two"', "" if "broken" in new else 'minus = "two"'
    )
    with pytest.raises(UserError, match=said):
        read(tmp_path, text)


def test_an_unknown_experiment_is_named_with_the_nearest():
    with pytest.raises(UserError, match="routing"):
        read_experiment("rooting")


def test_the_list_says_what_there_is_and_what_would_prove_it_wrong(capsys):
    main(["experiment", "--list", "--json"])
    found = {one["id"]: one for one in json.loads(capsys.readouterr().out)}
    assert set(found) == CLAIMS
    assert found["F1"]["data"] == ["synthetic"]
    assert all(one["question"] and one["refuted_by"] for one in found.values())
    assert all(isinstance(one["minutes"], dict) for one in found.values())  # empty: not timed
    main(["experiment", "--list"])
    said = capsys.readouterr().out
    assert all(f"{one} (" in said for one in CLAIMS)


def test_a_command_without_a_name_says_where_the_names_are(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["experiment"])
    assert stop.value.code == 2
    assert "--list" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["experiment", "M1", "--json"], "--list --json"),
        (["experiment", "all", "--data", "nope/store"], "no manifest.json in nope/store"),
        (["experiment", "M1", "--seeds", "0"], "too few seeds"),
        (["experiment", "M1", "--seeds", "-3"], "found:    -3"),
        (["experiment", "M1", "--processes", "0"], "too few processes"),
        (["report"], "no RUN is named"),
    ],
)
def test_what_a_command_cannot_do_is_said_before_it_begins(
    monkeypatch, tmp_path, capsys, command, said
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_all_end_with_their_minutes(monkeypatch, tmp_path, capsys):
    def run(name, **options):
        write_json(tmp_path / name / "result.json", {"minutes": 1.5})
        return tmp_path / name

    monkeypatch.setattr(flexcare.experiments, "experiment", run)
    main(["experiment", "all", "--out", str(tmp_path)])
    known = len(experiments())
    assert f"{known} experiments: {1.5 * known:.1f} minutes" in capsys.readouterr().out
