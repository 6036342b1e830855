"""Networks of the paper's size and random batches with MIMIC's missingness, without any data."""

from collections.abc import Sequence

import numpy as np
import torch

from flexcare.batch import Batch, Tokens
from flexcare.config import ModelConfig
from flexcare.models.flexcare import FlexCare
from flexcare.schema import ModalityInfo, TaskInfo

MODALITIES = (
    ModalityInfo("series", "time_series", 47, {}),
    ModalityInfo("film", "image", 224, {}),
    ModalityInfo("note", "text", 768, {}),
)
OUTPUTS = {
    "in_hospital_mortality": ("binary", 1),
    "decompensation": ("binary", 1),
    "length_of_stay": ("multiclass", 10),
    "phenotyping": ("multilabel", 25),
    "readmission": ("binary", 1),
    "diagnosis": ("multilabel", 14),
    "drg": ("multiclass", 500),
}
TASKS = tuple(
    TaskInfo(name, "?", kind, tuple(map(str, range(count))), "?")
    for name, (kind, count) in OUTPUTS.items()
)
NAMES = tuple(OUTPUTS)
SHARE = {"series": 1.0, "film": 0.3, "note": 0.6}  # of the stays that have each
PIECES = 512


def network(
    modalities: Sequence[ModalityInfo] = MODALITIES,
    tasks: Sequence[TaskInfo] = TASKS,
    **settings: object,
) -> FlexCare:
    """A network of the paper's size, in training mode."""
    torch.manual_seed(0)
    return FlexCare(ModelConfig.model_validate(settings), modalities, tasks)


def note_lengths(count: int, random: np.random.Generator) -> np.ndarray:
    """Word pieces of past medical histories: log-normal, median 130, never over 512."""
    return random.lognormal(np.log(130), 0.8, count).clip(8, PIECES).astype(int)


def batch(
    size: int, tasks: tuple[str, ...], hours: int = 48, full_notes: bool = False, seed: int = 0
) -> Batch:
    """A batch of stays: every one has `hours` bins, 30 % a film, 60 % a note.

    Args:
        full_notes: every note is 512 pieces long.
    """
    random = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    inputs = {}
    for name, share in SHARE.items():
        rows = torch.from_numpy(np.sort(random.permutation(size)[: max(1, round(share * size))]))
        n = len(rows)
        if name == "series":
            lengths, shape = np.full(n, hours), (hours, 47)
        elif name == "film":
            lengths, shape = np.ones(n, int), (224, 224)
        else:
            lengths = np.full(n, PIECES) if full_notes else note_lengths(n, random)
            shape = (lengths.max(), 768)
        values = torch.randn(n, *shape, generator=generator)
        valid = torch.arange(1 if name == "film" else shape[0]) < torch.from_numpy(lengths)[:, None]
        inputs[name] = Tokens(values, valid, rows)
    labels, masks = {}, {}
    for task in tasks:
        kind, count = OUTPUTS[task]
        width = 1 if kind == "multiclass" else count
        labels[task] = torch.randint(0, 2, (size, width), generator=generator).float()
        masks[task] = torch.ones(size, width, dtype=torch.bool)
    return Batch(size, inputs, tasks, labels, masks)
