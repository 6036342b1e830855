"""Which experts serve whom: do they specialise?"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from flexcare.evaluation.routing import DEAD, divergence, mutual
from flexcare.experiments.measures.trained import Found, Trained
from flexcare.experiments.verdict import Value

Floats = NDArray[np.float64]


def routing(run: Trained) -> Found:
    """mutual_task and mutual_combination: what a task, or a combination, tells of the expert
    (bits); apart: Jensen-Shannon divergence (bits) between two tasks on the same combination, the
    mean over pairs and combinations; dead: experts that hardly anything is sent to.
    """
    model = run.model
    if not model.routes:
        return Found()
    names = [info.name for info in model.tasks]
    use = np.zeros((len(names), len(model.combinations), model.routes))
    for _, output in run.outputs():
        for place, task in enumerate(output.tasks):
            use[names.index(task)] += output.gates[:, place].sum(0).double().numpy()
    use = use[use.sum((1, 2)) > 0]
    use = use / use.sum((1, 2), keepdims=True) / len(use)  # every task counts alike
    values = {
        "mutual_task": mutual(use.sum(1)),
        "mutual_combination": mutual(use.sum(0)),
        "apart": _apart(use),
        "dead": float((use.sum((0, 1)) < DEAD).sum()),
    }
    combos = ["+".join(one) for one in model.combinations]
    shares = use / np.maximum(use.sum(2, keepdims=True), 1e-12)
    table = {
        "rows": [f"{task}: {combo}" for task in names for combo in combos],
        "columns": [f"expert {number + 1}" for number in range(model.routes)],
        "values": shares.reshape(-1, model.routes).round(4).tolist(),
    }
    found = {name: Value(value) for name, value in values.items() if np.isfinite(value)}
    return Found(found, {"usage": table})


def _apart(use: Floats) -> float:
    """Mean divergence between two tasks' (T, S, E) use of experts for a combination."""
    found = [
        divergence(use[a, combo], use[b, combo])
        for combo in range(use.shape[1])
        for a, b in combinations(range(len(use)), 2)
        if use[a, combo].sum() and use[b, combo].sum()
    ]
    return float(np.mean(found)) if found else np.nan
