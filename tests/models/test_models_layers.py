"""Attention in parts is attention over the whole."""

import math

import pytest
import torch
from random_batches import SMALL

from flexcare.config import ModelConfig
from flexcare.models.layers import Layer, dropout, hiding, merge, place, read

SIZE, READERS, HEADS, WIDTH = 3, 4, 2, 5


def layer(dropout=0.0):
    return Layer(ModelConfig(**(SMALL | {"hidden": 10, "dropout": dropout}))).double()


def random(*shape):
    return torch.randn(*shape, HEADS, WIDTH, dtype=torch.float64)


def test_merged_parts_equal_one_softmax_over_all_keys():
    torch.manual_seed(0)
    q, keys, values = random(SIZE, READERS), random(SIZE, 7), random(SIZE, 7)
    everything = hiding(torch.ones(SIZE, 1, 1, 7, dtype=torch.bool))
    whole = merge([read(layer(), q, keys, values, everything)])
    pieces = [
        read(layer(), q, keys[:, a:b], values[:, a:b], everything[..., a:b])
        for a, b in ((0, 1), (1, 5), (5, 7))
    ]
    torch.testing.assert_close(merge(pieces), whole)
    scores = torch.einsum("nrhd,nlhd->nhrl", q, keys) / math.sqrt(WIDTH)
    expected = torch.einsum("nhrl,nlhd->nrhd", scores.softmax(-1), values)
    torch.testing.assert_close(whole, expected)


def test_a_part_reaches_only_its_rows_and_readers():
    torch.manual_seed(0)
    first = read(layer(), random(3, 4), random(3, 6), random(3, 6), torch.zeros(3, 1, 1, 6))
    other = read(layer(), random(2, 1), random(2, 6), random(2, 6), torch.zeros(2, 1, 1, 6))
    rows, readers = torch.tensor([0, 2]), torch.tensor([3])
    merged = merge([first, place(other, rows, readers, (SIZE, READERS))])
    changed = (merged != first.answer).flatten(2).any(-1)
    expected = torch.zeros(SIZE, READERS).bool()
    expected[rows, 3] = True
    assert torch.equal(changed, expected)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_of_parts_drops_each_weight_of_the_whole(training):
    torch.manual_seed(0)
    q, keys = random(SIZE, READERS), random(SIZE, 5)
    values = torch.eye(5, dtype=torch.float64)[None, :, None].expand(SIZE, 5, HEADS, 5)
    everything = hiding(torch.ones(SIZE, 1, 1, 5, dtype=torch.bool))
    dropping = layer(dropout=0.5).train(training)
    answers = {
        one: merge(
            [
                read(one, q, keys[:, a:b], values[:, a:b], everything[..., a:b])
                for a, b in ((0, 2), (2, 5))
            ]
        )
        for one in (dropping, layer())
    }
    dropped, weights = answers.values()  # values are unit vectors: an answer is the weights
    gone = dropped == 0
    torch.testing.assert_close(dropped[~gone], weights[~gone] * (2 if training else 1))
    assert (0.3 < gone.double().mean() < 0.7) if training else not gone.any()


@pytest.mark.parametrize("training", [True, False])
def test_dropout_of_a_stream_drops_attention_weights(training):
    torch.manual_seed(0)
    q, keys = random(SIZE, 5), random(SIZE, 5)
    values = torch.eye(5, dtype=torch.float64)[None, :, None].expand(SIZE, 5, HEADS, 5)
    mask = torch.ones(SIZE, 1, 1, 5, dtype=torch.bool)
    dropped = layer(dropout=0.5).train(training).attend(q, keys, values, mask)
    weights = layer().attend(q, keys, values, mask)
    gone = dropped == 0
    torch.testing.assert_close(dropped[~gone], weights[~gone] * (2 if training else 1))
    assert (0.3 < gone.double().mean() < 0.7) if training else not gone.any()


def test_dropout_drops_its_share_and_keeps_the_mean():
    torch.manual_seed(0)
    x = torch.full((401, 503), 2.0, requires_grad=True)
    y = dropout(x, 0.1)
    y.sum().backward()
    gone = y == 0
    assert abs(gone.float().mean() - 0.1) < 0.003  # five standard deviations
    torch.testing.assert_close(y[~gone], torch.full_like(y[~gone], 2 / 0.9), rtol=1e-4, atol=0)
    assert torch.equal(x.grad == 0, gone)
    # Decisions that share a random number are independent, too.
    both = (gone[:, :-1] & gone[:, 1:]).float().mean()
    assert abs(both - 0.01) < 0.001


def test_dropout_follows_the_seed():
    x = torch.ones(7, 5)
    torch.manual_seed(3)
    first = dropout(x, 0.5)
    assert not torch.equal(dropout(x, 0.5), first)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.5), first)
