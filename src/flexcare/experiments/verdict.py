"""The one function that judges: values of some seeds against a bound that was written before.

Arms are compared seed by seed and, where a measure is of patients, on the same drawn patients. The
interval adds both kinds of chance: that of the seeds (Student's t over the paired differences) and
that of the patients (bootstrap).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Verdict = Literal["supported", "refuted", "undecided at this size"]
SUPPORTED: Verdict = "supported"
REFUTED: Verdict = "refuted"
UNDECIDED: Verdict = "undecided at this size"
COVERAGE = 0.95


@dataclass(frozen=True)
class Value:
    """What one training gave: a number, and that of each drawing of the patients, if there are."""

    value: float
    drawn: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        drawn = [None if np.isnan(one) else round(one, 6) for one in self.drawn]
        return {"value": self.value, "drawn": drawn} if drawn else {"value": self.value}

    @staticmethod
    def of_json(found: dict[str, Any]) -> "Value":
        drawn = (np.nan if one is None else one for one in found.get("drawn", ()))
        return Value(found["value"], tuple(drawn))


@dataclass(frozen=True)
class Estimate:
    """The mean over seeds with its interval; None where there is no telling."""

    value: float | None
    low: float | None
    high: float | None
    seeds: tuple[float, ...] = ()
    patients: bool = False  # whether the interval has the chance of patients, too


def estimate(of: Sequence[Value | None], minus: Sequence[Value | None] | None = None) -> Estimate:
    """The mean over seeds, or that of the paired differences; seeds with both values count."""
    pairs = list(zip(of, minus, strict=True)) if minus is not None else [(one, None) for one in of]
    known = [(a, b) for a, b in pairs if a is not None and (minus is None or b is not None)]
    gaps = np.array([a.value - (b.value if b else 0.0) for a, b in known])
    if not len(gaps):
        return Estimate(None, None, None)
    middle, seeds = float(gaps.mean()), tuple(gaps.tolist())
    if len(gaps) == 1:
        return Estimate(middle, None, None, seeds)
    drawn = [np.array(a.drawn) - (np.array(b.drawn) if b else 0.0) for a, b in known]
    # Both variances are of the mean over seeds.
    of_patients = all(map(len, drawn))
    spread = gaps.var(ddof=1) / len(gaps) + (_of_patients(drawn) if of_patients else 0.0)
    half = float(stats.t.ppf((1 + COVERAGE) / 2, len(gaps) - 1) * np.sqrt(spread))
    return Estimate(middle, middle - half, middle + half, seeds, of_patients)


def _of_patients(drawn: list[NDArray[np.float64]]) -> float:
    """The variance that the drawing of patients gives the mean over seeds."""
    means = np.mean(drawn, axis=0)
    known = means[np.isfinite(means)]
    return float(known.var(ddof=1)) if len(known) > 1 else 0.0


def judge(
    found: Estimate,
    at_least: float | None = None,
    at_most: float | None = None,
    more_than: float | None = None,
) -> Verdict:
    """Supported where the whole interval keeps to the one bound, refuted where none of it does."""
    if found.low is None or found.high is None:
        return UNDECIDED
    if at_most is not None:
        keeps, breaks = found.high <= at_most, found.low > at_most
    elif at_least is not None:
        keeps, breaks = found.low >= at_least, found.high < at_least
    else:
        assert more_than is not None
        keeps, breaks = found.low > more_than, found.high <= more_than
    return SUPPORTED if keeps else REFUTED if breaks else UNDECIDED


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """Of several rules: one that is refuted refutes, and all have to be supported."""
    if REFUTED in verdicts:
        return REFUTED
    return UNDECIDED if UNDECIDED in verdicts else SUPPORTED
