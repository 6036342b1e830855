"""Which ANSWER: one function per rule (SPEC 4). A task names its rule and gives the parameters."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flexcare.cohort.asks import Asks, Cohort, answer_names, last_before, parse_ask, rows_of
from flexcare.cohort.icd import ccs_categories
from flexcare.cohort.stays import Mask, column
from flexcare.errors import UserError, unknown
from flexcare.tasks import Task

DAY = np.timedelta64(24 * 3_600_000_000, "us")
HOUR = np.timedelta64(3_600_000_000, "us")


@dataclass(frozen=True)
class Labels:
    """Answers to n asks.

    Attributes:
        values: (n, k) float32: 0 or 1, or the number of the class (k = 1).
        known: (n, k) whether there is an answer.
        keep: (n,) False: the question does not apply.
        reason: why not.
        names: texts from which classes are made, if the task has not named them: (n,) or None.
    """

    values: NDArray[np.float32]
    known: Mask
    keep: Mask
    reason: str = ""
    names: NDArray[Any] | None = None

    def where(self, keep: Mask | slice) -> "Labels":
        """Only these answers."""
        if not isinstance(keep, slice) and keep.all():
            return self
        names = None if self.names is None else self.names[keep]
        return Labels(self.values[keep], self.known[keep], self.keep[keep], self.reason, names)


def _binary(values: Mask, keep: Mask | None = None, reason: str = "") -> Labels:
    everyone = np.ones(len(values), bool)
    return Labels(
        values.astype(np.float32)[:, None],
        everyone[:, None],
        everyone if keep is None else keep,
        reason,
    )


def _admission(asks: Asks, cohort: Cohort, name: str) -> NDArray[Any]:
    return column(cohort.admissions, name)[asks.admission]


def _stay(asks: Asks, cohort: Cohort, name: str) -> NDArray[Any]:
    return column(cohort.stays, name)[asks.stay]


def _dead(asks: Asks, cohort: Cohort) -> Mask:
    """(n,) who died in hospital, of a source that knows."""
    if len(cohort.admissions) and cohort.admissions["died"].null_count == len(cohort.admissions):
        raise UserError(
            "this source does not say who died in hospital",
            found="no admission with a known outcome",
            expected="a task that this source can answer",
            do="Choose others with --tasks.",
        )
    dead: Mask = _admission(asks, cohort, "dead")
    return dead


def death_in_hospital(asks: Asks, cohort: Cohort, task: Task) -> Labels:
    """Death before the admission's discharge, by the rule of the settings."""
    return _binary(_dead(asks, cohort))


def death_within(asks: Asks, cohort: Cohort, task: Task) -> Labels:
    """Death in hospital within `hours` of the prediction time."""
    death = _admission(asks, cohort, "deathtime")
    when = np.where(np.isnat(death), _admission(asks, cohort, "dischtime"), death)
    soon = (when - asks.time) / HOUR <= task.label["hours"]
    return _binary(_dead(asks, cohort) & soon)


def remaining_stay(asks: Asks, cohort: Cohort, task: Task) -> Labels:
    """Class of the remaining ICU stay; `day_edges` are where a class ends, in days, exclusive."""
    days = (_stay(asks, cohort, "los_hours") - asks.hours) / 24
    number = np.searchsorted(np.array(task.label["day_edges"]), days, side="right")
    everyone = np.ones(len(asks), bool)
    return Labels(number.astype(np.float32)[:, None], everyone[:, None], everyone)


def stay_longer(asks: Asks, cohort: Cohort, task: Task) -> Labels:
    """Whether the stay, from its start, lasts over `days` days."""
    return _binary(_stay(asks, cohort, "los_hours") > 24 * task.label["days"])


def return_or_death(asks: Asks, cohort: Cohort, task: Task) -> Labels:
    """Return to the ICU or death within `days` of leaving the hospital, or death on the ward.

    Those who died in the ICU cannot return and are left out.
    """
    limit = task.label["days"]
    discharge = _admission(asks, cohort, "dischtime")
    icu_death, dead = _stay(asks, cohort, "died_in_icu"), _dead(asks, cohort)
    pool = {"all": cohort.all_stays, "kept": cohort.stays}[cohort.settings.returns]
    following = _following_admission(asks, cohort, pool)
    returned = (following - discharge) / DAY < limit
    dod = _admission(asks, cohort, "death_date")
    left = discharge if cohort.settings.icu_death_date == "midnight" else discharge.astype("M8[D]")
    died_soon = ((dod - left) / DAY < limit) & ~icu_death
    return _binary(
        (dead & ~icu_death) | returned | died_soon, ~(icu_death & dead), "died in the ICU"
    )


def _following_admission(asks: Asks, cohort: Cohort, pool: pa.Table) -> NDArray[Any]:
    """admittime of each subject's next admission with an ICU stay in `pool`; NaT for none."""
    order = np.lexsort((column(pool, "admittime"), column(pool, "subject_id")))
    subjects, times = column(pool, "subject_id")[order], column(pool, "admittime")[order]
    # The last place of the own admission is passed over with the whole of it.
    place = last_before(subjects, times, asks.subject, _admission(asks, cohort, "admittime"))
    after = np.minimum(place + 1, len(order) - 1)
    there = (place + 1 < len(order)) & (subjects[after] == asks.subject)
    return np.where(there, times[after], np.datetime64("NaT"))


def ccs(asks: Asks, cohort: Cohort, task: Task) -> Labels:
    """Whether the admission has a diagnosis code of each CCS category of `categories`."""
    wanted = task.label["categories"]
    categories, counts = ccs_categories(
        cohort.diagnoses["code"].combine_chunks(), column(cohort.diagnoses, "version")
    )
    cohort.counts["diagnosis codes"] = counts
    row = rows_of(cohort.diagnoses["hadm_id"].combine_chunks(), cohort.admissions, "hadm_id")
    table = np.zeros((len(cohort.admissions), len(wanted)), np.float32)
    for place, category in enumerate(wanted):
        table[row[(categories == category) & (row >= 0)], place] = 1
    values = table[asks.admission]
    return Labels(values, np.ones_like(values, bool), np.ones(len(asks), bool))


def findings(asks: Asks, cohort: Cohort, task: Task) -> Labels:
    """What was read from the film's study; uncertain and blank are unknown."""
    unknown_names = set(task.classes) - set(cohort.finding_names)
    if unknown_names:
        raise unknown("finding", min(unknown_names), cohort.finding_names)
    places = [cohort.finding_names.index(name) for name in task.classes]
    rows = cohort.images["findings"].to_pylist()
    nothing = [None] * len(cohort.finding_names)
    values = np.array([rows[i] or nothing for i in asks.image], np.float32)
    values = values.reshape(len(asks), len(cohort.finding_names))[:, places]
    known: Mask = ~np.isnan(values)
    some = np.asarray(known.any(axis=1))
    return Labels(np.where(known, values, 0), known, some, "study without a usable label")


def drg(asks: Asks, cohort: Cohort, task: Task) -> Labels:
    """The DRG code that the admission was billed with."""
    place = rows_of(column(cohort.admissions, "hadm_id")[asks.admission], cohort.drgs, "hadm_id")
    there = place >= 0
    codes = np.array([*cohort.drgs["code"].to_pylist(), None], object)
    names = codes[np.where(there, place, -1)]
    return Labels(
        np.zeros((len(asks), 1), np.float32),
        there[:, None],
        there,
        "admission without a DRG",
        names,
    )


def meds_labels(asks: Asks, cohort: Cohort, task: Task) -> Labels:
    """The labels of a MEDS label file."""
    table = pq.read_table(Path(task.label["file"]), columns=[task.label["column"]])
    values = column(table, task.label["column"])[asks.key]
    there = np.array([value is not None and value == value for value in values], bool)
    keep, reason = there, "label file has no value"
    if task.kind == "binary":
        numbers = np.where(there, values, False).astype(np.float32)[:, None]
        return Labels(numbers, there[:, None], keep, reason)
    names = np.array([str(v) if ok else None for v, ok in zip(values, there, strict=True)], object)
    return Labels(np.zeros((len(asks), 1), np.float32), there[:, None], keep, reason, names)


def answer(asks: Asks, cohort: Cohort, task: Task) -> Labels:
    """What the source says itself: the answer `name`, or one a label of `names`.

    Of the hour asked about with ask = "answers", else of the whole stay. With `edges`, the class
    of a number: how many edges it has reached.
    """
    names = answer_names(task)
    if not names:
        raise KeyError("name")
    values = np.stack([_answers(asks, cohort, task, name) for name in names], axis=1)
    known: Mask = ~np.isnan(values)
    if edges := task.label.get("edges"):
        values = np.searchsorted(np.array(edges, np.float64), values, side="right").astype(float)
    classes = len(task.classes) if task.kind == "multiclass" else 2
    wrong = ~np.isin(values[known], np.arange(classes))
    if wrong.any():
        raise UserError(
            f"task {task.name}: answers that are no class",
            found=f"{wrong.sum()} of {known.sum()}",
            expected=f"0 to {classes - 1}",
            do="Mend the answers; `edges` in [label] makes classes of those that are numbers.",
        )
    there = np.where(known, values, 0).astype(np.float32)
    return Labels(there, known, np.asarray(known.any(axis=1)), "answer unknown")


def _answers(asks: Asks, cohort: Cohort, task: Task, name: str) -> NDArray[np.float64]:
    """(n,) the answer of this name to each ask; NaN where there is none."""
    table = cohort.answers.filter(pc.equal(cohort.answers["name"], name))
    asked = parse_ask(task.ask)[0] == "answers"
    table = table.filter((pc.is_valid if asked else pc.is_null)(table["hours"]))
    keys, wanted = column(table, "stay_id"), _stay(asks, cohort, "stay_id")
    hours, at = (column(table, "hours"), asks.hours) if asked else (keys * 0.0, wanted * 0.0)
    order = np.lexsort((hours, keys))
    keys, hours = keys[order], hours[order]
    if ((np.diff(keys) == 0) & (np.diff(hours) == 0)).any():
        raise UserError(f"answers {name} are given twice", expected="one a stay and hour")
    # Numbers of the pairs (stay, hour), equal where the pairs are.
    moments, of = np.unique(np.concatenate([hours, at]), return_inverse=True)
    _, who = np.unique(np.concatenate([keys, wanted]), return_inverse=True)
    number = who * len(moments) + of
    place = np.searchsorted(number[: len(keys)], number[len(keys) :])
    there = np.append(number[: len(keys)], -1)[place] == number[len(keys) :]
    values = np.append(column(table, "value").astype(np.float64)[order], np.nan)
    return np.where(there, values[place], np.nan)


RULES: dict[str, Callable[[Asks, Cohort, Task], Labels]] = {
    rule.__name__: rule
    for rule in (
        death_in_hospital,
        death_within,
        remaining_stay,
        return_or_death,
        ccs,
        findings,
        drg,
        meds_labels,
        answer,
        stay_longer,
    )
}
# What a question must be about for a rule to answer it.
NEEDS = {
    "death_in_hospital": ("admission",),
    "death_within": ("admission",),
    "remaining_stay": ("stay",),
    "return_or_death": ("stay", "admission"),
    "ccs": ("admission",),
    "findings": ("image",),
    "drg": ("admission",),
    "answer": ("stay",),
    "stay_longer": ("stay",),
}


def labels_of(task: Task, asks: Asks, cohort: Cohort) -> tuple[Asks, Labels]:
    """The asks that the task's rule can answer, and the answers.

    Raises:
        UserError: unknown rule, or a missing parameter of the rule.
    """
    name = task.label.get("rule", "")
    if name not in RULES:
        raise unknown("label rule", str(name), RULES, f"See [label] of task {task.name}.")
    for need in NEEDS.get(name, ()):
        there = getattr(asks, need) >= 0
        if not there.all():
            cohort.flow.step(f"{task.name} samples", there, f"in no known {need}")
            asks = asks.where(there)
    try:
        labels = RULES[name](asks, cohort, task)
    except KeyError as error:
        raise UserError(
            f"task {task.name}: its label rule lacks a parameter",
            found=f"rule {name} without {error}",
            expected="all parameters of the rule (cohort/labels.py)",
        ) from None
    if labels.reason:
        cohort.flow.step(f"{task.name} samples", labels.keep, labels.reason)
    return asks.where(labels.keep), labels.where(labels.keep)
