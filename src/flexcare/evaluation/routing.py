"""How far apart two uses of the experts are."""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

ALIKE = 0.05  # distance (0 to 1) between tasks' use of experts under which they route alike
DEAD = 0.01  # share of all routing under which an expert counts as unused
Floats = NDArray[np.float64]


def distance(use: Floats) -> float:
    """Mean total variation distance (0 to 1) between the rows' (tasks, experts) shares."""
    shares = use / use.sum(1, keepdims=True)
    return float(np.mean([abs(a - b).sum() / 2 for a, b in combinations(shares, 2)]))


def mutual(joint: Floats) -> float:
    """The mutual information (bits) of a joint distribution (a, b)."""
    joint = joint / joint.sum()
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    some = joint > 0
    return float((joint[some] * np.log2(joint[some] / apart[some])).sum())


def divergence(one: Floats, two: Floats) -> float:
    """The Jensen-Shannon divergence (bits, 0 to 1) of two distributions."""
    return mutual(np.stack([one / one.sum(), two / two.sum()]))
