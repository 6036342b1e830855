"""The samples table: every task's asks, answers and evidence, in one table (schema.SAMPLES)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flexcare.cohort.asks import HOURLY, Asks, Cohort, asks_of, parse_ask, row_or_none, rows_of
from flexcare.cohort.evidence import Evidence, evidence_of
from flexcare.cohort.labels import Labels, labels_of
from flexcare.cohort.splits import learned_from
from flexcare.cohort.stays import Mask, age_at, column
from flexcare.errors import UserError
from flexcare.schema import SPLITS, TaskInfo
from flexcare.store import HAS
from flexcare.tasks import Task

AGE_BANDS = (45, 65, 80)  # years; the report's subgroups
GROUPS = ("age_band", "sex", "admission_type", "insurance", "race")


@dataclass(frozen=True)
class TaskSamples:
    """One task's samples, before films and texts are read.

    Attributes:
        split: (n,) number in SPLITS.
    """

    info: TaskInfo
    asks: Asks
    labels: Labels
    split: NDArray[np.int8]
    evidence: Evidence

    def where(self, keep: Mask | slice) -> "TaskSamples":
        """Only these samples."""
        labels = self.labels.where(keep)
        return TaskSamples(
            self.info, self.asks.where(keep), labels, self.split[keep], self.evidence.where(keep)
        )


def samples_of(task: Task, cohort: Cohort, texts: pa.Table) -> TaskSamples:
    """Ask, answer, and look up what each sample may use."""
    asks, labels = labels_of(task, asks_of(task, cohort), cohort)
    evidence = evidence_of(task, asks, cohort, texts)
    if task.own_section:
        has_section = np.diff(evidence.texts.offsets) > 0
        reason = f"admission without a {task.own_section}"
        asks, labels, evidence = _keep(task, asks, labels, evidence, has_section, cohort, reason)
    split = cohort.split(asks.subject)
    used = learned_from(asks.subject, split, cohort.settings)
    if not used.all():
        reason = "training subject beyond train_share"
        asks, labels, evidence = _keep(task, asks, labels, evidence, used, cohort, reason)
        split = split[used]
    classes = task.classes
    if labels.names is not None:
        classes, number = _classes(labels.names, split, cohort.settings.drg_classes)
        labels = replace(labels, values=number.astype(np.float32)[:, None])
        reason = "label never seen in the training split"
        asks, labels, evidence = _keep(task, asks, labels, evidence, number >= 0, cohort, reason)
        split = cohort.split(asks.subject)
    info = TaskInfo(
        name=task.name,
        question=task.question,
        kind=task.kind,
        classes=classes,
        metric=task.primary_metric,
        weight=task.weight,
        hourly=parse_ask(task.ask)[0] in HOURLY,
    )
    return TaskSamples(info, asks, labels, split, evidence)


def _classes(
    names: NDArray[np.object_], split: NDArray[np.int8], which: str
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Class names, sorted, and the class number of each sample, -1 where it is no class."""
    seen = names[split == SPLITS.index("train")] if which == "train" else names
    classes = np.unique(seen.astype(str))
    place = np.searchsorted(classes, names.astype(str))
    known = (
        classes[np.minimum(place, len(classes) - 1)] == names.astype(str) if len(classes) else []
    )
    return tuple(map(str, classes)), np.where(known, place, -1).astype(np.int64)


def _keep(
    task: Task,
    asks: Asks,
    labels: Labels,
    evidence: Evidence,
    keep: NDArray[np.bool_],
    cohort: Cohort,
    reason: str,
) -> tuple[Asks, Labels, Evidence]:
    """Only these samples, counted in the flow."""
    cohort.flow.step(f"{task.name} samples", keep, reason)
    return asks.where(keep), labels.where(keep), evidence.where(keep)


def to_table(samples: TaskSamples, cohort: Cohort) -> dict[str, pa.Array]:
    """The columns of schema.SAMPLES and the subgroups; names that repeat are dictionaries."""
    asks, name = samples.asks, samples.info.name
    keys = [asks.key, asks.hours] if samples.info.hourly else [asks.key]
    texts = (pa.array(key).cast(pa.string()) for key in keys)
    return {
        "sample_id": pc.binary_join_element_wise(pa.scalar(name), *texts, "/"),
        "task": _named([name], np.zeros(len(asks), np.int32)),
        "subject_id": pa.array(asks.subject, pa.int64()),
        "hadm_id": _or_null(column(cohort.admissions, "hadm_id"), asks.admission),
        "stay_id": _or_null(column(cohort.stays, "stay_id"), asks.stay),
        "prediction_time": pa.array(asks.time, pa.timestamp("us")),
        "hours": pa.array(asks.hours, from_pandas=True),
        "label": _lists(samples.labels.values, pa.float32()),
        "label_mask": _lists(samples.labels.known, pa.bool_()),
        "split": _named(SPLITS, samples.split),
    } | {f"group:{key}": value for key, value in _groups(asks, cohort).items()}


