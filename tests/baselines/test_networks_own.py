"""What each network does in its own way."""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from flexcare.baselines.networks.gru_d import Decaying, days_since
from flexcare.batch import Batch
from flexcare.config import ModelConfig
from some_networks import INFOS, NAMES, PATTERNS, SMALL, TASKS, batch_of, network


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


@pytest.mark.parametrize("name", ["medfuse", "moe_health"])
def test_of_nothing_known_the_heads_see_zeros(name):
    model = network(name)
    found = model(Batch(2, {}, NAMES)).logits
    for task in NAMES:
        torch.testing.assert_close(found[task][0], model.answers.linear[task].bias)


def test_medfuse_reads_series_first_and_skips_what_is_absent():
    model = network("medfuse")
    assert model.vectors.names[:2] == ("vitals", "waves")
    vectors, there = model.vectors(model.encoded(batch_of()), len(PATTERNS), model.fusion.bias_hh)
    logits = model(batch_of()).logits["death"]
    for row, has in enumerate(there):
        state = (torch.zeros(1, 8).double(), torch.zeros(1, 8).double())
        for vector in vectors[row][has]:
            state = model.fusion(vector[None], state)
        torch.testing.assert_close(logits[row], model.answers.linear["death"](state[0])[0])


def test_modality_dropout_leaves_out_in_training_alone_and_never_all():
    model = network("modality_dropout", dropout=0.0)
    batch = batch_of(torch.ones(64, len(INFOS), dtype=torch.bool))
    quiet = [model(batch).logits["death"] for _ in range(2)]
    assert torch.equal(*quiet)
    loud = [model.train()(batch).logits["death"] for _ in range(4)]
    assert all((a != b).any() for a, b in pairwise(loud))
    nothing = model(Batch(1, {}, NAMES)).logits["death"]
    assert all((logits != nothing).all() for logits in loud)
    alone = batch_of(torch.eye(len(INFOS), dtype=torch.bool))
    expected = model.eval()(alone).logits["death"]
    assert torch.equal(model.train()(alone).logits["death"], expected)


def test_flex_moe_uses_the_expert_of_a_set_and_fills_what_is_missing():
    model, rows = network("flex_moe", experts=256), torch.arange(len(PATTERNS))
    logits = torch.randn(len(rows), len(INFOS), 256).double()
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
    assert model.members.shape == (8 + 28, 8)  # at most two of eight
    vectors, at_hand = torch.zeros(1, 8, 8).double(), torch.zeros(1, 36, dtype=torch.bool)
    assert not model._gates(vectors, at_hand[:, :8], at_hand).any()  # counts in no balance


def test_m3h_looks_at_other_tasks_but_not_only():
    model = network("m3h")
    for task in NAMES:
        own = model(batch_of()).logits
        with torch.no_grad():
            model.own[task].bias += 1
        changed = model(batch_of()).logits
        assert all((own[name] != changed[name]).any() for name in NAMES)


@pytest.mark.parametrize(("share", "moved"), [(100.0, "days"), (-100.0, "death")])
def test_m3h_mixes_its_own_and_others_in_a_proportion(share, moved):
    model = network("m3h", tasks=TASKS[:2])
    with torch.no_grad():
        for proportion in model.proportion.values():
            proportion.fill_(share)
        before = model(batch_of(tasks=NAMES[:2])).logits
        model.own["days"].bias += 1
        after = model(batch_of(tasks=NAMES[:2])).logits
    changed = [name for name in NAMES[:2] if not torch.allclose(before[name], after[name])]
    assert changed == [moved]
