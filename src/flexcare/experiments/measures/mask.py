"""Do combinations hold only their own modalities, and how much have they in common?"""

import numpy as np
import torch

from flexcare.experiments.measures.trained import SPLIT, Found, Trained
from flexcare.experiments.verdict import Value
from flexcare.training.watch import ROWS, correlations, leaks


def mask(run: Trained) -> Found:
    """leak: the share of a combination's gradient that reaches modalities that are not in it, the
    mean over combinations, and leak_most; correlation: mean |correlation| between the z_S of a
    patient; variation: mean variance of the entries of a z_S.
    """
    found: dict[str, list[float]] = {}
    most: list[float] = []
    for task in run.predictor.tasks:
        rows = _having_most(run, run.store.rows(task, SPLIT))
        shares = leaks(run.model, run.loader.batch(rows[:, None], (task,)))
        most += list(shares.values())
        found |= {name: [*found.get(name, []), share] for name, share in shares.items()}
    alike, spread = [], []
    for _, output in run.outputs():
        alike.append(correlations(output.combined, output.present))
        spread.append(output.combined[output.present].var(-1))
    values = {
        "correlation": Value(float(torch.cat(alike).mean())),
        "variation": Value(float(torch.cat(spread).mean())),
    }
    if most:
        values |= {"leak": Value(float(np.mean(most))), "leak_most": Value(max(most))}
    return Found(values, {"leak": {name: float(np.mean(one)) for name, one in found.items()}})


def _having_most(run: Trained, rows: np.ndarray) -> np.ndarray:
    """Some of the samples, those with the most modalities first."""
    return rows[np.argsort(-run.loader.work(rows), kind="stable")[:ROWS]]
