"""Embeddings: a cancelled run resumed writes the bytes of an undisturbed one, and embeds no text
twice whose block was whole."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

import flexcare.embedding as embedding
from flexcare.embedding import embed
from flexcare.errors import UserError
from flexcare.features.text import Half, HashedNgrams, text_hash, to_8_bits
from flexcare.store import Scaled
from prepared import everything, prepare_there

BLOCK = 3
TEXTS = {text_hash(text): text for text in ["", *(f"pain {'so ' * n}{n}" for n in range(10))]}


class Encoder(HashedNgrams):
    """Counts what it embeds, and may be cancelled at a text."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop, self.seen = stop, list[str]()

    def embed(self, texts: Sequence[str]) -> Iterator[Half]:
        for text, vectors in zip(texts, super().embed(texts), strict=True):
            if len(self.seen) == self.stop:
                raise KeyboardInterrupt
            self.seen.append(text)
            yield vectors


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "BLOCK", BLOCK)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def cancelled(unfinished: Path, after: int, bits: int = 16) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed(TEXTS, Encoder(after), bits, unfinished, unfinished.parent / "never")


@pytest.mark.parametrize("bits", [16, 8])
@pytest.mark.parametrize("after", range(len(TEXTS)))
def test_a_resumed_run_equals_an_undisturbed_one(tmp_path: Path, after: int, bits: int) -> None:
    spans, none = embed(TEXTS, Encoder(), bits, tmp_path / "a", tmp_path / "whole")
    cancelled(tmp_path / "b", after, bits)
    rest = Encoder()
    resumed, before = embed(TEXTS, rest, bits, tmp_path / "b", tmp_path / "resumed")
    assert (none, before, len(rest.seen)) == (0, after // BLOCK * BLOCK, len(TEXTS) - before)
    assert resumed == spans
    assert contents(tmp_path / "resumed") == contents(tmp_path / "whole")


@pytest.mark.parametrize("bits", [16, 8])
def test_the_vectors_are_the_encoders(tmp_path: Path, bits: int) -> None:
    spans, _ = embed(TEXTS, Encoder(), bits, tmp_path / "a", tmp_path / "out")
    arrays = {p.stem: np.load(p) for p in (tmp_path / "out").iterdir()}
    tokens = arrays["tokens"] if bits == 16 else Scaled(**arrays)
    for key, text in TEXTS.items():
        want = next(HashedNgrams().embed([text])).astype(np.float32)
        found = tokens[slice(*spans[key])]
        assert found.shape == want.shape
        # Half a step of the largest entry; in 16 bits none.
        allowed = 0 if bits == 16 else np.abs(want).max(initial=0) / 254 * 1.001
        assert np.abs(found - want).max(initial=0) <= allowed


def test_a_vector_of_zeros_stays_one() -> None:
    tokens, scales = to_8_bits(np.zeros((2, 4), np.float16))
    assert (Scaled(tokens, scales)[:] == 0).all()


def test_the_unfinished_hold_no_text(tmp_path: Path) -> None:
    cancelled(tmp_path / "b", 10)
    kept = b"".join(p.read_bytes() for p in (tmp_path / "b").rglob("*") if p.is_file())
    assert kept
    assert b"pain" not in kept


@pytest.mark.parametrize("name", ["index.txt", "tokens.npy", "scales.npy"])
@pytest.mark.parametrize("lost", [1, 2, 40, 400])
def test_what_was_lost_is_embedded_again(tmp_path: Path, name: str, lost: int) -> None:
    embed(TEXTS, Encoder(), 8, tmp_path / "a", tmp_path / "whole")
    cancelled(tmp_path / "b", 10, bits=8)
    path = next((tmp_path / "b").rglob(name))
    path.write_bytes(path.read_bytes()[:-lost])
    embed(TEXTS, Encoder(), 8, tmp_path / "b", tmp_path / "resumed")
    assert contents(tmp_path / "resumed") == contents(tmp_path / "whole")


def test_other_texts_take_what_they_share_at_the_beginning(tmp_path: Path) -> None:
    cancelled(tmp_path / "b", 10)
    fewer = dict(list(TEXTS.items())[:5] + list(TEXTS.items())[6:])
    embed(fewer, Encoder(), 16, tmp_path / "a", tmp_path / "whole")
    rest = Encoder()
    embed(fewer, rest, 16, tmp_path / "b", tmp_path / "resumed")
    assert contents(tmp_path / "resumed") == contents(tmp_path / "whole")
    assert len(rest.seen) == len(fewer) - 5


def test_a_finished_store_is_never_written_into(tmp_path: Path) -> None:
    """The unfinished may outlive their store's completion, if the process dies just then."""
    embed(TEXTS, Encoder(), 16, tmp_path / "b", tmp_path / "store")
    before = contents(tmp_path / "store")
    embed({"0" * 32: "other", **TEXTS}, Encoder(), 16, tmp_path / "b", tmp_path / "other")
    assert contents(tmp_path / "store") == before
    assert contents(tmp_path / "other") != before


def test_what_another_encoder_began_stays(tmp_path: Path) -> None:
    cancelled(tmp_path / "u", BLOCK)
    cancelled(tmp_path / "u", 0, bits=8)  # by mistake, and cancelled at once
    rest = Encoder()
    _, before = embed(TEXTS, rest, 16, tmp_path / "u", tmp_path / "whole")
    assert before == BLOCK
    cancelled(tmp_path / "v", 0)
    assert not (tmp_path / "v").exists()


def test_two_preparations_at_once_are_refused(tmp_path: Path) -> None:
    class Meddler(Encoder):
        def embed(self, texts: Sequence[str]) -> Iterator[Half]:
            embed(TEXTS, Encoder(), 16, tmp_path / "b", tmp_path / "second")
            yield from super().embed(texts)

    with pytest.raises(UserError, match="another preparation"):
        embed(TEXTS, Meddler(), 16, tmp_path / "b", tmp_path / "first")


@pytest.mark.parametrize("bits", [16, 8])
def test_a_cancelled_preparation_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    folder = everything(4).write(tmp_path / "h")
    whole = prepare_there(folder, tmp_path / "whole", embedding_bits=bits)
    monkeypatch.setattr("flexcare.storing.text_encoder", lambda name: Encoder(2 * BLOCK))
    with pytest.raises(KeyboardInterrupt):
        prepare_there(folder, tmp_path / "out", embedding_bits=bits)
    assert {p.name for p in tmp_path.iterdir()} == {"h", "whole", ".out.embeddings"}
    rest = Encoder()
    monkeypatch.setattr("flexcare.storing.text_encoder", lambda name: rest)
    resumed = prepare_there(folder, tmp_path / "out", embedding_bits=bits)
    assert resumed.manifest["content"] == whole.manifest["content"]
    assert len(rest.seen) == len(set(whole.texts["text_hash"].to_pylist())) - 2 * BLOCK
    assert {p.name for p in tmp_path.iterdir()} == {"h", "whole", "out"}


def test_where_nothing_can_be_linked_it_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: Path) -> None:
        raise OSError("no links here")

    embed(TEXTS, Encoder(), 16, tmp_path / "a", tmp_path / "linked")
    monkeypatch.setattr(os, "link", refuse)
    embed(TEXTS, Encoder(), 16, tmp_path / "b", tmp_path / "copied")
    shutil.rmtree(tmp_path / "b")
    assert contents(tmp_path / "copied") == contents(tmp_path / "linked")
