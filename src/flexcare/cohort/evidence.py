"""Which film, which texts and which part of the series a sample may use: nothing from later on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flexcare.cohort.asks import Asks, Cohort, last_before, row_or_none
from flexcare.cohort.stays import Mask, column
from flexcare.features.notes import note_rules
from flexcare.features.variables import SERIES
from flexcare.tasks import Task

MAX_TEXTS = 8  # texts of one sample; the model reads the first 512 pieces of them all
NEAR_FILM = np.timedelta64(2, "h")  # reports charted this near a film may be the film's own
VIEWS = 20_000  # lists made at once, so that memory does not grow with their number
FILM_HOURS = 4  # a film this soon after admission has no series (SPEC 4)

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Evidence:
    """What n samples may use.

    Attributes:
        stay: (n,) row of the stay whose events count, -1 for none.
        until: (n,) hours up to which they count.
        has: (n, modalities) which modalities of events have something visible by then.
        image: (n,) row of the cohort's images, -1 for none.
        texts: n lists of rows of the texts table, the first is read first.
    """

    stay: Rows
    until: NDArray[np.float64]
    has: Mask
    image: Rows
    texts: pa.ListArray

    def where(self, keep: Mask | slice) -> "Evidence":
        """Only these samples."""
        some = isinstance(keep, slice)
        texts = self.texts[keep] if some else self.texts.filter(pa.array(keep))
        return Evidence(self.stay[keep], self.until[keep], self.has[keep], self.image[keep], texts)


def evidence_of(task: Task, asks: Asks, cohort: Cohort, texts: pa.Table) -> Evidence:
    """What the samples of a task may use."""
    stay, until, has = _events(asks, cohort)
    return Evidence(stay, until, has, _film(asks, cohort), _texts(task, asks, cohort, texts))


def _events(asks: Asks, cohort: Cohort) -> tuple[Rows, NDArray[np.float64], Mask]:
    """The stay up to the prediction time or its end, and which modalities have been seen by then;
    nobody's before anything was. A series also needs some time, and of a film some hours."""
    end = row_or_none(column(cohort.stays, "los_hours"), asks.stay)
    until = np.fmin(asks.hours, end)
    some_time = (until > 0) & ~((asks.image >= 0) & (asks.hours <= FILM_HOURS))
    has = np.zeros((len(asks), len(cohort.kinds)), bool)
    for number, kind in enumerate(cohort.kinds.values()):
        seen = row_or_none(cohort.first_seen[:, number], asks.stay) <= until
        has[:, number] = seen & (some_time if kind == SERIES else until >= 0)
    known = has.any(1)
    return np.where(known, asks.stay, -1), np.where(known, until, 0.0), has


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
    wanted = pc.and_(
        pc.equal(texts["section"], section), pc.equal(texts["kind"], "discharge_summary")
    )
    chosen = np.flatnonzero(wanted.to_numpy())
    order = chosen[np.argsort(column(texts, "hadm_id")[chosen], kind="stable")]
    owners = np.append(column(texts, "hadm_id")[order], -2)
    admission = np.append(column(cohort.admissions, "hadm_id"), -1)[asks.admission]
    place = np.searchsorted(owners[:-1], admission)
    there = owners[place] == admission
    return _lists(there.astype(np.int64), order[place[there]])


def _available(asks: Asks, cohort: Cohort, texts: pa.Table) -> pa.ListArray:
    """Texts of documents available by the prediction time, in the order of notes.toml, latest
    first; for a film without the reports charted near it, which may be its own."""
    # differs from the paper: its note is written after the outcome.
    if not len(texts):
        return _lists(np.zeros(len(asks), np.int64), np.zeros(0, np.int64))
    order = np.lexsort((column(texts, "available_at"), column(texts, "subject_id")))
    subjects = column(texts, "subject_id")[order]
    last = last_before(subjects, column(texts, "available_at")[order], asks.subject, asks.time)
    if (asks.image >= 0).any():
        return _first_texts(order, subjects, last, texts, asks.time - NEAR_FILM)
    # Many asks of one patient see the same texts: each distinct view is listed once.
    views = pa.array(last).dictionary_encode()
    lists = _first_texts(order, subjects, views.dictionary.to_numpy(), texts)
    return lists.take(views.indices)


def _first_texts(
    order: Rows,
    subjects: NDArray[np.int64],
    last: Rows,
    texts: pa.Table,
    charted_before: NDArray[Any] | None = None,
) -> pa.ListArray:
    """What is read first of each view: the texts of a subject up to a place.

    Args:
        order: rows of `texts` by subject and time; subjects: of each of them.
        last: (views,) the last place in `order` that is seen; -1: none is.
        charted_before: (views,) reports charted later are left out.
    """
    kinds = pc.index_in(texts["kind"], value_set=pa.array(note_rules().parts)).to_numpy()
    moments = column(texts, "available_at").astype(np.int64)
    best = np.lexsort((np.arange(len(texts)), -moments, kinds))
    place_of = np.argsort(best)
    report = pc.equal(texts["kind"], "radiology_report").to_numpy()
    charted = column(texts, "time")
    first = np.append(np.searchsorted(subjects, subjects), 0)  # the last entry stands for place -1
    lengths, rows = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start in range(0, len(last), VIEWS):
        part = slice(start, start + VIEWS)
        view, place = _ranges(first[last[part]], last[part] + 1)
        seen = order[place]
        if charted_before is not None:
            allowed = ~report[seen] | (charted[seen] < charted_before[part][view])
            view, seen = view[allowed], seen[allowed]
        # One number a text, by view and then by what is read first.
        ranked = np.sort(view * len(texts) + place_of[seen])
        view = ranked // len(texts)
        read = np.arange(len(view)) - np.searchsorted(view, view) < MAX_TEXTS
        lengths.append(np.bincount(view[read], minlength=len(last[part])))
        rows.append(best[ranked[read] % len(texts)])
    return _lists(np.concatenate(lengths), np.concatenate(rows))


def _ranges(start: Rows, stop: Rows) -> tuple[Rows, Rows]:
    """All numbers of all ranges [start, stop), and to which range each belongs."""
    count = stop - start
    which = np.repeat(np.arange(len(count)), count)
    return which, np.arange(len(which)) + np.repeat(stop - np.cumsum(count), count)


def _past_history(asks: Asks, cohort: Cohort, texts: pa.Table) -> pa.ListArray:
    """The past medical history of the SAME admission's summary: written after the outcome."""
    return _own_section(asks, cohort, texts, "past medical history")


NOTES: dict[str, Callable[[Asks, Cohort, pa.Table], pa.ListArray]] = {
    "available": _available,
    "same_admission": _past_history,
}


def _lists(lengths: NDArray[np.int64], rows: Rows) -> pa.ListArray:
    """Lists of these lengths that together hold `rows`."""
    offsets = np.append(0, np.cumsum(lengths)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(rows.astype(np.int32)))
