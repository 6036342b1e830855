"""Known ways in which this method fails, looked for in every training; a warning has its number.

A mask that leaks, experts that all tasks use alike, a regulariser that drives out what modalities
share. Networks that form no combinations have none of these.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flexcare.batch import Batch
from flexcare.config import ObjectiveConfig
from flexcare.evaluation.routing import ALIKE, distance
from flexcare.loading.events import plain
from flexcare.loading.loader import Loader
from flexcare.models.network import Network, Output
from flexcare.processes import total
from flexcare.store import HAS
from flexcare.training.objectives import SCALES

ROWS, MOST = 16, 16  # patients and combinations whose gradients are looked at
DRIVEN = 0.5  # part of the correlation of unrelated vectors under which a term drives apart


class Watch:
    """What the tuning split says of a network while it is answered.

    Args:
        tuning: sample rows by task.
    """

    def __init__(
        self, model: Network, loader: Loader, tuning: Mapping[str, NDArray[np.int64]]
    ) -> None:
        self.model, self.loader, self.tuning = model, loader, tuning
        self.place = {info.name: number for number, info in enumerate(model.tasks)}

    def begin(self) -> None:
        """Before the tuning split is answered."""
        self.use = torch.zeros(len(self.place), self.model.routes, dtype=torch.float64)
        self.correlation = torch.zeros(2, dtype=torch.float64)  # sum, samples

    def see(self, output: Output) -> None:
        """What one batch of it was answered with."""
        if not output.combinations:
            return
        for number, task in enumerate(output.tasks):
            self.use[self.place[task]] += output.gates[:, number].sum((0, 1)).double().cpu()
        found = correlations(output.combined, output.present)
        self.correlation += torch.tensor([float(found.sum()), len(found)], dtype=torch.float64)

    def numbers(self, epoch: int, device: torch.device) -> dict[str, float]:
        """What there is to tell at the end of an epoch; processes share what they saw."""
        if not self.model.combinations:
            return {}
        seen = total(torch.cat([self.use.flatten(), self.correlation]).to(device)).cpu().numpy()
        use, (amount, count) = seen[:-2].reshape(self.use.shape), seen[-2:]
        out = {"correlation": amount / count} if count else {}
        used = use[use.sum(1) > 0]
        if len(used) > 1:
            out["routing_distance"] = distance(used)
        leak = self._leak() if not epoch else None
        return {k: float(v) for k, v in out.items()} | ({} if leak is None else {"leak": leak})

    def warnings(self, numbers: Mapping[str, float], config: ObjectiveConfig) -> dict[str, str]:
        """By what fails, a sentence with the number that tells it."""
        out = {}
        if numbers.get("leak", 0) > 0:
            out["mask"] = (
                f"the mask leaks: {numbers['leak']:.3g} of what forms a combination comes from "
                "modalities that are not in it (should be 0)"
            )
        if numbers.get("routing_distance", 1) < ALIKE:
            out["experts"] = (
                "all tasks use the experts alike: mean distance "
                f"{numbers['routing_distance']:.3g} of 1, under {ALIKE}"
            )
        low = DRIVEN * chance_correlation(self.model.config.hidden)
        regularised = config.decorrelation != "none" and config.decorrelation_weight > 0
        if regularised and numbers.get("correlation", 1) < low:
            out["regulariser"] = (
                "the decorrelation term is too strong: mean correlation between combinations "
                f"{numbers['correlation']:.3g}, under half of that of unrelated vectors ({low:.3g})"
            )
        return out

    def _leak(self) -> float | None:
        """The mean leak of some combinations of some patients; None: nobody has two modalities."""
        for task, rows in self.tuning.items():
            if not len(rows):
                continue
            batch = self.loader.batch(fullest(self.loader, rows)[:, None], (task,))
            shares = leaks(self.model, batch.to(next(self.model.parameters()).device), MOST)
            if shares:
                return float(np.mean(list(shares.values())))
        return None


def fullest(loader: Loader, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Some of the samples, those with the most modalities."""
    has = [plain(loader.store.samples[HAS + name])[rows] for name in loader.modalities]
    return rows[np.argsort(-np.sum(has, axis=0), kind="stable")[:ROWS]]


def leaks(model: Network, batch: Batch, most: int | None = None) -> dict[str, float]:
    """By combination, the share of its gradient that reaches modalities that are not in it.

    Gradients are of a fixed mixture of the entries of z_S to the tokens of each modality, summed
    without their signs. Combinations are those that leave out a modality that some row has.

    Args:
        most: about as many combinations as are looked at.
    """
    tokens, outputs = _traced(model, batch)
    there = [number for number, n in enumerate(outputs.present.any(0).tolist()) if n]
    asked = [n for n in there if tokens.keys() - set(model.combinations[n])]
    step = -(-len(asked) // (most or len(asked) or 1)) or 1
    out = {}
    for number in asked[::step]:
        reach = _reach(tokens, outputs.combined_by_task[:, :, number])
        outside = sum(v for name, v in reach.items() if name not in model.combinations[number])
        whole = sum(reach.values())
        if whole:
            out[outputs.combinations[number]] = outside / whole
    return out


def _traced(model: Network, batch: Batch) -> tuple[dict[str, list[Tensor]], Output]:
    """The output for a batch, and the tokens of each modality that it came from."""
    tokens: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Any:
        def hook(module: Any, given: Any, made: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            leaf = made[0].detach().requires_grad_()
            tokens.setdefault(name, []).append(leaf)
            return leaf, made[1]

        return hook

    hooks = [one.register_forward_hook(keep(name)) for name, one in model.encoders.items()]
    was_training = model.training
    model.eval()
    try:
        with torch.enable_grad():
            return tokens, model(batch)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()


def _reach(tokens: Mapping[str, Sequence[Tensor]], combined: Tensor) -> dict[str, float]:
    """How much each modality's tokens move z_S (B, K, D)."""
    mixture = torch.randn(combined.shape[-1], generator=torch.Generator().manual_seed(0))
    every = [leaf for leaves in tokens.values() for leaf in leaves]
    asked = (combined * mixture.to(combined)).sum()
    found = torch.autograd.grad(asked, every, retain_graph=True, allow_unused=True)
    amounts = iter([0.0 if one is None else float(one.abs().sum()) for one in found])
    return {name: sum(next(amounts) for _ in leaves) for name, leaves in tokens.items()}


def correlations(combined: Tensor, present: Tensor) -> Tensor:
    """(n,) of each sample with two present combinations the mean |correlation| of their z_S.

    Args:
        combined: (B, S, D); present: (B, S) bool.
    """
    alike, pairs = pairwise(combined, present)
    pairs = pairs.triu(1)
    counts = pairs.sum((-1, -2))
    amounts = torch.where(pairs, alike, 0).sum((-1, -2))
    return amounts[counts > 0] / counts[counts > 0]


def pairwise(combined: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """(B, S, S) |correlation| between the z_S of a sample, and of which two both are present."""
    z = torch.where(present[..., None], combined, 0)
    z = SCALES["correlation"](z - z.mean(-1, keepdim=True))
    return (z @ z.transpose(-1, -2)).abs(), present[..., None] & present[..., None, :]


def chance_correlation(width: int) -> float:
    """The mean |correlation| of unrelated vectors of `width` normal entries, nearly."""
    return math.sqrt(2 / (math.pi * (width - 1)))
