"""One bundle of several answers with the mean of their probabilities, however it is asked."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from random_bundle import random_bundle

from flexcare.baselines.networks import NETWORKS
from flexcare.errors import UserError
from flexcare.evaluation.predictions import averaged
from flexcare.loading.loader import Loader
from flexcare.models.ensemble import Ensemble
from flexcare.serving.bundle import DESCRIPTION, WEIGHTS, load_bundle
from flexcare.serving.ensemble import ensemble
from flexcare.serving.predictor import load
from flexcare.show import explain
from flexcare.store import Store
from prepared import quiet

KNOWN = {"series": [(1, "heart_rate", 90), (3, "ph", 7.2)], "note": "asthma since childhood"}


def described(folder, **values):
    """The folder of a bundle, with these values in its description."""
    file = folder / DESCRIPTION
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return folder


@pytest.fixture(scope="module")
def members(store_folder, tmp_path_factory):
    """Bundles of three seeds, which know what they were trained on."""
    place, store = tmp_path_factory.mktemp("members"), Store(store_folder)
    trained_on = {"source": "mimic-iv", "preset": "corrected", "settings": {"seed": 0}}
    return [
        described(
            random_bundle(store, place / f"seed{seed}", seed=seed),
            provenance={"epoch": seed, "store": trained_on},
        )
        for seed in range(3)
    ]


@pytest.fixture(scope="module")
def joined(members):
    out = members[0].parent / "joined"
    ensemble(members, out)
    return out


def test_what_was_saved_is_loaded(store, members, joined):
    bundle, parts = load_bundle(joined), [load_bundle(member) for member in members]
    assert (bundle.tasks, bundle.modalities) == (parts[0].tasks, parts[0].modalities)
    assert bundle.scaling == parts[0].scaling
    assert bundle.provenance == {
        "store": parts[0].provenance["store"],
        "members": [{"epoch": seed} for seed in range(3)],
    }
    assert sorted(p.name for p in joined.iterdir()) == sorted([WEIGHTS, DESCRIPTION])
    rows = store.rows("phenotyping", "train")[:, None]
    batch = Loader(store, bundle.scaling).batch(rows, ("phenotyping",))
    with torch.no_grad():
        expected = Ensemble([part.model for part in parts])(batch).logits["phenotyping"]
        assert torch.equal(bundle.model(batch).logits["phenotyping"], expected)
    assert not bundle.model.training


CHANCES = ["probabilities", "predicted_boolean_probability"]


def test_a_store_is_answered_as_the_averaged_tables_of_the_members(store, members, joined):
    found = load(joined, say=quiet).predict_store(store)
    tables = [load(member, say=quiet).predict_store(store) for member in members]
    expected = averaged(tables, "ensemble")
    assert found.drop(CHANCES) == expected.drop(CHANCES)
    ours, theirs, first = (
        np.concatenate(table["probabilities"].to_pylist()) for table in (found, expected, tables[0])
    )
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    assert np.abs(ours - first).max() > 0.1
    chances = [table["predicted_boolean_probability"].to_numpy() for table in (found, expected)]
    np.testing.assert_allclose(*chances, rtol=0, atol=1e-6)


@pytest.mark.parametrize("known", [KNOWN, {"series": KNOWN["series"]}, {}])
def test_one_patient_is_answered_with_the_mean(members, joined, known):
    answers = load(joined).predict(known, hours=48)
    each = [load(member).predict(known, hours=48) for member in members]
    assert answers.modalities == each[0].modalities
    assert list(answers) == list(each[0])
    for task, found in answers.items():
        for name, chance in found.items():
            mean = np.mean([one[task][name] for one in each])
            assert chance == pytest.approx(mean, abs=1e-6)


def test_runs_may_be_named(members, joined, tmp_path):
    runs = [tmp_path / member.name for member in members]
    for run, member in zip(runs, members, strict=True):
        shutil.copytree(member, run / "bundle")
    ensemble(runs, tmp_path / "out")
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (joined / WEIGHTS).read_bytes()


def test_show_says_of_how_many_networks(joined):
    assert "mean of 3 flexcare networks" in explain(joined)
    assert "from: mimic-iv, preset corrected" in explain(joined)


def test_a_network_without_combinations_can_be_a_member(store, tmp_path):
    kind = NETWORKS["early_fusion"]
    bundles = [random_bundle(store, tmp_path / f"{n}", seed=n, network=kind) for n in range(2)]
    ensemble(bundles, tmp_path / "out")
    assert "mean of 2 early_fusion networks" in explain(tmp_path / "out")
    assert load(tmp_path / "out").predict(KNOWN, hours=48).modalities == "note+series"


def refused(paths, out):
    """The error; checks that nothing was written."""
    before = set(out.parent.iterdir())
    with pytest.raises(UserError) as caught:
        ensemble(paths, out)
    assert set(out.parent.iterdir()) == before
    return caught.value


OTHERS = {
    "a setting": ("model.hidden = 8", "model.hidden = 16", {"hidden": 8}),
    "a network": ('network = "early_fusion"', 'network = "flexcare"', {"network": "early_fusion"}),
    "a cap": ("model.max_combination = 2", "no model.max_combination", {"max_combination": 2}),
}


@pytest.mark.parametrize("told", OTHERS)
def test_members_of_another_network_are_refused(store, members, tmp_path, told):
    found, expected, settings = OTHERS[told]
    if "network" in settings:
        settings = {"network": NETWORKS[settings["network"]]}
    other = random_bundle(store, tmp_path / "other", **settings)
    described(other, provenance=load_bundle(members[0]).provenance)
    error = refused([*members, other], tmp_path / "out")
    assert (error.found, error.expected) == (found, expected)
    assert str(members[0]) in error.what
    assert str(other) in error.what


def test_members_for_other_modalities_tasks_or_classes_are_refused(store, members, tmp_path):
    modalities, tasks = store.modalities, dict(store.tasks)
    series = random_bundle(store, tmp_path / "series", [modalities["series"]])
    error = refused([members[0], series], tmp_path / "out")
    assert 'modalities = ["series"]' in error.found
    assert "no modality.film" in error.found
    one = random_bundle(store, tmp_path / "one", tasks=[tasks["drg"]])
    assert 'tasks = ["drg"]; no task.' in refused([members[0], one], tmp_path / "out").found
    # The same tasks in another order are other rows of the embedding.
    turned = random_bundle(store, tmp_path / "turned", tasks=list(tasks.values())[::-1])
    assert f"tasks as in {turned}" in refused([members[0], turned], tmp_path / "out").found
    tasks["readmission"] = replace(tasks["readmission"], classes=("another",))
    named = random_bundle(store, tmp_path / "named", tasks=tasks.values())
    found = refused([members[0], named], tmp_path / "out").found
    assert 'task.readmission.classes = ["another"]' in found


def test_members_scaled_or_prepared_otherwise_are_refused(members, tmp_path):
    description = json.loads((members[1] / DESCRIPTION).read_text())
    scaling, provenance = description["scaling"], description["provenance"]
    scaling["film"]["mean"], scaling["series"]["center"][0] = 0.125, 1.0
    provenance["store"]["settings"]["seed"] = 5
    other = described(
        shutil.copytree(members[1], tmp_path / "other"), scaling=scaling, provenance=provenance
    )
    error = refused([members[0], other, members[2]], tmp_path / "out")
    for part in ("scaling.film.mean = 0.125", f"series.center as in {other}", "settings.seed = 5"):
        assert part in error.found
    assert f"series.center as in {members[0]}" in error.expected


def test_one_a_repeated_one_an_ensemble_or_none_is_refused(members, joined, tmp_path):
    out = tmp_path / "out"
    assert "at least two" in refused([], out).expected
    assert str(members[0]) in refused(members[:1], out).found
    assert "twice" in refused([members[0], members[1], members[0].parent / "seed0"], out).found
    assert "ensemble itself" in refused([members[0], joined], out).what
    assert "ensemble itself" in refused([joined, members[0]], out).what
    assert "no such file" in refused([members[0], tmp_path / "nowhere"], out).found


@pytest.mark.parametrize(
    ("count", "words"),
    [(2, "unexpected members.2"), (4, "missing members.3"), (0, "0 members"), ("3", "'3' memb")],
)
def test_a_wrong_number_of_members_is_damage(joined, tmp_path, count, words):
    other = described(shutil.copytree(joined, tmp_path / "other"), members=count)
    with pytest.raises(UserError, match=words):
        load_bundle(other)
