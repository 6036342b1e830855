"""Patients alike: what a modality did to their answers, done to another patient's.

Of n patients of whom the same is known, and who have one modality more, those are alike whom the
model answers most alike without it. What it did to their answers, in log-odds, may be expected.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import entr, expit, softmax

from flexcare.evaluation.bootstrap import interval, subject_copies
from flexcare.evaluation.metrics import Floats, Ints
from flexcare.schema import TaskInfo

ALIKE, FEWEST = 50, 20  # how many; with fewer than these nothing is said
GROUPS = 5  # of patients by expected change, in the table that checks it
RESAMPLES = 1000
SURE = 1e-6  # probabilities nearer to 0 or 1 count as this far from them
TOGETHER = 256  # patients compared at once


@dataclass(frozen=True)
class Told:
    """Answers, (n, outputs), to one sample of each of n subjects, without and with a modality."""

    subjects: Ints
    before: Floats
    after: Floats


def expected(info: TaskInfo, before: Floats, subjects: Ints, alike: Told) -> tuple[Floats, Floats]:
    """The expected change of n answers, and the uncertainty that is expected to be left: (n,)."""
    moved, left = np.empty((2, len(before)))
    for some, after in outcomes(info, before, subjects, alike):
        moved[some] = change(info, before[some, None], after).mean(1)
        left[some] = uncertainty(info, after).mean(1)
    return moved, left


def outcomes(
    info: TaskInfo, before: Floats, subjects: Ints, alike: Told
) -> Iterator[tuple[slice, Floats]]:
    """What answers may become: some of the n patients at a time, (some, alike, outputs).

    Alike are those with the nearest probabilities, in Hellinger's distance: 1 % and 2 % lie as far
    apart as 20 % and 24 %. A patient is not alike to itself.
    """
    count = min(ALIKE, len(alike.subjects) - 1)
    moved = log_odds(info, alike.after) - log_odds(info, alike.before)
    for first in range(0, len(before), TOGETHER):
        some = slice(first, first + TOGETHER)
        apart = cdist(_roots(info, before[some]), _roots(info, alike.before))
        apart[subjects[some, None] == alike.subjects] = np.inf
        near = np.argsort(apart, axis=1, kind="stable")[:, :count]
        odds = log_odds(info, before[some])[:, None] + moved[near]
        yield some, softmax(odds, axis=-1) if info.kind == "multiclass" else expit(odds)


def log_odds(info: TaskInfo, chance: Floats) -> Floats:
    """Of each output; of classes the logarithm, which is as good before a softmax."""
    chance = np.clip(chance, SURE, 1 - SURE)
    out: Floats = np.log(chance if info.kind == "multiclass" else chance / (1 - chance))
    return out


def _roots(info: TaskInfo, chance: Floats) -> Floats:
    every = chance if info.kind == "multiclass" else np.concatenate([chance, 1 - chance], axis=-1)
    return np.asarray(np.sqrt(np.clip(every, 0, 1)))


def change(info: TaskInfo, before: Floats, after: Floats) -> Floats:
    """How far probabilities (..., outputs) move: the mean over outputs; of classes, which share
    one, half the sum."""
    apart = np.abs(after - before)
    out: Floats = apart.sum(-1) / 2 if info.kind == "multiclass" else apart.mean(-1)
    return out


def uncertainty(info: TaskInfo, chance: Floats) -> Floats:
    """Entropy in bits of answers (..., outputs); the mean over outputs that are asked apart."""
    bits = entr(chance) / np.log(2)
    if info.kind == "multiclass":
        return np.asarray(bits.sum(-1))
    return np.asarray((bits + entr(1 - chance) / np.log(2)).mean(-1))


def spread(values: Floats) -> dict[str, Any]:
    known = values[np.isfinite(values)]
    if not len(known):
        return {"mean": None, "low": None, "high": None}
    low, high = np.percentile(known, (10, 90))
    return {"mean": rounded(known.mean()), "low": rounded(low), "high": rounded(high)}


def against(foretold: Floats, real: Floats) -> dict[str, Any]:
    """The means of what was expected and what came, over patients of whom both are known."""
    known = np.isfinite(foretold)
    foretold, gap = foretold[known], (real - foretold)[known]
    if not len(gap):
        return dict.fromkeys(("expected", "real", "difference", "low", "high"))
    copies = subject_copies(len(gap), RESAMPLES, np.random.default_rng(0))
    span = interval(copies @ gap / len(gap))
    means = {"expected": foretold.mean(), "real": real[known].mean(), "difference": gap.mean()}
    return {name: rounded(mean) for name, mean in means.items()} | {
        end: span[end] for end in ("low", "high")
    }


def groups(foretold: Floats, real: Floats) -> list[dict[str, Any]]:
    """The same of patients with little to much expected change."""
    order = np.argsort(foretold, kind="stable")[: np.isfinite(foretold).sum()]
    count = min(GROUPS, len(order) // FEWEST)
    parts = np.array_split(order, count) if count > 1 else []
    return [{"samples": len(part)} | against(foretold[part], real[part]) for part in parts]


def rounded(number: float) -> float:
    return round(float(number), 6)
