"""WHEN a question is asked, and of whom: one row a sample, before its answer is looked up."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flexcare.cohort.splits import split_of
from flexcare.cohort.stays import Flow, Mask, age_at, column
from flexcare.config import Preparation
from flexcare.errors import UserError, unknown
from flexcare.features.variables import SERIES
from flexcare.files import unit_hash
from flexcare.sources.tables import ANSWERS, tidy
from flexcare.tasks import Task

HOUR = np.timedelta64(3_600_000_000, "us")
NOBODY = -1


@dataclass
class Cohort:
    """The left half's tables, as the rules need them.

    Attributes:
        stays: kept stays; all_stays: every stay of the source, with its admission's times.
        first_seen: (kept stays, modalities) hours until something of each modality of events
            could be seen; NaN: never.
        kinds: by modality of events its kind, in the order of `first_seen`.
        answers: what the source says itself; held_out: whom it sets apart, if it does.
    """

    subjects: pa.Table
    stays: pa.Table
    all_stays: pa.Table
    admissions: pa.Table
    images: pa.Table
    diagnoses: pa.Table
    drgs: pa.Table
    finding_names: tuple[str, ...]
    first_seen: NDArray[np.float64]
    kinds: dict[str, str]
    settings: Preparation
    flow: Flow
    counts: dict[str, Any] = field(default_factory=dict)
    answers: pa.Table = field(default_factory=lambda: tidy(ANSWERS))
    held_out: frozenset[int] | None = None

    def split(self, subjects: NDArray[np.int64]) -> NDArray[np.int8]:
        """The split of each of these subjects."""
        by = self.settings
        return split_of(subjects, by.seed, by.folds, by.fold, self.held_out, by.tuning)

    @cached_property
    def first_observed(self) -> NDArray[np.float64]:
        """(kept stays,) hours until the first observation: of a series where the source has one,
        else of any modality of events; NaN: never."""
        series = [kind == SERIES for kind in self.kinds.values()]
        chosen = self.first_seen[:, series] if any(series) else self.first_seen
        first: NDArray[np.float64] = np.fmin.reduce(chosen, axis=1, initial=np.nan)
        return first


@dataclass(frozen=True)
class Asks:
    """When and of whom one task is asked.

    Attributes:
        key: (n,) number of the stay, admission, study or row that is asked about; with the hour,
            where one is asked every hour, unique within the task.
        subject: (n,) subject_id.
        time: (n,) prediction time, datetime64[us].
        stay, admission, image: (n,) row of the cohort's table, -1 for none.
        hours: (n,) from ICU admission to the prediction time; NaN without a stay.
        since: (n,) films from then on belong to the question; NaT: none do.
    """

    key: NDArray[np.int64]
    subject: NDArray[np.int64]
    time: NDArray[Any]
    stay: NDArray[np.int64]
    admission: NDArray[np.int64]
    image: NDArray[np.int64]
    hours: NDArray[np.float64]
    since: NDArray[Any]

    def __len__(self) -> int:
        return len(self.key)

    def where(self, keep: Mask | slice) -> "Asks":
        """Only these rows."""
        if not isinstance(keep, slice) and keep.all():
            return self
        return replace(self, **{name: getattr(self, name)[keep] for name in self.__dict__})


def rows_of(keys: NDArray[Any] | pa.Array, table: pa.Table, name: str) -> NDArray[np.int64]:
    """The row of `table` whose column `name` has each key; -1 where none has."""
    found = pc.index_in(pa.array(keys), value_set=table[name].combine_chunks())
    out: NDArray[np.int64] = pc.fill_null(found, NOBODY).to_numpy(zero_copy_only=False)
    return out.astype(np.int64)


def row_or_none(values: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """values[rows], with NaN or NaT where a row is -1."""
    nothing = np.datetime64("NaT") if values.dtype.kind == "M" else np.nan
    return np.append(values, nothing)[rows]


def _of_stays(cohort: Cohort, stay: NDArray[np.int64], hours: NDArray[np.float64]) -> Asks:
    """Asks of kept stays at these hours."""
    stays = cohort.stays
    key, subject, intime = (column(stays, n)[stay] for n in ("stay_id", "subject_id", "intime"))
    time = intime + np.round(hours * HOUR.astype(np.int64)).astype("m8[us]")
    admission = rows_of(stays["hadm_id"].combine_chunks(), cohort.admissions, "hadm_id")[stay]
    nobody = np.full(len(stay), NOBODY)
    return Asks(key, subject, time, stay, admission, nobody, hours, intime)


def after_admission(cohort: Cohort, task: Task, hours: float) -> Asks:
    """Once a stay, this long after ICU admission, where the stay lasts that long."""
    lasts = np.flatnonzero(column(cohort.stays, "los_hours") >= hours)
    return _of_stays(cohort, lasts, np.full(len(lasts), float(hours)))


def every_hour(cohort: Cohort, task: Task, hours: float) -> Asks:
    """At every whole hour over `hours`, from the first observation on, until the stay or life ends.

    With the setting hours = "one", one of them a stay, chosen by a hash of seed, task and stay.
    """
    los = column(cohort.stays, "los_hours")
    intime, death = column(cohort.stays, "intime"), column(cohort.stays, "deathtime")
    lived = np.where(np.isnat(death), np.inf, (death - intime) / HOUR)
    after_death = cohort.settings.stay_after_death and task.label.get("rule") == "remaining_stay"
    end = los if after_death else np.minimum(los, lived)
    first = np.maximum(np.floor(hours) + 1, np.ceil(cohort.first_observed))
    count = np.nan_to_num(np.floor(end) - first + 1, nan=0).clip(0).astype(np.int64)
    stay = np.repeat(np.arange(len(los)), count)
    offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    asked = first[stay] + offset
    return _hours(cohort, task, stay, asked)


def where_answered(cohort: Cohort, task: Task, hours: float) -> Asks:
    """At the hours at which the source answers the task; one of them with hours = "one"."""
    named = pc.is_in(cohort.answers["name"], value_set=pa.array(answer_names(task)))
    table = cohort.answers.filter(pc.and_(named, pc.is_valid(cohort.answers["hours"])))
    stay, asked = rows_of(column(table, "stay_id"), cohort.stays, "stay_id"), column(table, "hours")
    of_kept = stay >= 0
    stay, asked = stay[of_kept], asked[of_kept]
    order = np.lexsort((asked, stay))
    stay, asked = stay[order], asked[order]
    new = np.append(True, (np.diff(stay) > 0) | (np.diff(asked) > 0))[: len(stay)]
    return _hours(cohort, task, stay[new], asked[new])


def answer_names(task: Task) -> list[str]:
    """The answers that a task with rule `answer` is about: its `names`, or its `name`."""
    if "names" in task.label:
        return list(task.label["names"])
    return [task.label["name"]] if "name" in task.label else []


def _hours(cohort: Cohort, task: Task, stay: NDArray[np.int64], asked: NDArray[np.float64]) -> Asks:
    """Asks at many hours of each stay, which come sorted; by the settings, at one of them."""
    if cohort.settings.hours == "one":
        chosen, first, count = np.unique(stay, return_index=True, return_counts=True)
        ids = column(cohort.stays, "stay_id")[chosen]
        drawn = [
            int(unit_hash("hour", cohort.settings.seed, task.name, int(stay_id)) * size)
            for stay_id, size in zip(ids, count, strict=True)
        ]
        row = first + np.array(drawn, np.int64)
        stay, asked = stay[row], asked[row]
    return _of_stays(cohort, stay, asked)


def at_icu_discharge(cohort: Cohort, task: Task, hours: float) -> Asks:
    """Once a stay, when it ends."""
    return _of_stays(cohort, np.arange(len(cohort.stays)), column(cohort.stays, "los_hours"))


def at_hospital_discharge(cohort: Cohort, task: Task, hours: float) -> Asks:
    """Once an admission, with or without a kept stay (its last, if it has several)."""
    admissions = cohort.admissions
    time = column(admissions, "dischtime")
    stays = cohort.stays.append_column("row", pa.array(np.arange(len(cohort.stays))))
    last = (
        stays.sort_by("intime").group_by("hadm_id", use_threads=False).aggregate([("row", "last")])
    )
    place = rows_of(admissions["hadm_id"].combine_chunks(), last, "hadm_id")
    stay = np.where(place >= 0, column(last, "row_last")[place] if len(last) else NOBODY, NOBODY)
    intime = row_or_none(column(cohort.stays, "intime"), stay)
    asks = Asks(
        column(admissions, "hadm_id"),
        column(admissions, "subject_id"),
        time,
        stay,
        np.arange(len(admissions)),
        np.full(len(admissions), NOBODY),
        np.where(stay >= 0, (time - intime) / HOUR, np.nan),
        column(admissions, "admittime"),
    )
    return asks.where(~np.isnat(time))


def at_film(cohort: Cohort, task: Task, hours: float) -> Asks:
    """Once a study with an AP film, at the time of its last one."""
    images = cohort.images
    if not len(images):
        nothing = np.zeros(0, np.int64)
        return Asks(
            nothing, nothing, nothing.astype("M8[us]"), nothing, nothing, nothing,
            nothing.astype(np.float64), nothing.astype("M8[us]"),
        )  # fmt: skip
    study = column(images, "study_id")
    # images are sorted by subject, time and id: the last of a study is its latest film
    _, from_end = np.unique(study[::-1], return_index=True)
    image = np.sort(len(study) - 1 - from_end)
    subject, time = column(images, "subject_id")[image], column(images, "time")[image]
    return _at(cohort, subject, time, image, study[image])


def _at(
    cohort: Cohort,
    subject: NDArray[np.int64],
    time: NDArray[Any],
    image: NDArray[np.int64],
    key: NDArray[np.int64],
) -> Asks:
    """Asks at given times: of the kept stay and the admission in which each time lies."""
    stay = _containing(cohort.stays, "intime", "outtime", subject, time)
    admission = _containing(cohort.admissions, "admittime", "dischtime", subject, time)
    intime = row_or_none(column(cohort.stays, "intime"), stay)
    hours = np.where(stay >= 0, (time - intime) / HOUR, np.nan)
    since = np.where(
        stay >= 0, intime, row_or_none(column(cohort.admissions, "admittime"), admission)
    )
    return Asks(key, subject, time, stay, admission, image, hours, since)


def _containing(
    table: pa.Table, start: str, stop: str, subject: NDArray[np.int64], time: NDArray[Any]
) -> NDArray[np.int64]:
    """The row of `table`, of the same subject, with start <= time <= stop (the latest start)."""
    order = np.lexsort((column(table, start), column(table, "subject_id")))
    groups, starts = column(table, "subject_id")[order], column(table, start)[order]
    stops = column(table, stop)[order]
    place = last_before(groups, starts, subject, time)
    inside = (place >= 0) & (time <= stops[place])
    return np.where(inside, order[place], NOBODY)


def last_before(
    groups: NDArray[np.int64],
    times: NDArray[Any],
    asked_groups: NDArray[np.int64],
    asked_times: NDArray[Any],
) -> NDArray[np.int64]:
    """The last place of (groups, times), sorted by both, of the same group and not later; or -1."""
    if not len(groups):
        return np.full(len(asked_groups), NOBODY)
    moments = np.unique(times)
    names = np.unique(groups)
    size = len(moments) + 1
    keys = np.searchsorted(names, groups) * size + np.searchsorted(moments, times, "right")
    at = np.searchsorted(names, asked_groups)
    asked = at * size + np.searchsorted(moments, asked_times, "right")
    place = np.searchsorted(keys, asked, "right") - 1
    same = (place >= 0) & (groups[place] == asked_groups)
    return np.where(same, place, NOBODY)


def of_labels(cohort: Cohort, task: Task, hours: float) -> Asks:
    """Where a MEDS label file asks; the row of the file is the key."""
    import pyarrow.parquet as pq

    path = Path(task.label["file"])
    table = pq.read_table(path, columns=["subject_id", "prediction_time"])
    kind = table.schema.field("prediction_time").type
    if not pa.types.is_timestamp(kind) or kind.tz is not None:
        raise UserError(
            f"{path.name}: prediction_time is not a naive timestamp",
            found=str(kind),
            expected="timestamp[us] without a zone (MEDS)",
            do="Convert it to the hospital's local time first.",
        )
    subjects = cohort.subjects["subject_id"].combine_chunks()
    known = pc.and_(
        pc.is_in(table["subject_id"], value_set=subjects), pc.is_valid(table["prediction_time"])
    ).to_numpy(zero_copy_only=False)
    reason = "without a time, or of a subject the source does not know"
    cohort.flow.step(f"{task.name} samples", known, reason)
    row = np.flatnonzero(known)
    table = table.take(pa.array(row))
    time = column(table, "prediction_time").astype("M8[us]")
    nobody = np.full(len(table), NOBODY)
    return _at(cohort, column(table, "subject_id"), time, nobody, row)


_AT = re.compile(r"^(icu_admission \+|every hour after) (\d+(?:\.\d+)?)h$")
ASKS: dict[str, Callable[[Cohort, Task, float], Asks]] = {
    "icu_admission +": after_admission,
    "every hour after": every_hour,
    "icu_discharge": at_icu_discharge,
    "hospital_discharge": at_hospital_discharge,
    "film": at_film,
    "labels": of_labels,
    "answers": where_answered,
}
HOURLY = ("every hour after", "answers")


def parse_ask(ask: str) -> tuple[str, float]:
    """The name in ASKS and the hours of a task's `ask`."""
    found = _AT.match(ask)
    name, hours = (found.group(1), float(found.group(2))) if found else (ask, 0.0)
    if name not in ASKS or (name.endswith(("+", "after")) and not found):
        raise unknown("time to ask", ask, ["icu_admission + 48h", "every hour after 4h", *ASKS])
    return name, hours


def asks_of(task: Task, cohort: Cohort) -> Asks:
    """Everybody who is asked this task, with what leaves others out in the cohort's flow."""
    name, hours = parse_ask(task.ask)
    asks = ASKS[name](cohort, task, hours)
    unit = f"{task.name} samples"
    cohort.flow.start(unit, len(asks), f"asked: {task.ask}")
    if task.observed:
        seen = row_or_none(cohort.first_observed, asks.stay) <= asks.hours
        cohort.flow.step(unit, seen, "nothing observed before the question")
        asks = asks.where(seen)
    if task.adults and not cohort.settings.films_of_minors:
        row = rows_of(asks.subject, cohort.subjects, "subject_id")
        anchor = [column(cohort.subjects, n)[row] for n in ("anchor_age", "anchor_year")]
        adult = (
            age_at(asks.time, anchor[0], anchor[1], cohort.settings.age) >= cohort.settings.min_age
        )
        adult &= row >= 0
        cohort.flow.step(unit, adult, "minors, or of a subject the source does not know")
        asks = asks.where(adult)
    return asks
