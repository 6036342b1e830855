"""What hangs on each modality: sets of them taken away, and shares of each (SPEC 10, R2).

All from tables of predictions: what a model says without a modality is computed once, and mixed.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.stats import rankdata

from flexcare.errors import UserError
from flexcare.evaluation.compare import MEAN, OWN, Judge, Scores
from flexcare.evaluation.metrics import METRICS, Bools, Floats
from flexcare.evaluation.predictions import cases
from flexcare.files import unit_hash
from flexcare.schema import Kind, TaskInfo

MANY = 5  # with more modalities than this, only each alone and each left out are tried
RATES = (0.25, 0.5, 0.75, 1.0)  # share of the patients with a modality who lose it
HOW = {"at random": 0.0, "sicker first": 1.0}  # weight of the severity beside chance
SEVERITY = (
    "mean over the questions of a patient's rank by what the model with everything says: the "
    "probability, the mean over labels, or the expected class where classes lie in an order"
)
Without = tuple[str, ...]


def subsets(names: tuple[str, ...]) -> dict[str, Without]:
    """The sets of modalities that are tried beside all, as what each leaves out."""
    sizes = range(1, len(names)) if len(names) <= MANY else (1, len(names) - 1)
    out = {}
    for subset in (one for size in sizes for one in combinations(names, size)):
        without = tuple(name for name in names if name not in subset)
        short = len(without) == 1 < len(subset)
        out[f"without {without[0]}" if short else f"{' + '.join(subset)} only"] = without
    return out


def every(names: tuple[str, ...]) -> dict[str, Without]:
    """All modalities first, then `subsets`; each modality left out is among them."""
    found = {"all": ()} | subsets(names)
    return found if len(names) > 1 else found | {f"without {names[0]}": names}


def judged(
    tables: Mapping[Without, pa.Table],
    names: tuple[str, ...],
    tasks: Mapping[str, TaskInfo],
    resamples: int,
) -> dict[str, Any]:
    """Judge the predictions without each set of `every(names)`.

    Args:
        tables: the same samples in the same order, by what was left out.

    Returns:
        JSON without NaN, no subject and no sample in it.
        subsets: rows {subset, modalities, lose: by task the samples that lose something, scores}.
        grid: rows {modality, how, rate, having: subjects with it, losing: of these, scores}.
        scores: by task, by metric {value, low, high, difference: {value, low, high}} from all.

    Raises:
        UserError: no sample has an answer.
    """
    full = tables[()]
    infos = {n: info for n, info in tasks.items() if len(cases(full, info).sample_ids)}
    if not infos:
        raise UserError("there is nothing to judge", found="no labelled sample in this split")
    judge = Judge(full, infos, resamples)
    scores = {without: judge.scores(table) for without, table in tables.items()}
    sets = [
        {
            "subset": told,
            "modalities": [name for name in names if name not in without],
            "lose": _changed(full, tables[without]),
            "scores": _told(scores[without], scores[()]),
        }
        for told, without in every(names).items()
    ]
    own = {name: info.metric for name, info in infos.items()}
    about = {
        "interval": "95 % percentile interval, subjects drawn with replacement",
        "resamples": resamples,
        "samples": {name: len(ids) for name, ids in judge.samples.items()},
        "metrics": own | ({MEAN: OWN} if (MEAN, OWN) in scores[()] else {}),
    }
    grid = _grid(judge, tables, names, scores)
    return {
        "subsets": about | {"subsets": sets},
        "grid": about | {"severity": SEVERITY, "grid": grid},
    }


def _grid(
    judge: Judge,
    tables: Mapping[Without, pa.Table],
    names: tuple[str, ...],
    scores: Mapping[Without, Scores],
) -> list[dict[str, Any]]:
    """Each modality taken away from more and more of those who have it."""
    full, rows = tables[()], []
    sick = severity(full, judge.tasks)
    for name in names:
        for how, weight in HOW.items():
            for rate in RATES:
                lost, having = losing(full, name, rate, weight * sick)
                # When all have lost it, it does not matter who came first.
                found = (
                    scores[(name,)]
                    if rate == 1
                    else judge.scores(mixed(full, tables[(name,)], lost))
                )
                row = {"modality": name, "how": how, "rate": rate, "having": having}
                row["losing"] = len(np.unique(full["subject_id"].to_numpy()[lost]))
                rows.append(row | {"scores": _told(found, scores[()])})
    return rows


def losing(table: pa.Table, modality: str, rate: float, sick: Floats) -> tuple[Bools, int]:
    """Which samples lose a modality: all that have it, of some subjects.

    Subjects lose it in the order of a hash, plus their rank by severity among those who have it:
    who loses it at one rate does so at every higher one.

    Args:
        rate: share of the subjects who have it somewhere.
        sick: (N,) of each sample's subject, as `severity` has it; all equal: at random.

    Returns:
        (N,) bool, and the number of subjects who have it.
    """
    having = has(table, modality)
    whose = table["subject_id"].to_numpy()[having]
    people, first, place = np.unique(whose, return_index=True, return_inverse=True)
    luck = np.array([unit_hash("taken away", modality, int(one)) for one in people])
    rank = rankdata(sick[having][first]) / max(len(people), 1)
    order = np.argsort(-(luck + rank), kind="stable")
    chosen = np.zeros(len(people), bool)
    chosen[order[: round(rate * len(people))]] = True
    lost = np.zeros(len(table), bool)
    lost[having] = chosen[place]
    return lost, len(people)


def severity(table: pa.Table, tasks: Mapping[str, TaskInfo]) -> Floats:
    """(N,) how sick the model thinks each sample's subject, 0..1 (`SEVERITY`); no label is used."""
    people, whose = np.unique(table["subject_id"].to_numpy(), return_inverse=True)
    total, asked = np.zeros((2, len(people)))
    for name, info in tasks.items():
        rows = np.flatnonzero(pc.equal(table["task"], name).to_numpy(zero_copy_only=False))
        if len(rows) and (info.kind != "multiclass" or METRICS[info.metric].ordered):
            said = np.stack(table["probabilities"].take(pa.array(rows)).to_numpy())
            rank = rankdata(RISK[info.kind](said)) / len(rows)
            counts = np.bincount(whose[rows], minlength=len(people))
            total += np.bincount(whose[rows], rank, len(people)) / np.maximum(counts, 1)
            asked += counts > 0
    mean = np.where(asked > 0, total / np.maximum(asked, 1), 0.5)
    return np.asarray(mean[whose])


