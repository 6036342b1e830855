"""How far tasks agree about what to learn: cosines between their gradients, by group of layers."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from flexcare.batch import Batch
from flexcare.models.network import Network
from flexcare.processes import total
from flexcare.training.gradients import Lose, gradients_of, shared_parameters

DIGITS = 6


def conflicts(model: Network, lose: Lose, batches: Iterable[Batch]) -> dict[str, Any]:
    """Norms of the tasks' gradients on the parameters they share, and the cosines between them.

    Gradients are of the task's loss alone: regularisers pull all tasks the same way and would hide
    how they differ. Without dropout and gate noise, for the same reason.

    Args:
        lose: what a batch lost, with its graph.
        batches: one of each task, all of one size.

    Returns:
        "tasks", and by group (and for all shared parameters, "all") "norm", a number a task, and
        "cosine", a row a task, None where a gradient is 0.
    """
    parameters, was_training = shared_parameters(model), model.training
    shared = list(parameters.values())
    tasks: list[str] = []
    rows: list[Tensor] = []
    model.eval()
    try:
        for batch in batches:
            tasks += batch.tasks
            losses = [lose(batch).parts[f"loss/{task}"] for task in batch.tasks]
            rows.append(gradients_of(losses, shared))
    finally:
        model.train(was_training)
    parts = torch.split(total(torch.cat(rows)).double(), [p.numel() for p in shared], 1)
    grams: dict[str, Tensor] = {}
    for name, part in zip(parameters, parts, strict=True):
        for group in (group_of(name), "all"):
            grams[group] = grams.get(group, 0) + part @ part.T
    return {"tasks": tasks, "groups": {group: _told(gram) for group, gram in grams.items()}}


def group_of(name: str) -> str:
    """The group of a parameter: its part of the network, and of several layers which."""
    words = name.split(".")
    layers = [place for place, word in enumerate(words) if word.isdigit()]
    return ".".join(words[: layers[0] + 1]) if layers else words[0]


def _told(gram: Tensor) -> dict[str, list[Any]]:
    norm = gram.diagonal().sqrt()
    cosine = (gram / (norm[:, None] * norm)).tolist()
    known = [[None if one != one else round(one, DIGITS) for one in row] for row in cosine]
    return {"norm": [float(f"{one:.{DIGITS}g}") for one in norm.tolist()], "cosine": known}
