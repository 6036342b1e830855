"""Every network that is trained as FlexCare is: it learns, and absence and padding mean nothing."""

import pytest
import torch

from flexcare.baselines.networks import NETWORKS
from flexcare.batch import Batch, Tokens
from flexcare.config import ModelConfig, ObjectiveConfig
from flexcare.errors import UserError
from flexcare.training.objectives import objective
from some_networks import INFOS, NAMES, OTHERS, PATTERNS, SERIES, SMALL, TASKS, batch_of, network


def assert_same(found, expected, rows=slice(None)):
    for task in found:
        torch.testing.assert_close(found[task], expected[task][rows], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", OTHERS)
def test_every_pattern_of_absence_has_finite_answers(name):
    output = network(name)(batch_of())
    for info in TASKS:
        assert output.logits[info.name].shape == (len(PATTERNS), info.outputs)
        assert output.logits[info.name].isfinite().all()
    assert output.tasks == NAMES
    assert output.combinations == ()


@pytest.mark.parametrize("name", OTHERS)
def test_a_row_is_answered_alike_alone_and_among_others(name):
    """So neither what others have nor how an absence is told has any influence."""
    model, whole = network(name), batch_of()
    expected = model(whole).logits
    for row, has in enumerate(PATTERNS):
        alone = {}
        for column, info in enumerate(INFOS):
            given = whole.inputs[info.name]
            place = (given.rows == row).nonzero()[:, 0]
            if has[column]:
                alone[info.name] = Tokens(given.values[place], given.valid[place], place * 0)
            elif row % 2:  # there, without a valid token
                empty = torch.full_like(given.values[:1], float("nan"))
                valid = torch.zeros_like(given.valid[:1])
                alone[info.name] = Tokens(empty, valid, torch.tensor([0]))
        assert_same(model(Batch(1, alone, NAMES)).logits, expected, slice(row, row + 1))


@pytest.mark.parametrize("name", OTHERS)
def test_padding_means_nothing_in_answers_and_gradients(name):
    model, gradients = network(name).train(), []
    for padding in (float("nan"), 1e30):
        torch.manual_seed(1)
        model.zero_grad()
        sum(x.square().sum() for x in model(batch_of(padding=padding)).logits.values()).backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for one, other in zip(*gradients, strict=True):
        assert one.isfinite().all()
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_there_matters(name):
    model, before = network(name), batch_of()
    expected = model(before).logits["death"]
    for column, info in enumerate(INFOS):
        changed = batch_of()
        values = changed.inputs[info.name].values
        values[..., -1 if info.kind == "codes" else slice(None)] *= -2
        differs = (model(changed).logits["death"] != expected).any(1)
        assert torch.equal(differs, PATTERNS[:, column])


@pytest.mark.parametrize("name", OTHERS)
def test_a_task_is_answered_alike_whatever_else_is_asked(name):
    model = network(name)
    together = model(batch_of()).logits
    for task in NAMES:
        assert_same(model(batch_of(tasks=(task,))).logits, together)


@pytest.mark.parametrize("name", OTHERS)
def test_order_of_modalities_changes_nothing(name):
    model = network(name)
    other = NETWORKS[name](model.config, INFOS[::-1], TASKS).double().eval()
    other.load_state_dict(model.state_dict())
    assert_same(other(batch_of()).logits, model(batch_of()).logits)


@pytest.mark.parametrize("name", OTHERS)
def test_rows_that_share_a_series_know_their_own_bins_of_it(name):
    model = network(name)
    whole = batch_of(torch.ones(1, len(INFOS), dtype=torch.bool), seed=3).inputs
    rows, until = torch.arange(3), torch.tensor([1, 2, 5])
    valid = torch.ones(1, 5, dtype=torch.bool)
    shared, apart = {}, {}
    for info in (INFOS[column] for column in SERIES):
        values = whole[info.name].values.nan_to_num(0.5)
        shared[info.name] = Tokens(values, valid, rows, rows * 0, until)
        apart[info.name] = Tokens(values.expand(3, -1, -1), torch.arange(5) < until[:, None], rows)
    assert_same(model(Batch(3, shared, NAMES)).logits, model(Batch(3, apart, NAMES)).logits)


@pytest.mark.parametrize("name", OTHERS)
def test_every_parameter_learns_also_in_mixed_precision(name):
    for mixed in (False, True):
        model = network(name, torch.float32).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            output = model(batch_of(dtype=torch.float32))
        balance = 0 if output.balance is None else output.balance
        (sum(x.square().sum() for x in output.logits.values()) + balance).backward()
        assert all(x.dtype == torch.float32 for x in output.logits.values())
        grads = {n: p.grad for n, p in model.named_parameters()}
        still = [n for n, grad in grads.items() if grad is None or not grad.any()]
        # Columns without masks are always seen, and so never fade.
        assert still == ["encoders.waves.fade_value"] * (name == "gru_d")
        assert all(grad.isfinite().all() for grad in grads.values())


@pytest.mark.parametrize("name", OTHERS)
def test_one_modality_and_one_task_are_enough(name):
    model = network(name, infos=[INFOS[SERIES[0]]], tasks=TASKS[:1]).train()
    whole = batch_of()
    batch = Batch(whole.size, {"vitals": whole.inputs["vitals"]}, ("death",))
    output = model(batch)
    assert output.logits["death"].isfinite().all()
    assert output.balance is None or output.balance.isfinite()


@pytest.mark.parametrize("name", OTHERS)
def test_names_that_it_does_not_know_are_refused(name):
    whole = batch_of()
    with pytest.raises(UserError, match="unknown modality 'm9'"):
        network(name)(Batch(whole.size, {"m9": whole.inputs["note"]}, NAMES))


def planted(rows, seed):
    """Some miss the series or the film; a high pulse, or else a bright film, is death."""
    random = torch.Generator().manual_seed(seed)
    dead = torch.rand(rows, generator=random) < 0.5
    has = torch.rand(rows, 2, generator=random) < 0.8
    has[~has.any(1), 0] = True
    series = torch.randn(rows, 6, 5, generator=random)
    series[..., 0] += 2 * dead[:, None]
    series[..., 3:] = 1
    film = torch.randn(rows, 8, 8, generator=random) + dead[:, None, None]
    inputs = {}
    for column, (name, values) in enumerate((("vitals", series), ("film", film))):
        mine = has[:, column].nonzero()[:, 0]
        shape = (len(mine), 6 if name == "vitals" else 1)
        inputs[name] = Tokens(values[mine], torch.ones(shape, dtype=torch.bool), mine)
    labels = {"death": dead[:, None].float()}
    masks = {"death": torch.ones(rows, 1, dtype=torch.bool)}
    return Batch(rows, inputs, ("death",), labels, masks)


def learned(name, seed=0):
    """A network after a few steps on something easy, and its parts of the loss."""
    torch.manual_seed(seed)
    model = NETWORKS[name](ModelConfig(**SMALL), [INFOS[2], INFOS[5]], TASKS[:1]).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(60):
        batch = planted(32, step)
        parts = objective(model(batch), batch, TASKS, ObjectiveConfig())
        optimizer.zero_grad()
        parts["total"].backward()
        optimizer.step()
    return model.eval(), parts


@pytest.mark.parametrize("name", OTHERS)
def test_it_learns_something_easy_and_the_same_seed_gives_the_same_numbers(name):
    model, parts = learned(name)
    batch = planted(200, 1000)
    with torch.no_grad():
        found = model(batch).logits["death"][:, 0]
    right = ((found > 0) == (batch.labels["death"][:, 0] > 0)).float().mean()
    assert right > 0.85
    assert parts.keys() - {"balance"} == {"total", "loss/death"}  # no term of combinations
    again, _ = learned(name)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )
