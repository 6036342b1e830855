"""The planted truth as a file: what each answer needs, and the best a reader could reach."""

from typing import Any

import numpy as np
import numpy.typing as npt

from flexcare.sources.synthetic import rules

Floats = npt.NDArray[np.float64]
MODALITIES = ("series", "film", "note")
TOLD = {
    "s": "glucose and temperature",
    "f": "which diagonal the streaks of an opacity in either lung follow",
    "t": "the words of discharge summaries, in past medical history and brief hospital course",
    "c": "blood pressure; streaks of the film's midline, level or upright; words in every note",
    "u": "heart rate, breathing, oxygen, coma scale; hints: triage complaint, a film exists",
}


def truth(seed: int, subjects: int) -> dict[str, Any]:
    """Everything a test needs to say that a model's reading is right (JSON values).

    `needs` says for each modality: unique (nothing else tells this factor), redundant (others
    tell it too), synergistic (useless alone, needed together) or noise. `best_auroc` is for
    a reader who knows all factors exactly, with every modality present; null where it was not
    computed.
    """
    tasks = _tasks()
    return {
        "invented": True,
        "seed": seed,
        "subjects": subjects,
        "factors": {
            name: {"seen_in": list(seen), "told_by": TOLD[name]}
            for name, seen in rules.SEEN_IN.items()
        },
        "tasks": tasks,
        "teaches": {name: _teachers(tasks, name) for name in rules.SEEN_IN},
        "conflicts": [],
    }


def needs(factors: tuple[str, ...], together: bool = False) -> dict[str, str]:
    """How each modality matters to an answer made of `factors` (`together`: by exclusive or)."""
    found = dict.fromkeys(MODALITIES, "noise")
    for name in sorted(factors, key=lambda name: -len(rules.SEEN_IN[name])):  # shared ones first
        seen = rules.SEEN_IN[name]
        for modality in seen:
            alone = "synergistic" if together else "unique"
            found[modality] = alone if len(seen) == 1 else "redundant"
    return found


def _label(rule: rules.Rule) -> dict[str, Any]:
    together = len(rule.factors) > 1
    return {
        "factors": list(rule.factors),
        "rule": ("not " if rule.reverse else "") + (" xor ".join(rule.factors) or "random"),
        "noise": rule.noise,
        "needs": needs(rule.factors, together),
        "best_auroc": round(rule.best_auroc, 4),
    }


def _task(factors: str, rule: str, best: float | None, **more: Any) -> dict[str, Any]:
    """A task that mixes factors without exclusive or."""
    return {
        "factors": list(factors),
        "rule": rule,
        "needs": needs(tuple(factors)),
        "best_auroc": None if best is None else round(best, 4),
        **more,
    }


def _tasks() -> dict[str, dict[str, Any]]:
    return {
        "in_hospital_mortality": _task(
            "uc", "logistic in u and c", best_auroc_mortality(), ignores="decline before a death"
        ),
        "decompensation": _task("uc", "worsening in the 24 h before an ICU death", None),
        "length_of_stay": _task("u", "log of the hours grows with u", None),
        "phenotyping": {"labels": {n: _label(r) for n, r in rules.PHENOTYPES.items()}},
        "readmission": _readmission(),
        "diagnosis": {
            "labels": {n: _label(r) for n, r in rules.FINDINGS.items()},
            "uncertain": rules.UNCERTAIN,
            "blank": rules.BLANK,
        },
        "drg": _task(
            "tc",
            "by t, c and a coin told in the same admission's brief hospital course",
            None,
            best_accuracy=round(1 - rules.DRG_RARE_SHARE - rules.DRG_NOISE * 7 / 8, 4),
            coin="words of the brief hospital course",
        ),
    }


def _readmission() -> dict[str, Any]:
    return {
        **_label(rules.RETURN),
        "best_auroc": round(best_auroc_readmission(), 4),
        "presets": {
            "corrected": "every return counts, since all ICU stays are looked up",
            "paper": "about 15 % of the returns count: the others change their care unit, so their "
            "stay is not kept; the rest of f xor t is labelled no",
            "both": "deaths on the ward and within 30 days of discharge count too (u and c); kept "
            "return stays are samples of their own, labelled no, and have no film",
        },
    }


def _teachers(tasks: dict[str, dict[str, Any]], factor: str) -> list[str]:
    """Tasks, or task/label, that this factor decides without needing another one."""
    found = []
    for name, task in tasks.items():
        for label, value in task.get("labels", {"": task}).items():
            alone = "synergistic" not in value["needs"].values()
            if factor in value["factors"] and alone:
                found.append(f"{name}/{label}" if label else name)
    return found


def _population() -> tuple[Floats, Floats, Floats]:
    """Severity and c on a grid, with the share of subjects at each point."""
    severity, c = np.meshgrid(np.linspace(-5, 5, 501), np.array([0.0, 1.0]))
    share = np.exp(-(severity**2) / 2)
    return severity.ravel(), c.ravel(), (share / share.sum()).ravel()


def _death(severity: Floats, c: Floats) -> Floats:
    pairs = zip(severity, c, strict=True)
    return np.array([rules.death_probability(float(u), float(v)) for u, v in pairs])


def best_auroc_mortality() -> float:
    """AUROC of the true probability of death among stays of at least 48 h."""
    severity, c, share = _population()
    usual = np.log(rules.LOS_MEDIAN) + rules.LOS_U * severity
    stays = _normal_tail((np.log(48) - usual) / rules.LOS_SD)
    return auroc_of(_death(severity, c), share * stays)


def best_auroc_readmission() -> float:
    """AUROC of the true probability among index stays that did not end in an ICU death."""
    severity, c, share = _population()
    death = _death(severity, c)
    ward, icu = death * rules.WARD_SHARE, death * (1 - rules.WARD_SHARE)
    chances, shares = [], []
    for back in (rules.RETURN.noise, 1 - rules.RETURN.noise):
        home = back + (1 - back) * rules.LATE_DEATH
        chances.append((ward + (1 - death) * home) / (1 - icu))
        shares.append(share * (1 - icu) / 2)
    return auroc_of(np.concatenate(chances), np.concatenate(shares))


def auroc_of(chance: Floats, share: Floats) -> float:
    """AUROC of knowing the `chance` of a yes, in a population with `share` (n,) at each chance."""
    order = np.argsort(chance)
    yes, no = (share * chance)[order], (share * (1 - chance))[order]
    below = np.cumsum(no) - no / 2
    return float((yes * below).sum() / (yes.sum() * no.sum()))


def _normal_tail(value: Floats) -> Floats:
    """Probability that a standard normal lies above `value`, by summing its density."""
    grid = np.linspace(-8, 8, 4001)
    density = np.exp(-(grid**2) / 2)
    total = np.cumsum(density) / density.sum()
    return np.asarray(1 - np.interp(value, grid, total))
