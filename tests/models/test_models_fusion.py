"""Streams are the masked network that the table describes."""

import pytest
import torch
from dense_reference import Reference, patients
from random_batches import MIXED, NAMES, every_pattern, network, random_batch

from flexcare.batch import Batch, Tokens
from flexcare.errors import UserError
from flexcare.models.dense import DenseFusion
from flexcare.models.fusion import combinations, visibility

SEES = ("all", "combinations", "itself")


def assert_equals_reference(model, batch, tolerance):
    reference = Reference(model.state_dict(), model.config, model.modalities, list(NAMES))
    with torch.no_grad():
        output = model(batch)
    for row, inputs in enumerate(patients(batch)):
        for column, task in enumerate(batch.tasks):
            expected = reference.answer(inputs, task)
            near = {"rtol": tolerance, "atol": tolerance}
            torch.testing.assert_close(output.logits[task][row].double(), expected.logits, **near)
            for index, name in enumerate(output.combinations):
                assert bool(output.present[row, index]) == (name in expected.combined)
                z = output.combined_by_task[row, min(column, output.combined_by_task.shape[1] - 1)]
                zero, none = torch.zeros(8).double(), torch.zeros(()).double()
                torch.testing.assert_close(
                    z[index].double(), expected.combined.get(name, zero), **near
                )
                torch.testing.assert_close(
                    output.weights[row, column, index].double(),
                    expected.weights.get(name, none).double(),
                    **near,
                )
                torch.testing.assert_close(
                    output.gates[row, column, index].double(),
                    expected.gates.get(name, torch.zeros(4).double()),
                    **near,
                )


