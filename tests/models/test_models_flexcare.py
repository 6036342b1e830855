"""The whole network: what may change its answers, and what may not."""

import itertools

import pytest
import torch
from random_batches import (
    MIXED,
    NAMES,
    SMALL,
    TASKS,
    every_pattern,
    modalities,
    network,
    random_batch,
)

from flexcare.batch import Batch, Tokens
from flexcare.config import ModelConfig
from flexcare.errors import UserError
from flexcare.models.flexcare import FlexCare
from flexcare.schema import ModalityInfo, TaskInfo


@pytest.mark.parametrize("direct", [False, True])
def test_order_of_modalities_changes_nothing(direct):
    model = network(MIXED[:3], direct=direct)
    batch = random_batch(model, every_pattern(3))
    expected = model(batch)
    for order in itertools.permutations(modalities(MIXED[:3])):
        other = FlexCare(model.config, order, TASKS).double().eval()
        other.load_state_dict(model.state_dict())
        inputs = {info.name: batch.inputs[info.name] for info in order}
        found = other(Batch(batch.size, inputs, NAMES))
        assert found.combinations == expected.combinations
        for task in NAMES:
            assert torch.equal(found.logits[task], expected.logits[task])


@pytest.mark.parametrize("direct", [False, True])
def test_order_of_samples_changes_nothing(direct):
    model = network(MIXED[:3], direct=direct)
    present = every_pattern(3)
    batch = random_batch(model, present)
    order = torch.tensor([5, 2, 7, 0, 1, 6, 4, 3])
    place = order.argsort()  # where each old row went
    inputs = {}
    for name, tokens in batch.inputs.items():
        rows, old = place[tokens.rows].sort()
        inputs[name] = Tokens(tokens.values[old], tokens.valid[old], rows)
    expected, found = model(batch), model(Batch(batch.size, inputs, NAMES))
    for task in NAMES:
        torch.testing.assert_close(found.logits[task], expected.logits[task][order])
    torch.testing.assert_close(found.combined, expected.combined[order])
    torch.testing.assert_close(found.gates, expected.gates[order])


@pytest.mark.parametrize("direct", [False, True])
def test_a_patient_has_the_same_answer_alone_and_among_others(direct):
    model = network(MIXED[:3], direct=direct)
    batch = random_batch(model, every_pattern(3))
    together = model(batch)
    for row in range(batch.size):
        inputs = {}
        for name, tokens in batch.inputs.items():
            mine = tokens.rows == row
            inputs[name] = Tokens(tokens.values[mine], tokens.valid[mine], tokens.rows[mine] * 0)
        alone = model(Batch(1, inputs, NAMES))
        for task in NAMES:
            torch.testing.assert_close(alone.logits[task][0], together.logits[task][row])


@pytest.mark.parametrize("mask", ["boolean", "additive", "none"])
@pytest.mark.parametrize("direct", [False, True])
def test_tasks_asked_together_equal_each_asked_alone(mask, direct):
    model = network(MIXED[:3], mask=mask, direct=direct)
    batch = random_batch(model, every_pattern(3))
    together = model(batch)
    for index, task in enumerate(NAMES):
        alone = model(Batch(batch.size, batch.inputs, (task,)))
        torch.testing.assert_close(alone.logits[task], together.logits[task])
        torch.testing.assert_close(alone.gates[:, 0], together.gates[:, index])
        torch.testing.assert_close(alone.weights[:, 0], together.weights[:, index])
        if mask == "boolean":
            torch.testing.assert_close(alone.combined, together.combined)


def test_tasks_differ_in_routing_but_not_in_what_is_combined():
    model = network(MIXED[:3])
    output = model(random_batch(model, torch.ones(4, 3, dtype=torch.bool)))
    assert output.combined_by_task.shape[1] == 1
    assert not torch.equal(output.gates[:, 0], output.gates[:, 1])


