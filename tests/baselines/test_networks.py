"""Every network that is trained as FlexCare is: it learns, and absence and padding mean nothing."""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from flexcare.baselines.networks import NETWORKS
from flexcare.baselines.networks.gru_d import Decaying, days_since
from flexcare.batch import Batch, Tokens
from flexcare.config import ModelConfig, ObjectiveConfig
from flexcare.errors import UserError
from flexcare.features.variables import variable_set
from flexcare.schema import ModalityInfo, TaskInfo
from flexcare.training.objectives import objective

VARIABLES = {
    "pulse": {"unit": "1/min", "normal": 80.0},
    "awake": {"unit": "", "normal": "yes", "categories": ["yes", "no"]},
}
COLUMNS = list(variable_set(VARIABLES, "the test").columns())  # 3 of values, 2 of masks
INFOS = (
    ModalityInfo("codes", "codes", 7, {}),
    ModalityInfo("facts", "static", 5, {"variables": {"age": {}, "sex": {}, "unit": {}}}),
    ModalityInfo("film", "image", 8, {}),
    ModalityInfo("note", "text", 5, {}),
    ModalityInfo("slides", "embedding", 4, {}),
    ModalityInfo("vitals", "time_series", 5, {"variables": VARIABLES, "columns": COLUMNS}),
    ModalityInfo("waves", "time_series", 3, {}),
)
TASKS = (
    TaskInfo("death", "?", "binary", ("dead",), "average_precision"),
    TaskInfo("days", "?", "multiclass", ("0", "1", "2"), "quadratic_kappa", 0.5, hourly=True),
    TaskInfo("findings", "?", "multilabel", ("a", "b"), "macro_average_precision", 0.2),
)
NAMES = tuple(task.name for task in TASKS)
SMALL = {"hidden": 8, "layers": 1, "heads": 2, "feedforward": 2, "patch": 4, "experts": 4}
SMALL |= {"max_bins": 8, "experts_per_token": 2, "max_combination": 2}
OTHERS = sorted(NETWORKS.keys() - {"flexcare"})
# Nothing, each alone, some of several, everything.
PATTERNS = torch.cartesian_prod(*[torch.tensor([False, True])] * len(INFOS))
PATTERNS = PATTERNS[[0, 1, 2, 4, 8, 16, 32, 64, 3, 20, 45, 71, 90, 101, 118, 126, 127, 127]]
SERIES = [index for index, info in enumerate(INFOS) if info.kind == "time_series"]


def network(name, dtype=torch.float64, infos=INFOS, tasks=TASKS, **settings):
    """A network in eval mode whose every parameter matters."""
    torch.manual_seed(0)
    model = NETWORKS[name](ModelConfig(**(SMALL | settings)), infos, tasks).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model.eval()


def batch_of(present=PATTERNS, padding=float("nan"), seed=1, dtype=torch.float64, tasks=NAMES):
    """Row b has modality m where `present[b, m]`; what it has is the same whoever else has it."""
    random = torch.Generator().manual_seed(seed)
    inputs = {}
    for column, info in enumerate(INFOS):
        rows = present[:, column].nonzero()[:, 0]
        if info.kind == "image":
            values = torch.rand(len(present), 8, 8, generator=random)
            valid = torch.ones(len(present), 1, dtype=torch.bool)
        else:
            tokens = 3 if info.kind == "static" else 5
            width = 2 if info.kind == "codes" else info.width
            values = torch.randn(len(present), tokens, width, generator=random)
            lengths = torch.randint(1, tokens + 1, (len(present), 1), generator=random)
            valid = torch.arange(tokens) < lengths
            if info.kind == "time_series":
                values[..., -2:] = (values[..., -2:] > 0).float()  # masks
            if info.kind == "codes":
                values[..., 0] = torch.randint(0, 7, values.shape[:2], generator=random)
            values = torch.where(valid[..., None], values, padding)
        inputs[info.name] = Tokens(values[rows].to(dtype), valid[rows], rows)
    return Batch(len(present), inputs, tasks)


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


def test_days_since_the_last_value_count_from_the_bin_before():
    seen = torch.tensor([[[0, 1], [1, 0], [0, 0], [0, 0], [1, 0]]]).bool()
    hours = torch.tensor([[0, 0], [1, 1], [1, 2], [2, 3], [3, 4]])
    torch.testing.assert_close(days_since(seen)[0] * 24, hours.float())


