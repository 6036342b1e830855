"""Samples of a store -> probabilities, with any model, a batch at a time."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from flexcare.batch import Batch
from flexcare.loading.loader import Loader, prefetch
from flexcare.models.flexcare import FlexCare, Output
from flexcare.schema import TaskInfo

BATCH = 128
Rows = NDArray[np.int64]


def probabilities(info: TaskInfo, logits: torch.Tensor) -> torch.Tensor:
    """(B, outputs) of 0..1: a softmax of a multiclass task, else a sigmoid of each output."""
    return logits.softmax(-1) if info.kind == "multiclass" else logits.sigmoid()


def outputs_of(
    model: nn.Module, loader: Loader, rows: Rows, task: str, batch: int = BATCH
) -> Iterator[tuple[Rows, Batch, Output]]:
    """The model's output for sample rows of one task, in eval mode, without gradients.

    Yields:
        places in `rows`, batch and output. Samples of like length are asked together, so the
        places are not in order.
    """
    was_training = model.training
    model.eval()
    order = np.argsort(loader.columns["series_hours"][rows], kind="stable")
    places = [order[i : i + batch] for i in range(0, len(order), batch)]
    batches = ((p, loader.batch(rows[p, None], (task,))) for p in places)
    device = next(model.parameters()).device
    try:
        with torch.inference_mode():
            for place, one in prefetch(batches):
                on_device = one.to(device)
                yield place, on_device, model(on_device)
    finally:
        model.train(was_training)


def predict_rows(model: FlexCare, loader: Loader, rows: Rows, task: str) -> NDArray[np.float32]:
    """(len(rows), outputs) probabilities of one task."""
    info = next(info for info in model.tasks if info.name == task)
    out = np.zeros((len(rows), info.outputs), np.float32)
    for places, _, output in outputs_of(model, loader, rows, task):
        out[places] = probabilities(info, output.logits[task].float()).cpu().numpy()
    return out
