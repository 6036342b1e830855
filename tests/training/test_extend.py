"""A trained bundle learns something new, and what it knew stays the same to the bit."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from short_runs import MODEL, TRAINING, assert_same, lines

from flexcare.errors import UserError
from flexcare.evaluation.run import evaluate
from flexcare.processes import add_gradients
from flexcare.serving.bundle import load_bundle
from flexcare.serving.ensemble import ensemble
from flexcare.serving.predictor import load
from flexcare.show import explain
from flexcare.training.efficiency import efficiency
from flexcare.training.extend import Options, extend_modality, extend_task
from flexcare.training.run import train
from prepared import quiet
from small_store import small_store

QUIET = Options(quiet=True)
TASKS = ["death", "stay"]


@pytest.fixture(scope="module")
def base(store, tmp_path_factory):
    """A run of two tasks that never saw a film."""
    training = TRAINING | {"keep_task_bests": False}
    settings = {"model": MODEL | {"direct": True}, "training": training}
    out = tmp_path_factory.mktemp("base") / "run"
    asked = {"tasks": TASKS, "modalities": ["note", "series"]}
    return train(store, out, settings=settings, quiet=True, **asked) / "bundle"


@pytest.fixture(scope="module")
def by_task(store, base, tmp_path_factory):
    return extend_task(base, store, ["findings"], tmp_path_factory.mktemp("t") / "run", QUIET)


@pytest.fixture(scope="module")
def by_modality(store, base, tmp_path_factory):
    return extend_modality(base, store, ["film"], tmp_path_factory.mktemp("m") / "run", QUIET)


def weights(bundle):
    return load_file(bundle / "weights.safetensors")


def answers(bundle, store, **given):
    """By sample, its modalities and probabilities."""
    table = load(bundle, say=quiet).predict_store(store, **given)
    parts = [table[name].to_pylist() for name in ("sample_id", "modalities", "probabilities")]
    return {sample: (has, found) for sample, has, found in zip(*parts, strict=True)}


def test_a_new_task_changes_nothing_that_was_learned(base, by_task, store):
    old, new = weights(base), weights(by_task / "bundle")
    rows = new["task_embedding.weight"]
    assert torch.equal(rows[:2], old.pop("task_embedding.weight"))
    assert all(torch.equal(new[name], value) for name, value in old.items())
    added = new.keys() - old.keys() - {"task_embedding.weight"}
    direct = {f"direct.linear.{name}+findings.weight" for name in ("note", "series")}
    assert added == direct | {"heads.linear.findings.weight", "heads.linear.findings.bias"}
    before, after = answers(base, store), answers(by_task / "bundle", store)
    assert before.items() < after.items()
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"findings"}


def test_a_new_modality_changes_nothing_where_it_is_absent(base, by_modality, store):
    old, new = weights(base), weights(by_modality / "bundle")
    assert all(torch.equal(new[name], value) for name, value in old.items())
    added = {name.split(".")[1] + "." + name.split(".")[2] for name in new.keys() - old.keys()}
    direct = {f"linear.film+{task}" for task in TASKS}
    assert added == direct | {"film.project", "film.positions"} | {
        f"combination_tokens.{name}" for name in ("film", "film+note", "film+series",
                                                  "film+note+series")
    }  # fmt: skip
    before, after = answers(base, store), answers(by_modality / "bundle", store)
    with_film = {sample for sample, (has, _) in after.items() if "film" in has}
    assert 0 < len(with_film) < len(after)
    changed = {sample for sample in before if before[sample][1] != after[sample][1]}
    assert changed == with_film
    assert answers(by_modality / "bundle", store, without=["film"]) == before


def test_what_is_held_does_not_decay_and_means_of_it_are_itself(base, store, tmp_path):
    settings = {"training": {"weight_decay": 0.5, "average": 0.7}}
    how = Options(settings=settings, quiet=True)
    out = extend_task(base, store, ["findings"], tmp_path / "run", how)
    old, new = weights(base), weights(out / "bundle")
    assert torch.equal(new["task_embedding.weight"][:2], old.pop("task_embedding.weight"))
    assert all(torch.equal(new[name], value) for name, value in old.items())
    assert json.loads((out / "forgetting.json").read_text())["identical"]


def test_extended_bundles_make_an_ensemble(base, by_modality, store, tmp_path):
    how = Options(seed=1, quiet=True)
    other = extend_modality(base, store, ["film"], tmp_path / "run", how)
    ensemble([by_modality, other], tmp_path / "both")
    parts = [answers(run / "bundle", store) for run in (by_modality, other)]
    for sample, (_, found) in answers(tmp_path / "both", store).items():
        mean = np.mean([part[sample][1] for part in parts], axis=0)
        np.testing.assert_allclose(found, mean, atol=1e-6)


def test_one_patient_gets_the_older_answer(base, by_task, by_modality):
    patient = {"series": [(0.5, "pulse", 130), (3, "sugar", 180)]}
    expected = load(base, say=quiet).predict(patient, 8)
    assert load(by_modality / "bundle", say=quiet).predict(patient, 8) == expected
    found = load(by_task / "bundle", say=quiet).predict(patient, 8)
    assert {task: found[task] for task in TASKS} == expected
    assert found["findings"].keys() == {"a", "b"}


@pytest.mark.parametrize("fixture", ["by_task", "by_modality"])
def test_what_is_new_is_learned(fixture, request):
    seen = [line["train"] for line in lines(request.getfixturevalue(fixture))]
    first, last = ([v for k, v in line.items() if k.startswith("loss/")] for line in seen[::2])
    assert sum(last) < sum(first)


def test_only_samples_with_the_new_modality_are_learned_from(base, by_modality, tmp_path):
    copy = small_store(tmp_path / "store")
    having = copy.samples.filter(copy.samples["has_film"])
    assert 0 < len(having) < len(copy.samples)
    pq.write_table(having, copy.path / "samples.parquet")
    out = extend_modality(base, copy.path, ["film"], tmp_path / "run", QUIET)
    assert_same(by_modality, out)


def test_a_resumed_extension_equals_an_uninterrupted_one(base, by_modality, store, tmp_path):
    part = Options(epochs=1, quiet=True)
    extend_modality(base, store, ["film"], tmp_path / "run", part)
    go_on = Options(epochs=TRAINING["epochs"], resume=True, quiet=True)
    extend_modality(base, store, ["film"], tmp_path / "run", go_on)
    assert_same(by_modality, tmp_path / "run")


def test_other_commands_do_not_resume_an_extension(base, by_modality, store):
    with pytest.raises(UserError, match=r"not begun so\n.*an extension by film"):
        train(store, by_modality, resume=True, quiet=True)
    with pytest.raises(UserError, match="not begun so"):
        extend_task(base, store, ["findings"], by_modality, Options(resume=True, quiet=True))


def test_old_answers_are_looked_back_at(base, by_task, by_modality, store, tmp_path):
    for out in (by_task, by_modality):
        found = json.loads((out / "forgetting.json").read_text())
        assert found["identical"]
        assert found["tasks"].keys() == set(TASKS)
        assert all(one["before"] == one["after"] for one in found["tasks"].values())
        assert "the same to the bit" in explain(out)
    how = Options(unfreeze=True, quiet=True)
    out = extend_task(base, store, ["findings"], tmp_path / "run", how)
    found = json.loads((out / "forgetting.json").read_text())
    assert not found["identical"]
    assert "not what they were" in explain(out)
    old, new = weights(base), weights(out / "bundle")
    assert not any(
        torch.equal(new[name], old[name]) for name in ("experts.weight1", "pooling.inner.weight")
    )
    assert answers(base, store).keys() < answers(out / "bundle", store).keys()


def test_scaling_is_the_bundles_and_for_what_is_new_the_stores(base, store, tmp_path):
    copy = small_store(tmp_path / "store").path
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["scaling"] = {
        "series": {"center": [1.0] * 3, "scale": [2.0] * 3}, "film": {"mean": 0.7, "sd": 0.1},
    }  # fmt: skip
    (copy / "manifest.json").write_text(json.dumps(manifest))
    out = extend_modality(base, copy, ["film"], tmp_path / "run", QUIET)
    bundle = load_bundle(out / "bundle")
    assert bundle.scaling["film"] == {"mean": 0.7, "sd": 0.1}
    assert bundle.scaling["series"] == load_bundle(base).scaling["series"]
    assert json.loads((out / "forgetting.json").read_text())["identical"]


def test_an_extension_is_evaluated_on_what_it_learned(by_task, by_modality):
    for out, tasks in ((by_task, {"findings"}), (by_modality, set(TASKS))):
        found = evaluate(out, baselines=False, resamples=5, say=quiet)
        assert found["tasks"].keys() == tasks


def test_an_extension_can_be_extended(base, by_task, store, tmp_path):
    out = extend_modality(by_task / "bundle", store, ["film"], tmp_path / "run", QUIET)
    before, after = answers(by_task / "bundle", store), answers(out / "bundle", store)
    assert all(after[one] == found for one, found in before.items() if "film" not in after[one][0])
    assert json.loads((out / "config.json").read_text())["config"]["tasks"] == [*TASKS, "findings"]


def test_three_ways_are_compared(base, store, tmp_path):
    how = Options(epochs=1, quiet=True)
    rows = efficiency(base, store, tmp_path / "t", tasks=["findings"], how=how)
    assert [row["way"] for row in rows] == ["frozen", "unfrozen", "scratch"]
    assert {(row["task"], row["subjects"]) for row in rows} == {("findings", 24)}
    rows = efficiency(base, store, tmp_path / "m", modalities=["film"], how=how)
    assert {row["way"] for row in rows} == {"before", "frozen", "unfrozen", "scratch"}
    assert all(0 < row["subjects"] < 24 for row in rows)
    scratch = json.loads((tmp_path / "m" / "scratch" / "config.json").read_text())["config"]
    assert scratch["modalities"] == ["film", "note", "series"]
    assert scratch["model"]["joined_modalities"] == []


@pytest.mark.parametrize(
    ("extend", "names", "how", "message"),
    [
        (extend_task, ["finding"], {}, "Did you mean 'findings'"),
        (extend_modality, ["films"], {}, "Did you mean 'film'"),
        (extend_task, ["death"], {}, "knows death already"),
        (extend_modality, ["note"], {}, "knows note already"),
        (extend_task, [], {}, "nothing new"),
        (extend_task, ["findings"], {"settings": {"model": {"hidden": 16}}}, "found: +model"),
        (extend_task, ["findings"], {"settings": {"tasks": ["death"]}}, "found: +tasks"),
        (extend_modality, ["film"], {"settings": {"tasks": ["deth"]}}, "Did you mean 'death'"),
        (extend_task, ["findings"], {"settings": {"training": {"epoch": 1}}}, "training.epochs"),
        (
            extend_task,
            ["findings"],
            {"settings": {"objective": {"task_weights": {"deth": 1}}}},
            "Did you mean 'death'",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    base, store, tmp_path, extend, names, how, message
):
    with pytest.raises(UserError, match=message):
        extend(base, store, names, tmp_path / "run", Options(quiet=True, **how))
    assert not list(tmp_path.iterdir())


def test_networks_without_combinations_are_refused(store, tmp_path):
    settings = {"network": "early_fusion", "model": MODEL, "training": TRAINING | {"epochs": 1}}
    other = train(store, tmp_path / "other", tasks=["death"], settings=settings, quiet=True)
    with pytest.raises(UserError, match=r"cannot be extended\n.*early_fusion"):
        extend_task(other / "bundle", store, ["findings"], tmp_path / "run", QUIET)


def test_where_absent_combinations_are_visible_a_modality_cannot_join(store, tmp_path):
    model = MODEL | {"absent_combinations": "visible"}
    settings = {"model": model, "training": TRAINING | {"epochs": 1}}
    asked = {"tasks": ["death"], "modalities": ["note", "series"]}
    old = train(store, tmp_path / "old", settings=settings, quiet=True, **asked) / "bundle"
    with pytest.raises(UserError, match="would change old answers"):
        extend_modality(old, store, ["film"], tmp_path / "run", QUIET)
    out = extend_task(old, store, ["findings"], tmp_path / "run", QUIET)
    assert json.loads((out / "forgetting.json").read_text())["identical"]


def test_steps_without_any_gradient_move_nothing():
    held = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    add_gradients([held])
    assert held.grad is None