def test_a_value_of_gru_d_fades_from_the_last_towards_nothing():
    """Its equations, one bin and one number after the other."""
    encoder = Decaying(INFOS[5], ModelConfig(**SMALL)).double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    tokens = batch_of(torch.ones(3, len(INFOS), dtype=torch.bool)).inputs["vitals"]
    found, _ = encoder(tokens.values, tokens.valid)
    owner = [0, 1, 1]
    slope, offset = encoder.fade_value
    for one, states in enumerate(found):
        state, since = torch.zeros(8).double(), torch.zeros(2).double()
        for bin in range(int(tokens.valid[one].sum())):
            row = tokens.values[one, bin]
            seen = row[3:]
            x = []
            for column, variable in enumerate(owner):
                fade = torch.exp(-torch.relu(slope[column] * since[variable] + offset[column]))
                x.append(row[column] if seen[variable] else fade * row[column])
            state = torch.exp(-torch.relu(encoder.fade_state(since))) * state
            z, r, c = encoder.project(torch.cat([torch.stack(x), seen])).split(8)
            of_z, of_r = encoder.gates(state).split(8)
            new = torch.tanh(c + encoder.candidate(torch.sigmoid(r + of_r) * state))
            z = torch.sigmoid(z + of_z)
            state = (1 - z) * state + z * new
            torch.testing.assert_close(states[bin], state)
            since = torch.where(seen > 0, 1 / 24, since + 1 / 24)


def test_modality_dropout_leaves_out_in_training_alone_and_never_all():
    model = network("modality_dropout", dropout=0.0)
    batch = batch_of(torch.ones(64, len(INFOS), dtype=torch.bool))
    quiet = [model(batch).logits["death"] for _ in range(2)]
    assert torch.equal(*quiet)
    loud = [model.train()(batch).logits["death"] for _ in range(4)]
    assert all((a != b).any() for a, b in pairwise(loud))
    nothing = model(Batch(1, {}, NAMES)).logits["death"]
    assert all((logits != nothing).all() for logits in loud)


def test_flex_moe_uses_the_expert_of_a_set_and_fills_what_is_missing():
    model, rows = network("flex_moe", experts=128), torch.arange(len(PATTERNS))
    logits = torch.randn(len(rows), len(INFOS), 128).double()
    number = (PATTERNS * 2 ** torch.arange(len(INFOS))).sum(1)  # of the set
    whole, wanted = PATTERNS.all(1), number[:, None].expand(PATTERNS.shape)
    gates = model._gates(logits, wanted, whole)
    assert ((gates > 0).sum(-1) == 2).all()
    torch.testing.assert_close(gates.sum(-1), torch.ones(PATTERNS.shape).double())
    mine = gates.gather(-1, wanted[..., None])[..., 0] > 0
    assert mine[~whole].all()
    best = torch.zeros_like(gates).scatter(-1, logits.topk(2).indices, 1) > 0
    assert torch.equal(gates[whole] > 0, best[whole])
    before = model(batch_of()).logits["death"]
    with torch.no_grad():
        model.bank[number[9], :, 0] += 1
    differs = (model(batch_of()).logits["death"] != before).any(1)
    assert torch.equal(differs, rows == 9)


def test_flex_moe_teaches_its_gate_the_set_and_the_balance():
    model = network("flex_moe")
    logits, there = torch.randn(3, 4, 4).double(), torch.tensor([[1] * 4, [1, 0, 1, 0], [0] * 4])
    gates, wanted = logits.softmax(-1), torch.tensor([3, 1, 0])[:, None].expand(3, 4)
    used = gates[0].sum(0)
    expected = used.var() / used.mean() ** 2 + functional.cross_entropy(logits[1], wanted[1])
    torch.testing.assert_close(model._lessons(logits, gates, there.bool(), wanted), expected)


def test_moe_health_uses_only_experts_whose_modalities_are_there():
    before = network("moe_health")(batch_of()).logits["death"]
    for index, members in enumerate(network("moe_health").members):
        model = network("moe_health")
        with torch.no_grad():
            model.experts.biases[1, index, 0] += 5
        differs = (model(batch_of()).logits["death"] != before).any(1)
        at_hand = (PATTERNS | ~members).all(1)
        assert not differs[~at_hand].any()
        assert differs[(members == PATTERNS).all(1)].all() or members.sum() > 1
    assert model.members.shape == (7 + 21, 7)  # at most two of seven


def test_m3h_looks_at_other_tasks_but_not_only():
    model = network("m3h")
    for task in NAMES:
        own = model(batch_of()).logits
        with torch.no_grad():
            model.own[task].bias += 1
        changed = model(batch_of()).logits
        assert all((own[name] != changed[name]).any() for name in NAMES)
    with torch.no_grad():
        for share in model.proportion.values():
            share.fill_(100.0)  # all of its own
        own = model(batch_of()).logits
        model.own["days"].bias += 1
    changed = model(batch_of()).logits
    assert torch.equal(own["death"], changed["death"])
    assert not torch.equal(own["days"], changed["days"])