@pytest.mark.parametrize("absent", ["hidden", "visible"])
@pytest.mark.parametrize("sees", SEES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_streams_equal_the_dense_network(count, sees, absent):
    model = network(MIXED[:count], task_token_sees=sees, absent_combinations=absent)
    batch = random_batch(model, every_pattern(count), empty_rows=sees == "all")
    assert_equals_reference(model, batch, 1e-12)


@pytest.mark.parametrize(("count", "absent"), [(4, "visible"), (5, "hidden")])
def test_streams_equal_the_dense_network_for_many_modalities(count, absent):
    model = network(MIXED[:count], absent_combinations=absent)
    assert_equals_reference(model, random_batch(model, every_pattern(count), NAMES[:1]), 1e-12)


@pytest.mark.parametrize("absent", ["hidden", "visible"])
def test_streams_equal_the_dense_network_in_single_precision(absent):
    model = network(MIXED[:3], torch.float32, absent_combinations=absent)
    assert_equals_reference(model, random_batch(model, every_pattern(3)), 1e-5)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_causal_streams_equal_the_dense_network(count):
    model = network(MIXED[:count], causal_series=True)
    assert_equals_reference(model, random_batch(model, every_pattern(count)), 1e-12)


def shared(model):
    """Nine rows of three patients: rows share series (up to an hour each), films and notes."""
    three = random_batch(model, torch.tensor([[1, 1, 1], [1, 0, 1], [1, 1, 0]]).bool())
    inputs = {}
    for name, tokens in three.inputs.items():
        patient = torch.arange(9) // 3
        mine = torch.isin(patient, tokens.rows)
        of = torch.searchsorted(tokens.rows, patient[mine])
        hours = 1 + torch.arange(9)[mine] % 3 if name in model.fusion.causal else None
        inputs[name] = Tokens(tokens.values, tokens.valid, torch.arange(9)[mine], of, hours)
    return Batch(9, inputs, NAMES)


@pytest.mark.parametrize("causal", [True, False])
def test_rows_that_share_what_they_know_equal_the_dense_network(causal):
    model = network(MIXED[:3], causal_series=causal)
    assert_equals_reference(model, shared(model), 1e-12)


@pytest.mark.parametrize("direct", [False, True])
def test_no_row_feels_a_bin_after_its_hour(direct):
    model = network(MIXED[:3], causal_series=True, direct=direct)
    batch = shared(model)
    series = batch.inputs["m0"]
    series.values.requires_grad_(True)
    logits = torch.cat(list(model(batch).logits.values()), 1)
    for row, of, known in zip(series.rows, series.of, series.known(), strict=True):
        (gradient,) = torch.autograd.grad(logits[row].sum(), series.values, retain_graph=True)
        felt = gradient.abs().sum(-1) > 0
        assert torch.equal(felt[of], known)
        assert felt.sum() == known.sum()  # nor anything of another patient


def test_parts_of_a_series_need_causal_streams():
    batch = shared(network(MIXED[:3], causal_series=True))
    with pytest.raises(ValueError, match="not causal"):
        network(MIXED[:3])(batch)
    with pytest.raises(ValueError, match="too long"):  # its positions would start later
        network(MIXED[:3], causal_series=True, max_bins=4)(batch)
    with pytest.raises(UserError, match="causal_series"):
        network(MIXED[:3], causal_series=True, mask="additive")


@pytest.mark.parametrize("absent", ["hidden", "visible"])
@pytest.mark.parametrize("mask", ["additive", "none"])
def test_leaking_masks_equal_the_dense_network(mask, absent):
    model = network(MIXED[:3], mask=mask, absent_combinations=absent)
    assert_equals_reference(model, random_batch(model, every_pattern(3), NAMES[:2]), 1e-12)


@pytest.mark.parametrize("sees", SEES)
@pytest.mark.parametrize("absent", ["hidden", "visible"])
def test_dense_form_equals_streams_and_takes_their_weights(sees, absent):
    model = network(MIXED[:3], task_token_sees=sees, absent_combinations=absent)
    batch = random_batch(model, every_pattern(3))
    streams = model(batch)
    dense = DenseFusion(model.config, model.combinations).double().eval()
    dense.load_state_dict(model.fusion.state_dict())
    model.fusion = dense
    by_task = model(batch)
    for task in NAMES:
        torch.testing.assert_close(streams.logits[task], by_task.logits[task])
    for index in range(len(NAMES)):
        torch.testing.assert_close(streams.combined, by_task.combined_by_task[:, index])


def test_dense_form_has_the_gradients_of_streams():
    model = network(MIXED[:3])
    batch = random_batch(model, every_pattern(3))
    gradients = []
    for form in (type(model.fusion), DenseFusion):
        fusion = form(model.config, model.combinations).double()
        fusion.load_state_dict(model.fusion.state_dict())
        model.fusion = fusion.eval()
        model.zero_grad()
        sum(logits.square().sum() for logits in model(batch).logits.values()).backward()
        gradients.append([p.grad for p in model.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        if ours is not None or theirs is not None:  # the gate's noise is not used in eval mode
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("mask", ["boolean", "additive", "none"])
def test_no_token_of_the_dense_form_looks_at_nothing(mask):
    """Some attention kernels make NaN of a row without a key, padding included."""
    fusion = DenseFusion(network(MIXED[:2]).config.model_copy(update={"mask": mask}), [("m0",)])
    shown, lengths = torch.zeros(2, 6, dtype=torch.bool), torch.tensor([1, 1, 3, 1])
    bias = fusion._bias(shown, lengths, [("m0",)], ["m0", "m1"])
    assert torch.equal((bias > -torch.inf)[:, 0], torch.eye(6).bool().expand(2, 6, 6))


def test_the_visibility_table():
    sees = visibility([("film",), ("series",), ("film", "series")], ["film", "series"], "all")
    expected = [  # task, three combinations, two modalities
        [1, 1, 1, 1, 1, 1],
        [0, 1, 0, 0, 1, 0],
        [0, 0, 1, 0, 0, 1],
        [0, 0, 0, 1, 1, 1],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    assert sees.int().tolist() == expected


@pytest.mark.parametrize(("sees", "row"), [("combinations", [1, 1, 0]), ("itself", [1, 0, 0])])
def test_what_a_task_token_sees_is_an_option(sees, row):
    assert visibility([("film",)], ["film"], sees)[0].int().tolist() == row


@pytest.mark.parametrize(("cap", "count"), [(None, 31), (5, 31), (9, 31), (2, 15), (1, 5)])
def test_number_of_combinations(cap, count):
    found = combinations("edcba", cap)
    assert len(set(found)) == count
    assert all(tuple(sorted(combo)) == combo for combo in found)


def test_dropout_only_in_training_and_only_if_asked():
    present = every_pattern(2)
    for dropout, same in ((0.5, False), (0.0, True)):
        model = network(MIXED[:2], dropout=dropout, gate_noise=False)
        batch = random_batch(model, present)
        quiet = model(batch).combined
        torch.manual_seed(3)
        loud = model.train()(batch).combined
        assert torch.equal(quiet, loud) == same
