"""What is minimised: task losses, decorrelation of combinations, balance of experts (SPEC 6)."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from flexcare.batch import Batch
from flexcare.config import ObjectiveConfig
from flexcare.errors import unknown
from flexcare.models.network import Output
from flexcare.processes import mean
from flexcare.schema import TaskInfo

TINY = 1e-8


class Losses(NamedTuple):
    """What a batch lost, without dimension.

    Attributes:
        totals: by task asked, weight x (task loss + w_d decorrelation + w_b balance). The
            regularisers are part of every task's total: whatever scales or turns a task's gradient
            does so with its share of them.
        parts: "loss/<task>" for each task asked and, as far as the network has them,
            "decorrelation" and "balance" (all unweighted).
    """

    totals: dict[str, Tensor]
    parts: dict[str, Tensor]

    def total(self, factors: Mapping[str, float] | None = None) -> Tensor:
        """The sum over tasks, each times its factor."""
        out = torch.zeros((), device=next(iter(self.totals.values())).device)
        for task, value in self.totals.items():
            out = out + (value if factors is None else factors[task] * value)
        return out

    def detached(self) -> "Losses":
        """The same without a graph."""
        totals, parts = ({k: v.detach() for k, v in one.items()} for one in self)
        return Losses(totals, parts)


def objective(
    output: Output, batch: Batch, infos: Sequence[TaskInfo], config: ObjectiveConfig
) -> dict[str, Tensor]:
    """What is minimised, "total": the sum of the tasks' totals; and its parts (see `Losses`)."""
    found = task_totals(output, batch, infos, config)
    return {"total": found.total()} | found.parts


def task_totals(
    output: Output, batch: Batch, infos: Sequence[TaskInfo], config: ObjectiveConfig
) -> Losses:
    """What a batch lost, task by task."""
    by_name = {info.name: info for info in infos}
    weights = task_weights(infos, config)
    parts = {}
    if output.combinations:
        present = output.present[:, None].expand(output.combined_by_task.shape[:-1])
        parts["decorrelation"] = decorrelation(
            output.combined_by_task, present, config.decorrelation
        )
    if output.balance is not None:
        parts["balance"] = output.balance
    factors = {
        "decorrelation": config.decorrelation_weight,
        "balance": config.balance_weight,
    }
    shared = sum(factors[name] * part for name, part in parts.items())
    totals = {}
    for task in batch.tasks:
        loss = task_loss(
            by_name[task], output.logits[task], batch.labels[task], batch.label_masks[task]
        )
        parts[f"loss/{task}"] = loss
        totals[task] = weights[task] * (loss + shared)
    return Losses(totals, parts)


def task_weights(infos: Sequence[TaskInfo], config: ObjectiveConfig) -> dict[str, float]:
    """The factor of each task: its own, or what the settings say instead."""
    weights = {info.name: info.weight for info in infos}
    for name in config.task_weights:
        if name not in weights:
            raise unknown("task in objective.task_weights:", name, weights)
    return weights | config.task_weights


def task_loss(info: TaskInfo, logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Mean over the labels that exist; 0 (with a gradient of 0) if none does.

    Args:
        logits: (B, outputs).
        labels: (B, outputs) of 0 and 1; multiclass: (B, 1), the class number.
        mask: the same shape, bool; what `labels` holds where it is False has no influence.
    """
    losses = LOSSES[info.kind](logits, torch.where(mask, labels, 0))
    return mean(torch.where(mask, losses, 0).sum(), mask.sum())


def _yes_or_no(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(
        logits, labels.to(logits.dtype), reduction="none"
    )


def _one_of_many(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits, labels[:, 0].long(), reduction="none")[:, None]


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "binary": _yes_or_no,
    "multilabel": _yes_or_no,
    "multiclass": _one_of_many,
}


def decorrelation(combined: Tensor, present: Tensor, how: str) -> Tensor:
    """Mean over samples of the mean squared off-diagonal entry between present combinations.

    The entries are covariances over the D features of centred z_S (divided by D - 1), or with
    "correlation" free of scale. Samples with fewer than two present combinations do not count.

    Args:
        combined: (..., S, D), z_S.
        present: (..., S) bool.
        how: a key of `SCALES`.
    """
    z = torch.where(present[..., None], combined, 0)
    z = SCALES[how](z - z.mean(-1, keepdim=True))
    between = z @ z.transpose(-1, -2)
    other = ~torch.eye(z.shape[-2], dtype=torch.bool, device=z.device)
    pairs = present[..., None] & present[..., None, :] & other
    count = pairs.sum((-1, -2))
    of_sample = torch.where(pairs, between, 0).square().sum((-1, -2)) / count.clamp(min=1)
    return mean(of_sample.sum(), (count > 0).sum())


# From centred z (..., S, D) to vectors whose products are the entries.
SCALES: dict[str, Callable[[Tensor], Tensor]] = {
    "covariance": lambda z: z / (z.shape[-1] - 1) ** 0.5,
    "correlation": lambda z: z / (z.square().sum(-1, keepdim=True) + TINY).sqrt(),
    "none": torch.zeros_like,
}
