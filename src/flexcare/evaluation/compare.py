"""Several models on several tasks: the same subjects are drawn for every model and every task.

So differences between models are paired, and a mean over tasks has an interval of its own.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flexcare.errors import UserError
from flexcare.evaluation.bootstrap import Copies, interval, resample, subject_copies
from flexcare.evaluation.metrics import Answers, Floats, Undefined, measure
from flexcare.evaluation.predictions import Cases, cases
from flexcare.evaluation.utility import utility
from flexcare.schema import Kind, TaskInfo

# Beside a task's own metric.
BESIDE: dict[Kind, tuple[str, ...]] = {
    "binary": ("auroc", "min_se_ppv", "brier"),
    "multilabel": ("macro_auroc",),
    "multiclass": ("accuracy",),
}
AREA: dict[Kind, str] = {"binary": "auroc", "multilabel": "macro_auroc"}
MEAN = "mean over tasks"  # its metrics: of each task its own, and of each that has one its AUROC
OWN, AREAS, UTILITY = "own_metric", "auroc", "utility"


@dataclass(frozen=True)
class Score:
    """A value, NaN where it does not exist, and that of each resample (R,)."""

    value: float
    drawn: Floats

    def __sub__(self, other: "Score") -> "Score":
        return Score(self.value - other.value, self.drawn - other.drawn)

    def to_dict(self) -> dict[str, Any]:
        """value, low, high (95 %), rounded; null where there is none."""
        if not np.isfinite(self.value):
            return {"value": None, "low": None, "high": None}
        span = interval(self.drawn)
        return {"value": round(self.value, 6), "low": span["low"], "high": span["high"]}


Scores = dict[tuple[str, str], Score]  # by task and metric


class Judge:
    """Judges predictions tables of the same samples.

    Args:
        table: one of them: who the subjects are.
        tasks: in the order they are reported.
        resamples: of the subjects; seed: of these.
    """

    def __init__(
        self, table: pa.Table, tasks: dict[str, TaskInfo], resamples: int, seed: int = 0
    ) -> None:
        self.tasks = tasks
        self.people = np.unique(table["subject_id"].to_numpy())
        generator = np.random.default_rng(seed)
        self.copies = subject_copies(len(self.people), resamples, generator)
        found = {name: cases(table, info) for name, info in tasks.items()}
        self.samples = {name: one.sample_ids for name, one in found.items()}

    def scores(self, table: pa.Table) -> Scores:
        """The metrics of every task that the table answers; of all of them, means over tasks.

        Raises:
            UserError: other samples than the first table's.
        """
        out: Scores = {}
        answered = set(table["task"].unique().to_pylist())
        for name, info in self.tasks.items():
            if name not in answered:
                continue
            found = cases(table, info)
            if not np.array_equal(found.sample_ids, self.samples[name]):
                raise UserError(
                    f"models answered different samples of {name}",
                    found=f"{len(found.sample_ids):,} and {len(self.samples[name]):,}",
                    expected="the same ones, or none can be called better",
                )
            drawn = resample(info.kind, found.answers, self._copies(table, found))
            for metric in metrics_of(info):
                out[name, metric] = Score(_measured(metric, info, found.answers), drawn[metric])
        return out | (self._means(out) if self.tasks.keys() <= answered else {})

    def utility(self, table: pa.Table, task: str, threshold: float) -> Score:
        """The normalised utility of warnings from a threshold on (evaluation.utility)."""
        found = cases(table, self.tasks[task])
        copies = self._copies(table, found)
        return Score(*utility(found.answers, hours_of(table, found), threshold, copies))

    def _copies(self, table: pa.Table, found: Cases) -> Copies:
        """Those of the subjects of some samples, in the order of their numbers."""
        return self.copies[
            :, np.searchsorted(self.people, np.unique(_of(table, found, "subject_id")))
        ]

    def _means(self, scores: Scores) -> Scores:
        """Over tasks, where there are several with a value."""
        chosen = {
            OWN: [scores[name, info.metric] for name, info in self.tasks.items()],
            AREAS: [scores[n, AREA[i.kind]] for n, i in self.tasks.items() if i.kind in AREA],
        }
        known = {k: [s for s in found if np.isfinite(s.value)] for k, found in chosen.items()}
        return {
            (MEAN, name): Score(
                float(np.mean([one.value for one in found])),
                np.mean([one.drawn for one in found], axis=0),
            )
            for name, found in known.items()
            if len(found) > 1
        }


def metrics_of(info: TaskInfo) -> list[str]:
    """What is told of a task: its own metric first."""
    return list(dict.fromkeys([info.metric, *BESIDE[info.kind]]))


def hours_of(table: pa.Table, found: Cases) -> Floats:
    """(N,) hours of the samples."""
    return np.asarray(_of(table, found, "hours"), np.float64)


def _of(table: pa.Table, found: Cases, column: str) -> npt.NDArray[Any]:
    """A column of the table for some of its samples."""
    place = pc.index_in(
        pa.array(found.sample_ids, pa.string()), table["sample_id"].combine_chunks()
    )
    out: npt.NDArray[Any] = table[column].take(place).to_numpy()
    return out


def _measured(metric: str, info: TaskInfo, answers: Answers) -> float:
    try:
        return measure(metric, info.kind, answers)
    except Undefined:
        return np.nan
