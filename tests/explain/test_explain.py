"""An answer taken apart: what adds up, what gets nothing, and what a hand-set network says."""

import json

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from bundles import EVERYTHING, NAMES, SOME, TASKS, Deaf, Pair, Planted, bundle_of

from flexcare.baselines.networks import NETWORKS
from flexcare.explain import as_text, deletion_curve, explain, integrated_gradients
from flexcare.explain.details import KINDS, Reading, Turned
from flexcare.explain.question import Question
from flexcare.loading.loader import Loader
from flexcare.models.encoders import ENCODERS
from flexcare.serving.predictor import Predictor
from prepared import quiet

# Their own mixtures choose experts anew along the path, and a jump has no gradient.
JUMPING = {"flex_moe", "moe_health"}
SETTINGS = [
    {},
    {"series_history": True},
    {"causal_series": True},
    {"mask": "additive", "absent_combinations": "visible"},
    {"mask": "none", "task_token_sees": "combinations"},
    {"max_combination": 1, "task_token_sees": "itself"},
    {"max_bins": 5, "max_pieces": 2},
    {"experts_per_token": 1},
]


def asked(bundle, store, sample=EVERYTHING, **given):
    return explain(bundle, store, sample, say=quiet, **given)


def sums_of(part):
    """By modality the sum of its details, and all of them."""
    return {
        name: [detail["contribution"] for detail in own["details"]]
        for name, own in part["details"].items()
    }


def assert_adds_up(part, complete=True):
    total = sum(part["modalities"].values())
    assert total == pytest.approx(part["log_odds"] - part["nothing_known"], abs=1e-10)
    check = part["check"]
    told = sum(sum(values) for values in sums_of(part).values())
    assert check["sum"] == pytest.approx(told, abs=1e-10)
    parts = check["baseline"] + check["jumps"] + check["sum"] + check["gap"]
    assert parts == pytest.approx(part["log_odds"], abs=1e-10)
    assert check["complete"] == (abs(check["gap"]) <= check["tolerance"])
    if complete:
        assert abs(check["gap"]) <= 0.01 * max(1, abs(check["sum"] + check["gap"]))
        sizes = [abs(value) for values in sums_of(part).values() for value in values]
        assert sum(sizes) > 0.1  # there was something to add up


@pytest.fixture(scope="module")
def bundle(store):
    return bundle_of(store)


@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_every_network_is_taken_apart(store, network):
    found = asked(bundle_of(store, NETWORKS[network]), store, tasks=NAMES)
    assert found["network"] == network
    assert list(found["tasks"]) == NAMES
    for part in found["tasks"].values():
        assert_adds_up(part, network not in JUMPING)
        assert ("combinations" in part) == ("experts" in part) == (network == "flexcare")
    as_text(found)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_setting_of_the_network_is_taken_apart(store, settings):
    bundle = bundle_of(store, **settings)
    for sample in (EVERYTHING, SOME):
        assert_adds_up(asked(bundle, store, sample)["tasks"]["return_30d"])


def test_several_networks_in_one_are_taken_apart(store):
    part = asked(bundle_of(store, Pair), store)["tasks"]["return_30d"]
    assert_adds_up(part)
    assert "combinations" not in part
    assert any(sums_of(part)["diagnoses"])


def test_ends_are_the_answers_that_prediction_gives(store, bundle):
    predictor = Predictor(bundle, say=quiet)
    rows = predictor.predict_store(store, tasks=["return_30d"]).to_pylist()
    nothing = predictor.predict({}, tasks=NAMES)
    for sample in (EVERYTHING, SOME):
        (row,) = [row for row in rows if row["sample_id"] == sample]
        found = asked(bundle, store, sample)
        (part,) = found["tasks"].values()
        assert [part["probability"]] == pytest.approx(row["probabilities"], abs=1e-5)
        assert "+".join(part["modalities"]) == "+".join(part["details"]) == row["modalities"]
        assert set(found["absent"]) == store.modalities.keys() - part["modalities"].keys()
    assert found["absent"]
    for task, part in asked(bundle, store, tasks=NAMES)["tasks"].items():
        unknown = 1 / (1 + np.exp(-part["nothing_known"]))
        assert unknown == pytest.approx(nothing[task][part["answer"]], abs=1e-5)


@pytest.mark.parametrize("info", TASKS, ids=lambda info: info.name)
def test_any_answer_can_be_explained_and_the_most_probable_is(store, bundle, info):
    every = [asked(bundle, store, tasks=info.name, answer=name) for name in info.classes]
    parts = [found["tasks"][info.name] for found in every]
    assert [part["answer"] for part in parts] == list(info.classes)
    if info.kind == "multiclass":
        assert sum(part["probability"] for part in parts) == pytest.approx(1)
    best = max(parts, key=lambda part: part["probability"])
    assert asked(bundle, store, tasks=info.name)["tasks"][info.name] == best


