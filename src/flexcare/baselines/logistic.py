"""Logistic regression (scikit-learn) on the same summaries as the trees."""

import warnings
from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from flexcare.baselines.fitted import Known, Model, fitted
from flexcare.baselines.majority import Answered, Floats
from flexcare.baselines.summaries import Floats as Numbers
from flexcare.config import LogisticConfig
from flexcare.store import Store

STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)  # scikit-learn's C
UNTUNED = 0.01  # where the tuning split cannot say
FAR = 10  # deviations to which numbers are cut
STEPS, FEWEST_STEPS, CLASS_STEPS = 300, 25, 4_000  # a step of a task costs its classes


def logistic(
    store: Store,
    tasks: Iterable[str],
    split: str,
    seed: int = 0,
    settings: LogisticConfig | None = None,
) -> Iterator[Answered]:
    """One regression an output, a multinomial one for all classes of a task (see `fitted`).

    The penalty of squares is the one given, or that of the lowest loss on the tuning split.
    """
    settings = settings or LogisticConfig()
    fit = partial(_regressed, given=settings.C)
    return fitted(fit, store, tasks, split, seed, settings)


class Standardised:
    """Numbers -> numbers around 0 without gaps, as training has it.

    A gap is the median of its column; beside the columns stand flags of gaps, one for all columns
    that have the same ones. A column that training never has is 0.
    """

    def __init__(self, numbers: Numbers) -> None:
        gaps = np.isnan(numbers)
        self.columns = np.flatnonzero(~gaps.all(0))
        patterns = {gaps[:, c].tobytes(): c for c in self.columns if gaps[:, c].any()}
        self.flags = np.array(sorted(patterns.values()), np.int64)
        self.medians = np.nanmedian(numbers[:, self.columns], axis=0)
        filled = self._filled(numbers)
        self.means, deviations = filled.mean(0), filled.std(0)
        self.deviations = np.where(deviations > 0, deviations, 1)

    def __call__(self, numbers: Numbers) -> Numbers:
        """(n, columns) -> (n, columns known + flags) float32."""
        scaled = (self._filled(numbers) - self.means) / self.deviations
        out: Numbers = np.clip(scaled, -FAR, FAR).astype(np.float32)
        return out

    def _filled(self, numbers: Numbers) -> Numbers:
        known = numbers[:, self.columns]
        known = np.where(np.isnan(known), self.medians, known)
        flags = np.isnan(numbers[:, self.flags]).astype(known.dtype)
        return np.concatenate([known, flags], axis=1)


def _regressed(
    train: Known, tuning: Known, classes: int, seed: int, given: float | None = None
) -> Model:
    """The regression of the best strength: from the smallest on, until the tuning loss rises.

    Args:
        given: a strength that is taken as it is.
    """
    standardised = Standardised(train.numbers)
    numbers, limits = standardised(train.numbers), standardised(tuning.numbers)
    weights = train.weights / train.weights.mean()
    steps = int(np.clip(CLASS_STEPS // classes, FEWEST_STEPS, STEPS))
    # Each goes on from the one before.
    model = LogisticRegression(max_iter=steps, warm_start=True)
    tunable = given is None and len(tuning.answers()) > 1
    lowest = np.inf
    for strength in STRENGTHS if tunable else (given or UNTUNED,):
        model.set_params(C=strength)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(numbers, train.labels[:, 0], sample_weight=weights)
        loss = _loss(model, limits, tuning) if tunable else 0.0
        if loss >= lowest:
            break
        lowest, best = loss, (model.coef_.copy(), model.intercept_.copy())
    model.coef_, model.intercept_ = best

    def answer(asked: Numbers) -> Floats:
        found = np.asarray(model.predict_proba(standardised(asked)), np.float64)
        return found[:, 1] if classes == 2 else found

    return answer


def _loss(model: LogisticRegression, numbers: Numbers, known: Known) -> float:
    """Mean logarithmic loss, each sample by its weight."""
    place = np.searchsorted(model.classes_, known.labels[:, 0])
    chance = model.predict_proba(numbers)[np.arange(len(place)), place]
    return float(np.average(-np.log(np.maximum(chance, 1e-12)), weights=known.weights))
