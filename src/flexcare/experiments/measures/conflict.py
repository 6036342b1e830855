"""Do the tasks' gradients pull against each other, and what does it cost to make peace?"""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexcare.config import over
from flexcare.experiments.measures.trained import Found, Trained, epochs_of
from flexcare.experiments.verdict import Value
from flexcare.training.budget import price

SUM = {"aggregator": "sum", "weighting": "fixed"}
ALL = "all"


def conflict(run: Trained) -> Found:
    """cosine: between two tasks' gradients on all that tasks share, the mean over pairs and the
    steps at which `training.measure_gradients` looked; negative: the share of them under 0. Shown
    by group of layers and step, 0 where no two gradients reach a group.
    """
    path = run.path / "gradients.jsonl"
    lines = [json.loads(one) for one in path.read_text().splitlines()] if path.exists() else []
    pairs = np.concatenate([np.zeros(0), *(_pairs(line, ALL) for line in lines)])
    if not len(pairs):
        return Found()
    groups = sorted(lines[0]["groups"], key=lambda name: (name != ALL, name))
    means = [[_mean(_pairs(line, group)) for line in lines] for group in groups]
    table = {
        "rows": groups,
        "columns": [f"step {line['step']}" for line in lines],
        "values": np.round(means, 4).tolist(),
    }
    values = {"cosine": Value(_mean(pairs)), "negative": Value(float((pairs < 0).mean()))}
    return Found(values, {"cosine": table})


def _pairs(line: dict[str, Any], group: str) -> NDArray[np.float64]:
    """Cosines of the pairs of tasks that both have a gradient."""
    table = np.array(line["groups"][group]["cosine"], dtype=np.float64)
    found: NDArray[np.float64] = table[np.triu_indices(len(table), 1)]
    return found[np.isfinite(found)]


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else 0.0


def cost(run: Trained) -> Found:
    """seconds: of a step, over those of the sum of the tasks on the same schedule, timed in turn;
    at_equal_seconds: the mean over tasks on the tuning split when the sum would be done with all
    its steps, read from the course between epochs, and unknown before the first.
    """
    own = run.config.model_dump(mode="json")
    plain = over(own, {"training": SUM})
    ratio = 1.0 if plain == own else price(run.store, own, plain)
    values = {"seconds": Value(ratio)}
    reached = reached_after([line["mean"] for line in epochs_of(run.path)], ratio)
    if reached is not None:
        values["at_equal_seconds"] = Value(reached)
    return Found(values)


def reached_after(means: list[float | None], ratio: float) -> float | None:
    """A course of epochs when a part 1 / ratio of it has passed, or its end."""
    passed = min(len(means), len(means) / ratio)
    known = np.array([(at, mean) for at, mean in enumerate(means, 1) if mean is not None])
    if not len(known) or passed < known[0, 0]:
        return None
    return float(np.interp(passed, known[:, 0], known[:, 1]))