def test_weights_and_experts_are_shares(store, bundle):
    part = asked(bundle, store, SOME)["tasks"]["return_30d"]
    known = part["modalities"].keys()
    combinations = part["combinations"]
    assert len(combinations) == 2 ** len(known) - 1
    assert all(known >= set(name.split("+")) for name in combinations)
    assert sum(own["weight"] for own in combinations.values()) == pytest.approx(1)
    for own in combinations.values():
        assert len(own["experts"]) == 2
        assert sum(own["experts"].values()) == pytest.approx(1)
    assert sum(part["experts"].values()) == pytest.approx(1)


def test_what_the_network_ignores_gets_nothing(store):
    part = asked(bundle_of(store, Deaf), store)["tasks"]["return_30d"]
    assert part["modalities"]["slide"] == 0
    assert not np.any(sums_of(part)["slide"])
    others = {name: value for name, value in part["modalities"].items() if name != "slide"}
    assert min(map(abs, others.values())) > 1e-4


def test_nothing_known_is_said_and_nothing_is_explained(store, bundle):
    bare = bundle_of(store)
    bare.modalities = ()
    part = asked(bare, store)["tasks"]["return_30d"]
    assert part["log_odds"] == part["nothing_known"]
    assert part["modalities"] == {}
    assert "details" not in part
    assert "nothing known" in as_text(asked(bare, store))


@pytest.fixture(scope="module")
def planted(store):
    """The hand-set network's explanation, and what it read: h, its baseline, a and f."""
    bundle = bundle_of(store, Planted)
    loader = Loader(store, bundle.scaling)
    row = pc.index(store.samples["sample_id"], EVERYTHING).as_py()
    batch = loader.batch(np.array([[row]]), ("return_30d",))
    h = batch.inputs["vitals"].values[0, -1, 0].item()
    a = batch.inputs["patient"].values[0, 0, 0].item()
    f = batch.inputs["film"].values[0, :14, :14].double().mean().item()
    scaling = bundle.scaling["vitals"]
    base = (80 - scaling["center"][0]) / scaling["scale"][0]
    part = asked(bundle, store, deletion=True)["tasks"]["return_30d"]
    return part, h, base, a, f


def test_shapley_values_of_a_hand_set_network(planted):
    part, h, _, a, f = planted
    expected = {"vitals": 2 * h + h * a / 2, "patient": h * a / 2, "film": -3 * f}
    for name, value in part["modalities"].items():
        assert value == pytest.approx(expected.get(name, 0), abs=1e-6), name
    assert expected.keys() < part["modalities"].keys()


def test_details_of_a_hand_set_network(planted):
    part, h, base, a, f = planted
    found = sums_of(part)
    expected = {name: np.zeros(len(values)) for name, values in found.items()}
    expected["vitals"][-1] = (h - base) * (2 + a / 2)
    expected["patient"][0] = a * (base + h) / 2
    expected["film"][0] = -3 * f
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], atol=1e-6, err_msg=name)
    assert part["check"]["baseline"] == pytest.approx(2 * base, abs=1e-6)
    assert part["check"]["jumps"] == pytest.approx(0, abs=1e-6)
    last = part["details"]["vitals"]["details"][-1]
    assert (last["what"], last["where"]) == ("heart_rate", "hour 47")
    assert part["details"]["patient"]["details"][0]["what"] == "age"


def test_removing_what_adds_most_lowers_the_answer_fastest(planted, store):
    part = planted[0]
    curve = part["deletion"]
    for line in (curve["by_contribution"], curve["at_random"]):
        assert line[0] == pytest.approx(part["log_odds"], abs=1e-9)
        assert line[-1] == pytest.approx(part["check"]["baseline"], abs=1e-9)
    assert curve["share"][0] == 0
    assert curve["share"][-1] == 1
    values = [value for own in sums_of(part).values() for value in own]
    gains = sum(value for value in values if value > 0)
    # After the first step all that adds is gone, and what takes is still there.
    assert part["log_odds"] - min(curve["by_contribution"]) >= 0.5 * gains
    assert curve["area"] > 0.1


def turned_for(bundle, store, info=TASKS[0], sample=EVERYTHING):
    model = bundle.model.double().requires_grad_(False)
    row = pc.index(store.samples["sample_id"], sample).as_py()
    known = Reading(Loader(store, bundle.scaling), row, model, None).known()
    return Turned(Question(model, info, 0), known)


def test_order_of_contribution_beats_chance_and_the_reverse_loses(store):
    turned = turned_for(bundle_of(store), store)
    found = integrated_gradients(turned)
    curve = deletion_curve(turned, found.values)
    reverse = deletion_curve(turned, -found.values)
    assert curve.area > 0 > reverse.area
    assert deletion_curve(turned, found.values, seed=0).area == curve.area
    assert deletion_curve(turned, found.values, seed=1).area != curve.area