@pytest.mark.parametrize("mask", ["boolean", "additive", "none"])
@pytest.mark.parametrize("inputs", ["left out", "no rows", "rows without a valid token"])
def test_nothing_known_leaves_the_half_of_the_head_that_holds_the_patient_zero(mask, inputs):
    model = network(MIXED[:3], mask=mask)
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    batch = random_batch(model, nothing, empty_rows=inputs.startswith("rows"))
    if inputs == "left out":
        batch = Batch(2, {}, NAMES)
    output = model(batch)
    assert not output.present.any()
    assert not output.gates.any()
    assert not output.weights.any()
    with torch.no_grad():
        for head in model.heads.linear.values():
            head.weight[:, SMALL["hidden"] :] = 1e6  # what multiplies LayerNorm(p)
    for task in NAMES:
        assert output.logits[task].isfinite().all()
        assert torch.equal(model(batch).logits[task], output.logits[task])


@pytest.mark.parametrize("absent", ["hidden", "visible"])
@pytest.mark.parametrize("mask", ["boolean", "additive"])
def test_a_modality_left_out_of_the_batch_is_one_that_nobody_has(mask, absent):
    model = network(MIXED[:3], mask=mask, absent_combinations=absent)
    present = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]]).bool()
    batch = random_batch(model, present)
    without = Batch(4, {name: batch.inputs[name] for name in ("m0", "m1")}, NAMES)
    expected, found = model(batch), model(without)
    for task in NAMES:
        torch.testing.assert_close(found.logits[task], expected.logits[task])
    torch.testing.assert_close(found.combined_by_task, expected.combined_by_task)
    torch.testing.assert_close(found.weights, expected.weights)


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_any_number_of_modalities_and_several_of_a_kind(count):
    model = network(["text"] * count)
    output = model(random_batch(model, every_pattern(count)))
    assert output.combined.shape == (2**count, 2**count - 1, 8)
    assert output.present.sum() == 3**count - 2**count * 1  # pairs of a set and a subset of it
    assert all(logits.isfinite().all() for logits in output.logits.values())


def test_the_cap_on_combinations():
    model = network(MIXED[:4], max_combination=2)
    output = model(random_batch(model, every_pattern(4)))
    assert len(output.combinations) == output.present.shape[1] == 10
    assert max(name.count("+") for name in output.combinations) == 1


@pytest.mark.parametrize("direct", [False, True])
def test_a_further_modality_that_is_absent_changes_no_bit(direct):
    """What lets a trained network learn another modality and keep its answers."""
    old = network(MIXED[:2], torch.float32, direct=direct)
    new = FlexCare(old.config, modalities(MIXED[:3]), TASKS).eval()
    new.load_state_dict(new.state_dict() | old.state_dict())
    batch = random_batch(old, every_pattern(2))
    before, after = old(batch), new(batch)
    for task in NAMES:
        assert torch.equal(before.logits[task], after.logits[task])
    kept = [after.combinations.index(name) for name in before.combinations]
    assert torch.equal(before.gates, after.gates[:, :, kept])
    assert torch.equal(before.combined, after.combined[:, kept])
    assert not after.present[:, [i for i in range(7) if i not in kept]].any()


@pytest.mark.parametrize("direct", [False, True])
def test_a_further_task_changes_no_bit(direct):
    old = network(MIXED[:2], torch.float32, direct=direct)
    further = TaskInfo("billing", "?", "multiclass", ("x", "y"), "macro_f1")
    new = FlexCare(old.config, modalities(MIXED[:2]), (*TASKS, further)).eval()
    state = new.state_dict() | old.state_dict()
    rows = new.task_embedding.weight.detach()[3:]
    state["task_embedding.weight"] = torch.cat([old.task_embedding.weight.detach(), rows])
    new.load_state_dict(state)
    batch = random_batch(old, every_pattern(2))
    for task in NAMES:
        assert torch.equal(old(batch).logits[task], new(batch).logits[task])


