"""Hiding what is known: exactly what was asked for, at random or by name."""

import pytest
import torch

from flexcare.batch import Batch, Tokens
from flexcare.loading.loader import Loader
from small_store import small_store

NAMES = ("film", "note", "series")


@pytest.fixture(scope="module")
def batch(tmp_path_factory) -> Batch:
    """Hours of stays, which share films and notes."""
    store = small_store(tmp_path_factory.mktemp("data") / "store")
    rows = store.rows("stay", "train")
    return Loader(store, store.manifest["scaling"]).batch(rows[:, None], ("stay",))


def known(batch: Batch, name: str) -> dict[int, tuple[bytes, list[bool]]]:
    """What each row knows."""
    tokens = batch.inputs[name]
    each = zip(tokens.rows.tolist(), tokens.values[tokens.of], tokens.known(), strict=True)
    return {row: (values.numpy().tobytes(), there.tolist()) for row, values, there in each}


def test_only_what_is_hidden_is_gone(batch):
    hidden = torch.rand(batch.size, 3, generator=torch.Generator().manual_seed(0)) < 0.4
    less = batch.hiding(NAMES, hidden)
    assert torch.equal(less.present(NAMES), batch.present(NAMES) & ~hidden)
    for column, name in enumerate(NAMES):
        before, after = known(batch, name), known(less, name)
        assert after == {row: one for row, one in before.items() if not hidden[row, column]}
    assert less.labels is batch.labels


def test_sequences_that_nobody_has_any_more_are_not_kept():
    tokens = Tokens(
        torch.arange(6.0).reshape(3, 2, 1),
        torch.ones(3, 2, dtype=torch.bool),
        torch.tensor([0, 1, 3]),
        torch.tensor([2, 0, 2]),
        torch.tensor([1, 2, 2]),
    )
    batch = Batch(4, {"series": tokens}, ("task",))
    less = batch.hiding(("series",), torch.tensor([[True], [True], [True], [False]]))
    kept = less.inputs["series"]
    assert kept.values.tolist() == [[[4.0], [5.0]]]
    assert (kept.rows.tolist(), kept.of.tolist(), kept.until.tolist()) == ([3], [0], [2])
    assert batch.hiding(("series",), torch.ones(4, 1, dtype=torch.bool)).inputs == {}


def test_nothing_hidden_is_the_same(batch):
    less = batch.hiding(NAMES, torch.zeros(batch.size, 3, dtype=torch.bool))
    assert all(less.inputs[name] is batch.inputs[name] for name in NAMES)


def test_dropping_takes_the_share_and_never_the_last_one(batch):
    before = batch.present(NAMES)
    torch.manual_seed(0)
    after = torch.stack([batch.dropping(0.4).present(NAMES) for _ in range(60)])
    assert torch.equal(after.any(2), before.any(1).expand(60, -1))
    assert not (after & ~before).any()
    some = before.sum(1) == 3
    kept = after[:, some].float().mean((0, 1))
    # Hidden with 0.4 by itself, unless all three would be: then one of them stays.
    assert kept.tolist() == pytest.approx([0.6 + 0.4**3 / 3] * 3, abs=0.03)
    assert after[:, before.sum(1) == 1].equal(before[before.sum(1) == 1].expand(60, -1, -1))


def test_dropping_follows_from_the_seed(batch):
    def drawn(seed):
        torch.manual_seed(seed)
        return batch.dropping(0.5).present(NAMES)

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_a_batch_of_nothing_stays_one():
    assert Batch(2, {}, ("task",)).dropping(0.5).inputs == {}