RISK: dict[Kind, Callable[[NDArray[Any]], Floats]] = {
    "binary": lambda said: said[:, 0].astype(np.float64),
    "multilabel": lambda said: said.mean(1, dtype=np.float64),
    "multiclass": lambda said: said @ np.arange(said.shape[1], dtype=np.float64),
}


def has(table: pa.Table, modality: str) -> Bools:
    """(N,) which samples have a modality."""
    texts, place = np.unique(table["modalities"].to_numpy(), return_inverse=True)
    return np.array([modality in text.split("+") for text in texts], bool)[place]


def mixed(full: pa.Table, without: pa.Table, lost: Bools) -> pa.Table:
    """The predictions that a model makes if some samples, (N,) bool, lack what others have.

    Exact: a sample is answered from what is known of it alone.

    Raises:
        ValueError: other samples, or the same in another order.
    """
    if not full["sample_id"].equals(without["sample_id"]):
        raise ValueError("tables of other samples cannot be mixed")
    chosen = np.arange(len(full)) + len(full) * lost
    return pa.concat_tables([full, without]).take(pa.array(chosen))


def _changed(full: pa.Table, table: pa.Table) -> dict[str, int]:
    """By task, how many samples have less in the second table."""
    less = full.filter(pc.not_equal(full["modalities"], table["modalities"]))
    return {row["values"]: row["counts"] for row in pc.value_counts(less["task"]).to_pylist()}


def _told(scores: Scores, full: Scores) -> dict[str, Any]:
    """By task and metric, the value and its difference from that with everything."""
    out: dict[str, Any] = {}
    for (task, metric), score in scores.items():
        gap = (score - full[task, metric]).to_dict()
        out.setdefault(task, {})[metric] = score.to_dict() | {"difference": gap}
    return out


def clear(value: dict[str, Any]) -> bool:
    """Whether the interval of a value's difference from everything leaves 0 out."""
    gap = value["difference"]
    return gap["low"] is not None and not gap["low"] <= 0 <= gap["high"]


def as_rows(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a file's results, for the screen."""
    own = found["metrics"]

    def cells(scores: dict[str, Any]) -> Iterable[str]:
        for task, metric in own.items():
            one = scores[task][metric]
            yield "-" if one["value"] is None else f"{one['value']:.3f}{'*' * clear(one)}"

    if "subsets" in found:
        rows = [[row["subset"], *cells(row["scores"])] for row in found["subsets"]]
        return ["known", *own], rows
    rows = [
        [
            f"{row['modality']}, {row['how']}",
            f"{row['losing']} of {row['having']}",
            *cells(row["scores"]),
        ]
        for row in found["grid"]
    ]
    return ["taken away", "patients", *own], rows