def evidence_table(
    part: TaskSamples,
    cohort: Cohort,
    spans: NDArray[np.int64],
    film_rows: NDArray[np.int64],
    text_rows: NDArray[np.int64],
) -> dict[str, pa.Array]:
    """The columns of store.EVIDENCE, and which modalities each sample has.

    Args:
        spans: (kept stays, 2) rows of each stay's events.
        film_rows, text_rows: the row in the store of each of the cohort's images and texts.
    """
    seen = part.evidence
    film = film_rows[seen.image]
    span = np.vstack([spans, [0, 0]])[seen.stay]
    offsets, used = seen.texts.offsets, seen.texts.flatten().to_numpy()
    offsets = pc.subtract(offsets, offsets[0])
    texts = pa.ListArray.from_arrays(offsets, pa.array(text_rows[used], pa.int32()))
    return {
        "series_first": pa.array(span[:, 0]),
        "series_stop": pa.array(span[:, 1]),
        "series_hours": pa.array(seen.until),
        "film_row": pa.array(film, pa.int32()),
        "text_rows": texts,
        "has_film": pa.array(film >= 0),
        "has_note": pc.greater(pc.list_value_length(texts), 0),
    } | {HAS + name: pa.array(seen.has[:, i]) for i, name in enumerate(cohort.kinds)}


def count_samples(
    samples: list[TaskSamples], cohort: Cohort, film_rows: NDArray[np.int64]
) -> dict[str, dict[str, int]]:
    """Samples by task and split, and how many have each modality."""
    out = {}
    for one in samples:
        has = {
            "": np.ones(len(one.asks), bool),
            **{f" with {n}": one.evidence.has[:, i] for i, n in enumerate(cohort.kinds)},
            " with film": film_rows[one.evidence.image] >= 0,
            " with note": np.diff(one.evidence.texts.offsets) > 0,
        }
        counts = {
            f"{SPLITS[number]}{name}": int(there[one.split == number].sum())
            for number in np.unique(one.split)
            for name, there in has.items()
        }
        if counts:
            out[one.info.name] = dict(sorted(counts.items()))
    return dict(sorted(out.items()))


def _groups(asks: Asks, cohort: Cohort) -> dict[str, pa.Array]:
    """Age band and sex, and what the source has of the admission."""
    subject = rows_of(asks.subject, cohort.subjects, "subject_id")
    anchor = [
        row_or_none(column(cohort.subjects, n), subject) for n in ("anchor_age", "anchor_year")
    ]
    age = age_at(asks.time, anchor[0], anchor[1], cohort.settings.age)
    between = [f"{low}-{high - 1}" for low, high in pairwise(AGE_BANDS)]
    names = [f"under {AGE_BANDS[0]}", *between, f"{AGE_BANDS[-1]} and over"]
    band = np.where(np.isnan(age), 0, np.searchsorted(AGE_BANDS, age, side="right"))
    out = {
        "age_band": _named(names, band, np.isnan(age)),
        "sex": _taken(cohort.subjects["sex"], subject),
    }
    for name in GROUPS[2:]:
        out[name] = _taken(cohort.admissions[name], asks.admission)
    return out


def _named(names: Sequence[str], numbers: NDArray[Any], unknown: Any = False) -> pa.Array:
    """names[numbers], null where unknown; each name is kept once."""
    indices = pa.array(numbers, pa.int32(), mask=np.broadcast_to(unknown, len(numbers)))
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string()))


def _taken(names: pa.ChunkedArray, rows: NDArray[np.int64]) -> pa.Array:
    """names[rows], null where a row is -1; each name is kept once."""
    return names.combine_chunks().dictionary_encode().take(_rows(rows))


def _rows(rows: NDArray[np.int64]) -> pa.Array:
    """Row numbers with null for -1, so that `take` gives null."""
    return pa.array(rows, mask=rows < 0)


def _or_null(values: NDArray[np.int64], rows: NDArray[np.int64]) -> pa.Array:
    return pa.array(values, pa.int64()).take(_rows(rows))


def _lists(values: NDArray[np.float32] | NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
    """(n, k) as n lists of k."""
    size = values.shape[1]
    offsets = pa.array(np.arange(0, values.size + 1, size or 1, dtype=np.int32)[: len(values) + 1])
    return pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1), kind))


def check_any(samples: list[TaskSamples], cohort: Cohort) -> None:
    """Refuse a store in which no task has a sample."""
    if not any(len(s.asks) for s in samples):
        raise UserError(
            "no task has a single sample",
            found="; ".join(
                f"{s['remaining']} {s['unit']}: {s['reason']}" for s in cohort.flow.steps[-6:]
            ),
            expected="at least one sample",
            do="Check that films, notes and tables are of the same patients.",
        )