def test_a_detail_turned_down_is_its_contribution_where_the_network_is_linear(store):
    """Of a straight function the gradient's way and leaving out agree, detail by detail."""

    class Straight(Planted):
        def forward(self, batch):
            f = self.read(batch, "film", lambda values: values[:, :14, :14].mean((1, 2)))
            h = self.read(batch, "vitals", lambda values: values[:, 3].sum(-1))
            output = super().forward(batch)
            output.logits = dict.fromkeys(batch.tasks, (f - 2 * h)[:, None])
            return output

    turned = turned_for(bundle_of(store, Straight), store)
    found = integrated_gradients(turned)
    rows = 1 - torch.eye(turned.count, dtype=torch.float64)
    left_out = found.sample - turned.answers(rows).numpy()
    np.testing.assert_allclose(found.values, left_out, atol=1e-8)
    assert np.count_nonzero(np.abs(found.values) > 1e-6) == 2


def test_a_code_that_is_turned_down_is_none_in_particular(store):
    turned = turned_for(bundle_of(store), store)
    values = turned.known["diagnoses"].tokens.values
    known = torch.ones(1, turned.count, dtype=torch.float64)
    without = known.clone()
    without[:, turned.places["diagnoses"]] = 0
    one, none = turned.answers(known), turned.answers(without)
    values[..., 0] = 1 - values[..., 0]  # the other code
    values[..., 1] += 2  # and older
    turned.known["diagnoses"].base[..., 0] = values[..., 0]
    assert float(turned.answers(known)) != pytest.approx(float(one), abs=1e-3)
    assert float(turned.answers(without)) == pytest.approx(float(none), abs=1e-12)


def test_the_sample_keeps_its_experts_on_the_path(store):
    """Choosing others is told apart, so what has a gradient adds up."""
    model = bundle_of(store, experts_per_token=1)
    turned = turned_for(model, store)
    found = integrated_gradients(turned)
    assert abs(found.jumps) > 0.01
    every = integrated_gradients(turned_for(bundle_of(store, experts_per_token=4), store))
    assert every.jumps == pytest.approx(0, abs=1e-6)
    # Afterwards the network chooses freely again.
    nothing = torch.zeros(1, turned.count, dtype=torch.float64)
    assert float(turned.answers(nothing)) == pytest.approx(found.baseline, abs=1e-12)


def test_there_is_a_reading_of_every_kind():
    assert KINDS.keys() == ENCODERS.keys()


def details_of(found, name):
    (part,) = found["tasks"].values()
    return [(d["what"], d["where"], d["value"]) for d in part["details"][name]["details"]]


def test_details_are_named_as_the_tables_have_them(store, bundle):
    found = asked(bundle, store)
    pulse = details_of(found, "vitals")
    assert len(pulse) == 48
    assert pulse[0] == ("heart_rate", "hour 0", "(80 1/min)")  # none yet: the normal one
    seen = [value for _, where, value in pulse if not value.startswith("(")]
    assert len(seen) == 12  # hours 1, 5, 9, ...
    assert pulse[2][2] == f"({pulse[1][2]})"  # carried on
    events, own = store.events, store.samples.to_pylist()[0]
    assert own["sample_id"] == EVERYTHING
    part = slice(own["series_first"], own["series_stop"])
    rate = events["value"][part][events["variable"][part] == store.variables.index("heart_rate")]
    assert seen == [f"{value:.4g} 1/min" for value in rate]
    age, sex = details_of(found, "patient")
    assert age[::2] == ("age", f"{events['value'][part][0]:.4g} years")
    assert sex == ("sex", "", "male")
    ((what, where, code),) = details_of(found, "diagnoses")
    assert (what, where) == ("diagnosis", "first seen 48 h before")
    assert code in ("I50.0", "J18.9")
    assert details_of(found, "slide") == [("slide", "vector 1", "24 h old")]
    assert [where for _, where, _ in details_of(found, "film")] == [
        f"row {r}, column {c} of 2" for r in (1, 2) for c in (1, 2)
    ]


def test_words_are_named_only_if_asked(store, bundle):
    found = asked(bundle, store)
    places = [(where, value) for _, where, value in details_of(found, "note")]
    assert places == [(f"piece {n}", "") for n in range(1, 6)]
    for text in (json.dumps(found), as_text(found)):
        assert "room" not in text
    shown = asked(bundle, store, show_text=True)
    assert [value for *_, value in details_of(shown, "note")] == ["seen", "in", "room", "1", "."]
    assert "room" in as_text(shown)
    cut = asked(bundle_of(store, max_pieces=3), store, show_text=True)
    assert [value for *_, value in details_of(cut, "note")] == ["seen", "in", "room"]
