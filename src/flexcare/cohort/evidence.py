"""Which film, which texts and which part of the series a sample may use: nothing from later on."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flexcare.cohort.asks import Asks, Cohort, last_before, row_or_none
from flexcare.cohort.stays import column
from flexcare.features.notes import note_rules
from flexcare.tasks import Task

MAX_TEXTS = 8  # texts of one sample; the model reads the first 512 pieces of them all
NEAR_FILM = np.timedelta64(2, "h")  # reports charted this near a film may be the film's own
FILM_HOURS = 4  # a film this soon after admission has no series (SPEC 4)

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Evidence:
    """What n samples may use.

    Attributes:
        stay: (n,) row of the stay whose events count, -1 for none.
        until: (n,) hours up to which they count.
        image: (n,) row of the cohort's images, -1 for none.
        texts: n lists of rows of the texts table, the first is read first.
    """

    stay: Rows
    until: NDArray[np.float64]
    image: Rows
    texts: pa.ListArray

    def where(self, keep: NDArray[np.bool_]) -> "Evidence":
        """Only these samples."""
        return Evidence(
            self.stay[keep], self.until[keep], self.image[keep], self.texts.filter(pa.array(keep))
        )


def evidence_of(task: Task, asks: Asks, cohort: Cohort, texts: pa.Table) -> Evidence:
    """What the samples of a task may use."""
    stay, until = _series(asks, cohort)
    return Evidence(stay, until, _film(asks, cohort), _texts(task, asks, cohort, texts))


def _series(asks: Asks, cohort: Cohort) -> tuple[Rows, NDArray[np.float64]]:
    """The stay up to the prediction time or its end; nobody's before the first observation."""
    end = row_or_none(column(cohort.stays, "los_hours"), asks.stay)
    until = np.fmin(asks.hours, end)
    seen = (row_or_none(cohort.first_seen, asks.stay) <= until) & (until > 0)
    early = (asks.image >= 0) & (asks.hours <= FILM_HOURS)
    return np.where(seen & ~early, asks.stay, -1), np.where(seen & ~early, until, 0.0)


def _film(asks: Asks, cohort: Cohort) -> Rows:
    """The film asked about; else the last AP film up to the prediction time."""
    images = cohort.images
    if not len(images):
        return np.full(len(asks), -1)
    times = column(images, "time")
    place = last_before(column(images, "subject_id"), times, asks.subject, asks.time)
    found = np.where((place >= 0) & (times[place] >= asks.since), place, -1)
    return np.where(asks.image >= 0, asks.image, found)


def _texts(task: Task, asks: Asks, cohort: Cohort, texts: pa.Table) -> pa.ListArray:
    """By the note rule of the task, or else of the settings."""
    if task.own_section:
        return _own_section(asks, cohort, texts, task.own_section)
    return NOTES[cohort.settings.note](asks, cohort, texts)


def _own_section(asks: Asks, cohort: Cohort, texts: pa.Table, section: str) -> pa.ListArray:
    """That section of the discharge summary of the sample's own admission, whatever the time."""
    chosen = np.flatnonzero(
        (column(texts, "section") == section) & (column(texts, "kind") == "discharge_summary")
    )
    order = chosen[np.argsort(column(texts, "hadm_id")[chosen], kind="stable")]
    owners = column(texts, "hadm_id")[order]
    admission = np.append(column(cohort.admissions, "hadm_id"), -1)[asks.admission]
    if not len(order):
        return _lists([[]], np.zeros(len(asks), np.int64))
    place = np.minimum(np.searchsorted(owners, admission), len(order) - 1)
    found = np.where(owners[place] == admission, order[place], -1)
    rows, pattern = np.unique(found, return_inverse=True)
    return _lists([[int(row)] if row >= 0 else [] for row in rows], pattern)


def _available(asks: Asks, cohort: Cohort, texts: pa.Table) -> pa.ListArray:
    """Texts of documents available by the prediction time, in the order of notes.toml, latest
    first; for a film without the reports charted near it, which may be its own."""
    # differs from the paper: its note is written after the outcome.
    order = np.lexsort((column(texts, "available_at"), column(texts, "subject_id")))
    available = column(texts, "available_at")[order]
    subjects = column(texts, "subject_id")[order]
    last = last_before(subjects, available, asks.subject, asks.time)
    film_time = np.where(asks.image >= 0, asks.time, np.datetime64("NaT"))
    # Many asks of one patient see the same texts: each distinct view is listed once.
    views, pattern = np.unique(
        np.stack([last, film_time.astype("M8[us]").astype(np.int64)]), axis=1, return_inverse=True
    )
    kinds = list(note_rules().parts)
    rank = np.array([kinds.index(kind) for kind in column(texts, "kind")], np.int64)
    reports = column(texts, "kind") == "radiology_report"
    charted, moments = column(texts, "time"), column(texts, "available_at").astype(np.int64)
    first = np.searchsorted(subjects, subjects)
    lists: list[list[int]] = []
    for place, moment in views.T:
        if place < 0:
            lists.append([])
            continue
        rows = order[first[place] : place + 1]
        time = np.int64(moment).view("M8[us]")
        if not np.isnat(time):
            rows = rows[~(reports[rows] & ~(charted[rows] < time - NEAR_FILM))]
        age = -moments[rows]
        lists.append(rows[np.lexsort((rows, age, rank[rows]))][:MAX_TEXTS].tolist())
    return _lists(lists or [[]], pattern)


def _past_history(asks: Asks, cohort: Cohort, texts: pa.Table) -> pa.ListArray:
    """The past medical history of the SAME admission's summary: written after the outcome."""
    return _own_section(asks, cohort, texts, "past medical history")


NOTES: dict[str, Callable[[Asks, Cohort, pa.Table], pa.ListArray]] = {
    "available": _available,
    "same_admission": _past_history,
}


def _lists(views: list[list[int]], pattern: NDArray[np.int64]) -> pa.ListArray:
    """For each entry of `pattern` the list of that number."""
    return pa.array(views, pa.list_(pa.int32())).take(pa.array(pattern.reshape(-1)))
