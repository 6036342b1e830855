"""Which details an answer rests on: integrated gradients, and whether removing them shows it.

Sundararajan, Taly and Yan 2017, "Axiomatic attribution for deep networks", arXiv 1703.01365.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from flexcare.explain.details import Turned

POINTS, MOST_POINTS = 32, 512
TOLERANCE = 0.01  # of the log-odds, or this share of the difference where that is above 1
JUST_ABOVE = 1e-9

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Contributions:
    """What each detail adds to the log-odds, from all turned down to all as they are.

    sample = baseline + jumps + sum of values + gap, and |gap| is at most `tolerance` where the
    path has no further jump.

    Attributes:
        values: (U,).
        baseline: log-odds with all details turned down.
        jumps: what has no gradient: that other experts are chosen; in networks that ask whether
            something was observed at all, that it was.
        sample: log-odds of the sample as it is.
        points: on the path, at which gradients were taken.
    """

    values: Floats
    baseline: float
    jumps: float
    sample: float
    points: int

    @property
    def gap(self) -> float:
        return self.sample - self.baseline - self.jumps - float(self.values.sum())

    @property
    def tolerance(self) -> float:
        return TOLERANCE * max(1.0, abs(self.sample - self.baseline - self.jumps))

    @property
    def complete(self) -> bool:
        return abs(self.gap) <= self.tolerance


def integrated_gradients(turned: Turned) -> Contributions:
    """The mean gradient on the straight path from the baseline to the sample, times its length.

    The experts are those of the sample all along. Gauss-Legendre points, doubled until the parts
    add up or there are `MOST_POINTS`.
    """
    ones = torch.ones(1, turned.count, dtype=torch.float64)
    baseline, sample = turned.answers(torch.cat([0 * ones, ones])).tolist()
    points = POINTS
    with turned.question.same_experts(lambda: turned.answers(ones)):
        start = float(turned.answers(JUST_ABOVE * ones))
        while True:
            values = _path_integral(turned, points)
            found = Contributions(values, baseline, start - baseline, sample, points)
            if found.complete or points >= MOST_POINTS:
                return found
            points *= 2


def _path_integral(turned: Turned, points: int) -> Floats:
    """(U,) the integral of the gradient over weights from 0 to 1."""
    places, shares = (torch.from_numpy(x) / 2 for x in np.polynomial.legendre.leggauss(points))
    total = torch.zeros(turned.count, dtype=torch.float64)
    parts = (torch.split(x, turned.question.rows) for x in (places + 0.5, shares))
    for place, share in zip(*parts, strict=True):
        weights = place[:, None].repeat(1, turned.count).requires_grad_()
        (slope,) = torch.autograd.grad(turned(weights).sum(), weights)
        total += share @ slope
    found: Floats = total.numpy()
    return found


@dataclass(frozen=True)
class Deletion:
    """Log-odds while details are turned down one after the other.

    Attributes:
        share: (P,) of the details that are turned down, from 0 to 1.
        by_contribution: (P,), those that add most first.
        at_random: (P,), the mean over random orders.
    """

    share: Floats
    by_contribution: Floats
    at_random: Floats

    @property
    def area(self) -> float:
        """Between the curves; above 0 where the order tells more than chance."""
        return float(np.trapezoid(self.at_random - self.by_contribution, self.share))


def deletion_curve(
    turned: Turned, contributions: Floats, *, points: int = 20, orders: int = 10, seed: int = 0
) -> Deletion:
    """Turn details down, the largest contribution first, and in random orders.

    Args:
        contributions: (U,).
        points: into how many steps the curves are cut.
        orders: random ones, drawn from `seed`.
    """
    count = len(contributions)
    random = np.random.default_rng(seed)
    order = [np.argsort(-contributions, kind="stable")]
    order += [random.permutation(count) for _ in range(orders)]
    removed = np.unique(np.linspace(0, count, points + 1).round().astype(int))
    kept = np.argsort(np.stack(order), axis=1)[:, None] >= removed[:, None]  # (1 + orders, P, U)
    answers = turned.answers(torch.from_numpy(kept.reshape(-1, count)).double())
    first, *others = answers.reshape(len(order), -1).numpy()
    return Deletion(removed / count, first, np.mean(others, axis=0))
