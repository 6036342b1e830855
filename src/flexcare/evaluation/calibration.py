"""Probabilities that mean what they say: fitted on the tuning split, applied to the judged one.

Which map a task gets is decided by sizes alone, before any result is seen. A temperature divides
the logits of a whole task; an isotonic map is any rising curve, of one yes-or-no output. What
counts is how many tuning subjects have the rarer outcome (of classes: the likeliest was right, or
wrong): below FEWEST there is no map; an output with ISOTONIC or more has an isotonic one; all
others have the temperature.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax
from sklearn.isotonic import IsotonicRegression

from flexcare.evaluation.bootstrap import CALIBRATION, Copies, resample
from flexcare.evaluation.breakdown import GROUP_RESAMPLES, value_of
from flexcare.evaluation.curves import reliability
from flexcare.evaluation.metrics import Answers, Floats, calibrated_pairs, column, pooled, rarer
from flexcare.schema import Kind, TaskInfo

FEWEST, ISOTONIC = 10, 200  # subjects with the rarer outcome
HOTTEST = 20.0  # temperatures lie between 1 / HOTTEST and HOTTEST
CALIBRATED = ("brier", "calibration_error")
# Stand for 0 where a logarithm is taken: a little less than what single precision can hold above
# 0, and than the nearest it comes to 1, so that the order of probabilities is kept.
ZERO, REST = 2.0**-150, 2.0**-25


@dataclass(frozen=True)
class Map:
    """From a task's probabilities to better ones.

    Attributes:
        temperature: None where no output needs it.
        isotonic: by output: probabilities, rising, and what becomes of them; in between, linear.
        reason: why there is no map; "" if there is one.
    """

    temperature: float | None
    isotonic: dict[int, tuple[Floats, Floats]]
    reason: str = ""

    def apply(self, kind: Kind, probabilities: Floats) -> Floats:
        """(N, outputs) of the raw ones."""
        out = probabilities.copy()
        if self.temperature is not None and kind == "multiclass":
            out = softmax(_log(probabilities) / self.temperature, axis=1)
        elif self.temperature is not None:
            out = expit(_logits(probabilities) / self.temperature)
        for output, (raw, better) in self.isotonic.items():
            out[:, output] = np.interp(probabilities[:, output], raw, better)
        return out


def fit(kind: Kind, tuning: Answers) -> Map:
    """The map of one task, from predictions of the tuning split and nothing else."""
    subjects = rarer(calibrated_pairs(kind, tuning))
    if subjects < FEWEST:
        return Map(None, {}, f"fewer than {FEWEST} tuning subjects have the rarer outcome")
    outputs = range(0 if kind == "multiclass" else tuning.mask.shape[1])
    columns = {output: column(tuning, output) for output in outputs}
    isotonic = {
        output: _rising(pairs.probability, pairs.outcome)
        for output, pairs in columns.items()
        if rarer(pairs) >= ISOTONIC
    }
    needed = kind == "multiclass" or len(isotonic) < len(columns)
    return Map(_temperature(kind, tuning) if needed else None, isotonic)


def calibrated(info: TaskInfo, tuning: Answers, answers: Answers, copies: Copies) -> dict[str, Any]:
    """How the judged answers fare after the map of the tuning split.

    Returns:
        temperature, names of the outputs with an isotonic map, reason (why there is no map),
        `metrics` (Brier score and calibration error) and `calibration`, the groups of the picture.
    """
    found = fit(info.kind, tuning)
    out: dict[str, Any] = {
        "temperature": None if found.temperature is None else round(found.temperature, 6),
        "isotonic": [info.classes[output] for output in found.isotonic],
        "reason": found.reason,
        "metrics": {},
        "calibration": [],
    }
    if found.reason:
        return out
    better = replace(answers, probabilities=found.apply(info.kind, answers.probabilities))
    drawn = resample(info.kind, better, copies, [CALIBRATION[info.kind]])
    out["metrics"] = {name: value_of(name, info.kind, better, drawn[name]) for name in CALIBRATED}
    out["calibration"] = reliability(info.kind, better, copies[:GROUP_RESAMPLES])
    return out


def _rising(probability: Floats, outcome: Floats) -> tuple[Floats, Floats]:
    """The rising steps with the least squared error."""
    found = IsotonicRegression(y_min=0, y_max=1).fit(probability, outcome)
    return found.X_thresholds_, found.y_thresholds_


def _temperature(kind: Kind, tuning: Answers) -> float:
    """That of the lowest log loss, sought as its inverse, in which the loss is convex."""
    loss = (_loss_of_classes if kind == "multiclass" else _loss_of_outputs)(tuning)
    bounds = (1 / HOTTEST, HOTTEST)
    return float(1 / minimize_scalar(loss, bounds=bounds, method="bounded").x)


def _loss_of_classes(answers: Answers) -> Callable[[float], float]:
    logits, true = _log(answers.probabilities), answers.labels.astype(np.int64)

    def loss(inverse: float) -> float:
        logs = log_softmax(logits * inverse, axis=1)
        return float(-np.take_along_axis(logs, true, axis=1).mean())

    return loss


def _loss_of_outputs(answers: Answers) -> Callable[[float], float]:
    pairs = pooled(answers)
    away = _logits(pairs.probability) * (1 - 2 * pairs.outcome)  # from the truth
    return lambda inverse: float(np.logaddexp(0, inverse * away).mean())


def _log(probabilities: Floats) -> Floats:
    out: Floats = np.log(np.maximum(probabilities, ZERO))
    return out


def _logits(probabilities: Floats) -> Floats:
    out: Floats = _log(probabilities) - np.log(np.maximum(1 - probabilities, REST))
    return out