@pytest.mark.parametrize("direct", [False, True])
def test_single_precision_is_close_to_double(direct):
    model = network(MIXED[:3], direct=direct)
    batch = random_batch(model, every_pattern(3))
    exact = model(batch)
    single = model.float()
    for task in NAMES:
        near = single(batch).logits[task]
        assert near.dtype == torch.float32
        torch.testing.assert_close(near.double(), exact.logits[task], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mask", ["boolean", "additive"])
@pytest.mark.parametrize("direct", [False, True])
def test_mixed_precision_trains(mask, direct):
    model = network(MIXED[:3], torch.float32, mask=mask, direct=direct).train()
    batch = random_batch(model, every_pattern(3))
    with torch.autocast("cpu", torch.bfloat16):
        output = model(batch)
    (sum(logits.sum() for logits in output.logits.values()) + output.balance).backward()
    assert all(logits.dtype == torch.float32 for logits in output.logits.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("direct", [False, True])
def test_every_parameter_learns(direct):
    model = network(MIXED[:3], direct=direct).train()
    output = model(random_batch(model, every_pattern(3)))
    (sum(x.square().sum() for x in output.logits.values()) + output.balance).backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_what_speaks_directly_is_linear_in_each_modality_s_mean_token():
    model = network(MIXED[:3], direct=True)
    batch = random_batch(model, every_pattern(3))
    rest = network(MIXED[:3])
    own = {name: x for name, x in model.state_dict().items() if not name.startswith("direct")}
    rest.load_state_dict(own)
    for task in NAMES:
        expected = rest(batch).logits[task].clone()
        for modality, tokens in batch.inputs.items():
            vectors, valid = model.encoders[modality](tokens.values, tokens.valid)
            head = model.direct.linear[f"{modality}+{task}"].weight
            for row, place in zip(tokens.rows.tolist(), tokens.of.tolist(), strict=True):
                expected[row] += head @ vectors[place][valid[place]].mean(0)
        torch.testing.assert_close(model(batch).logits[task], expected)


def test_what_speaks_directly_says_nothing_at_the_start():
    torch.manual_seed(0)
    plain = FlexCare(ModelConfig(**SMALL), modalities(MIXED[:3]), TASKS).eval()
    torch.manual_seed(0)
    direct = FlexCare(ModelConfig(**SMALL, direct=True), modalities(MIXED[:3]), TASKS).eval()
    batch = random_batch(plain, every_pattern(3))
    for task in NAMES:
        assert torch.equal(plain(batch).logits[task], direct(batch).logits[task])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hidden": 9}, "heads 2"),
        ({"patch": 5}, "side 8 px"),
        ({"experts": 2, "experts_per_token": 3}, "experts_per_token"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        FlexCare(ModelConfig(**(SMALL | settings)), modalities(MIXED[:2]), TASKS)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["ct", "ct"], "twice"),
        (["a.b"], "a.b"),
        (["a+b"], "a\\+b"),
        ([""], "cannot be called"),
        (["values"], "values"),
        ([], "at least one modality"),
    ],
)
def test_names_that_cannot_be_parameters_are_refused(names, words):
    infos = [ModalityInfo(name, "text", 5, {}) for name in names]
    with pytest.raises(UserError, match=words):
        FlexCare(ModelConfig(**SMALL), infos, TASKS)


def test_an_unknown_kind_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="Did you mean 'time_series'"):
        FlexCare(ModelConfig(**SMALL), [ModalityInfo("x", "time_serie", 3, {})], TASKS)


def test_batches_that_the_network_does_not_understand_are_refused():
    model = network(MIXED[:2])
    batch = random_batch(model, every_pattern(2))
    series = batch.inputs["m0"]
    cases = [
        (Batch(4, batch.inputs, ("deth",)), "Did you mean 'death'"),
        (Batch(4, {"m9": series}, NAMES), "unknown modality 'm9'"),
        (Batch(4, batch.inputs, ()), "0 tasks"),
        (Batch(0, {}, NAMES), "0 samples"),
        (Batch(4, {"m1": series}, NAMES), "m1 do not fit"),
    ]
    narrow = Tokens(series.values[..., :2], series.valid, series.rows)
    cases.append((Batch(4, {"m0": narrow}, NAMES), "any, 3"))
    film = batch.inputs["m1"]
    colour = Tokens(film.values[:, None].expand(-1, 3, -1, -1), film.valid, film.rows)
    cases.append((Batch(4, {"m1": colour}, NAMES), "samples, 3, 8, 8"))
    for wrong, words in cases:
        with pytest.raises(UserError, match=words):
            model(wrong)
