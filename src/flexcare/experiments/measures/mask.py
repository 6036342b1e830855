"""Do combinations hold only their own modalities, and how much have they in common?"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from flexcare.experiments.measures.trained import SPLIT, Found, Trained
from flexcare.experiments.verdict import Value
from flexcare.training.watch import correlations, fullest, leaks, pairwise


def mask(run: Trained) -> Found:
    """leak: the share of a combination's gradient that reaches modalities that are not in it, the
    mean over combinations, and leak_most; correlation: mean |correlation| between the z_S of a
    patient; variation: mean variance of the entries of a z_S. Shown: similarity, that
    correlation by two combinations.
    """
    found: dict[str, list[float]] = {}
    most: list[float] = []
    for task in run.predictor.tasks:
        rows = fullest(run.loader, run.store.rows(task, SPLIT))
        shares = leaks(run.model, run.loader.batch(rows[:, None], (task,)))
        most += list(shares.values())
        found |= {name: [*found.get(name, []), share] for name, share in shares.items()}
    alike, spread = [], []
    sums = torch.zeros(2, *[len(run.model.combinations)] * 2, dtype=torch.float64)
    for _, output in run.outputs():
        alike.append(correlations(output.combined, output.present))
        spread.append(output.combined[output.present].var(-1))
        sums += summed(output.combined, output.present)
    values = {
        "correlation": Value(float(torch.cat(alike).mean())),
        "variation": Value(float(torch.cat(spread).mean())),
    }
    if most:
        values |= {"leak": Value(float(np.mean(most))), "leak_most": Value(max(most))}
    shown = {
        "leak": {name: float(np.mean(one)) for name, one in found.items()},
        "similarity": similarity(["+".join(one) for one in run.model.combinations], sums),
    }
    return Found(values, shown)


def summed(combined: Tensor, present: Tensor) -> Tensor:
    """(2, S, S) sums over samples: |correlation| of two z_S, and how often both are present."""
    amounts, pairs = pairwise(combined, present)
    return torch.stack([torch.where(pairs, amounts, 0).sum(0), pairs.sum(0)]).double()


def similarity(names: list[str], sums: Tensor) -> dict[str, Any]:
    """The means as a table; None: of a combination with itself, or of two that nobody has."""
    means = (sums[0] / sums[1]).fill_diagonal_(torch.nan).tolist()
    values = [[None if one != one else round(one, 4) for one in row] for row in means]
    return {"rows": names, "columns": names, "values": values}
