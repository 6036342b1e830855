"""Note embeddings: the rate of the bare encoder, and what 8 bits save and cost.

Rate. Below: preparation's own step, from different texts to finished arrays on the disk: word
pieces, batches, half precision. Above: the encoder alone, fed the same word pieces, sorted by
length, 16 texts a batch; so the ratio of the times is that of the word pieces a second. The
encoder has the size of MiniLM (the smaller it is, the more the rest counts) and random weights.

Bits. An invented hospital is prepared with 16 and with 8 bits (MiniLM with its real weights, from
the extra `minilm`). The demo's network, trained on 16 bits, is judged on both: no metric may move
by more than the half width of its 95 % interval. The same is said of a network trained on 8 bits;
what another seed moves, on 16 bits, is its measure.
"""

import os
import string
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from invented import note_lengths
from measure import keep, ratio, seconds

from flexcare.config import read_toml
from flexcare.embedding import embed
from flexcare.evaluation.evaluate import evaluate_tables
from flexcare.evaluation.run import network_predictions
from flexcare.features.text import HuggingFaceFolder, text_hash
from flexcare.preparation import prepare
from flexcare.serving.bundle import Bundle, load_bundle
from flexcare.sources.synthetic import simulate
from flexcare.store import Store
from flexcare.training.run import train

TEXTS, WORDS, BATCH = 512, 20_000, 16
SUBJECTS = 500
TASKS = "drg,phenotyping,in_hospital_mortality"  # the first one is told by the notes alone


def encoder_folder(folder: Path, random: np.random.Generator) -> list[str]:
    """Save a random encoder of MiniLM's size with its tokenizer; give its words."""
    letters = random.choice(list(string.ascii_lowercase), (WORDS, 7))
    words = sorted({"".join(row) for row in letters})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join([*special, *words]) + "\n")
    tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=512)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}
    config = transformers.BertConfig(vocab_size=len(words) + 5, num_attention_heads=12, **sizes)
    transformers.BertModel(config).save_pretrained(folder)
    return words


def bare(encoder: HuggingFaceFolder, batches: list[dict[str, torch.Tensor]]) -> None:
    with torch.inference_mode():
        for inputs in batches:
            encoder.model(**inputs)


def rate(folder: Path) -> None:
    random = np.random.default_rng(0)
    words = encoder_folder(folder / "encoder", random)
    encoder = HuggingFaceFolder(folder / "encoder")
    lengths = note_lengths(TEXTS, random) - 2
    texts = {text_hash(t): t for t in (" ".join(random.choice(words, n)) for n in lengths)}
    pieces = encoder.tokenizer(sorted(texts.values(), key=len))
    pieces = {name: sorted(rows, key=len) for name, rows in pieces.items()}
    batches = [
        encoder.tokenizer.pad(
            {name: rows[i : i + BATCH] for name, rows in pieces.items()}, return_tensors="pt"
        )
        for i in range(0, TEXTS, BATCH)
    ]
    print(f"{TEXTS} texts, {sum(map(len, pieces['input_ids'])):,} word pieces", flush=True)

    def ours() -> float:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            parts = Path(place) / "unfinished", Path(place) / "store"
            return seconds(lambda: embed(texts, encoder, 16, *parts))

    name = "word pieces a second, of the bare encoder's"
    ratio(name, "at least 0.85", lambda: seconds(lambda: bare(encoder, batches)), ours)


def prepared(folder: Path, bits: int) -> tuple[Store, float]:
    """The store, and the bytes of vectors of a different text."""
    path = folder / f"store{bits}"
    options = {"embedding_bits": bits, "text_encoder": "minilm"}
    hospital = folder / "hospital"
    prepare("synthetic", hospital, path, tasks=TASKS, settings=options, say=lambda line: None)
    arrays = [*path.glob("embeddings/*/tokens.npy"), *path.glob("embeddings/*/scales.npy")]
    texts = len(set(Store(path).texts["text_hash"].to_pylist()))
    return Store(path), sum(os.path.getsize(array) for array in arrays) / texts


def trained(store: Store, seed: int = 0) -> Bundle:
    """The demo's network."""
    settings = read_toml(Path(__file__).parents[1] / "runs" / "demo.toml")
    settings["objective"]["task_weights"] = {}
    settings["training"]["seed"] = seed
    run = train(store.path, store.path.with_name(f"{store.path.name}-{seed}"),
                settings=settings, quiet=True)  # fmt: skip
    return load_bundle(run / "bundle")


def judged(bundle: Bundle, store: Store) -> dict[str, dict[str, Any]]:
    """Every metric with its interval, on the held-out split."""
    table, _ = network_predictions(bundle, store, "held_out")
    infos = {info.name: info for info in bundle.tasks}
    tasks = evaluate_tables({"network": table}, infos)["tasks"]
    return {
        f"{task} {name}": metric
        for task, found in tasks.items()
        for name, metric in found["models"]["network"]["metrics"].items()
    }


def moved(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> list[float]:
    """How far each metric moved, in half widths of its interval."""
    return [
        abs(after[name]["value"] - metric["value"]) / (metric["high"] - metric["low"]) * 2
        for name, metric in before.items()
    ]


def bits(folder: Path) -> None:
    simulate(folder / "hospital", SUBJECTS, seed=0, films=False)
    (half, half_bytes), (eight, eight_bytes) = prepared(folder, 16), prepared(folder, 8)
    note = f"{half_bytes:,.0f} bytes a note in 16 bits, {eight_bytes:,.0f} in 8"
    keep("bytes a note, 8 bits of 16", "at most 0.55", [eight_bytes / half_bytes], note=note)
    bundle = trained(half)
    before = judged(bundle, half)
    others = {
        "the same network": judged(bundle, eight),
        "trained on 8 bits": judged(trained(eight), eight),
        "trained with another seed": judged(trained(half, seed=1), half),
    }
    found = {name: max(moved(before, after)) for name, after in others.items()}
    note = f"the largest of {len(before)} metrics; " + ", ".join(
        f"{name} {value:.3g}" for name, value in found.items()
    )
    name = "metrics moved by 8 bits, in half intervals"
    keep(name, "at most 1", [found["the same network"]], note=note)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        rate(Path(name))
        bits(Path(name))


if __name__ == "__main__":
    main()
