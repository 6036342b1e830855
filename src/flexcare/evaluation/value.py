"""What would it tell to obtain a modality? As much as it told of patients alike.

Patients alike are of the tuning split, have the modality, and the same is known of them otherwise.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch

from flexcare.batch import Batch
from flexcare.errors import UserError, unknown
from flexcare.evaluation.alike import (
    ALIKE,
    FEWEST,
    Told,
    against,
    change,
    expected,
    groups,
    outcomes,
    rounded,
    spread,
    uncertainty,
)
from flexcare.evaluation.metrics import Bools, Floats, Ints
from flexcare.evaluation.run import open_run
from flexcare.files import write_json
from flexcare.loading.events import plain
from flexcare.loading.loader import Loader
from flexcare.schema import SPLITS, TaskInfo
from flexcare.serving.bundle import Bundle, load_bundle
from flexcare.serving.predictor import predict_rows
from flexcare.store import HAS, Store

OF = "tuning"  # the split of patients alike: of those of the training split a model is too sure
ASSUMPTIONS = [
    "A modality would do to the answer, in log-odds, what it did to those of patients alike. If "
    "patients have it for reasons that the model does not see, that is wrong, and no data that "
    "lack it can show it.",
    "What else is known stays as it is, and no time passes until the modality is there.",
    "It is the answer that changes: nothing is said of what is then done, of cost or of harm.",
]
Say = Callable[[str], None]


def value(run: str | Path, split: str = "held_out", *, say: Say = print) -> dict[str, Any]:
    """What each modality would tell of the patients of a split who lack it; and, of those who have
    it, what was to be expected while it was hidden, against what it told.

    Returns:
        What missing/value.json holds, without subject and sample. By task and modality:
        lacking: {samples, told: of how many something can be said, change, uncertainty}, these
        {mean, low, high} (10th and 90th percentile of the patients); having: {samples, change,
        uncertainty, groups}, these {expected, real, difference, low, high} (95 % interval of the
        difference). One sample a subject. Units: `change`, `uncertainty`.

    Raises:
        UserError: no run, no such split, or a store that has changed.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    run = Path(run)
    _, store = open_run(run)
    asker = Asker(load_bundle(run / "bundle"), store)
    found = {
        "artefact": "value",
        "split": split,
        "patients_alike": {"split": OF, "most": ALIKE, "fewest": FEWEST},
        "assumptions": ASSUMPTIONS,
        "tasks": values(asker, split, say),
    }
    write_json(run / "missing" / "value.json", found)
    return found


def value_of(run: str | Path, sample: str) -> dict[str, Any]:
    """What each modality that one sample lacks would tell.

    Returns:
        sample, task, known, uncertainty, answers (by output); modalities: by name {alike: how many
        patients, change, uncertainty: that is left, answers: by output {mean, low, high} (10th and
        90th percentile)}; only {alike} where they are too few.

    Raises:
        UserError: no run, no such sample, or a store that has changed.
    """
    run = Path(run)
    _, store = open_run(run)
    asker = Asker(load_bundle(run / "bundle"), store)
    ids = store.samples["sample_id"]
    rows = np.flatnonzero(pc.equal(ids, sample).to_numpy(zero_copy_only=False))
    infos = {info.name: info for info in asker.bundle.tasks}
    if not len(rows) or (task := store.samples["task"][int(rows[0])].as_py()) not in infos:
        raise UserError(
            f"the run answers no sample {sample!r}",
            found="none of this name in its store, or one of a task that it was not trained for",
            expected=f"a sample_id of {store.path / 'samples.parquet'}",
        )
    return {"sample": sample, "task": task} | of_sample(asker, infos[task], int(rows[0]))


class Asker:
    """A model, asked about samples of its store as if less were known of them.

    Attributes:
        names: of the M modalities; has: (samples, M) bool.
    """

    def __init__(self, bundle: Bundle, store: Store) -> None:
        self.bundle, self.store = bundle, store
        self.loader = _Hiding(bundle, store)
        self.names = self.loader.modalities
        self.has: Bools = np.column_stack([plain(store.samples[HAS + n]) for n in self.names])
        self.subjects: Ints = plain(store.samples["subject_id"])

    def answers(self, info: TaskInfo, rows: Ints, known: Bools) -> Floats:
        """(n, outputs) probabilities for n sample rows of which only `known`, (n, M) or (M,), of
        what they have is known."""
        self.loader.known[rows] = known
        found = predict_rows(self.bundle.model, self.loader, {info.name: rows})
        return found[info.name].astype(np.float64)

    def one_each(self, rows: Ints) -> Ints:
        """One of each subject's rows, by chance but always the same."""
        order = np.random.default_rng(0).permutation(rows)
        return order[np.unique(self.subjects[order], return_index=True)[1]]

    def alike(self, info: TaskInfo, known: Bools, column: int) -> Told:
        """Patients of whom `known`, (M,), and the modality of a column are known, as if no more
        were."""
        more = known.copy()
        more[column] = True
        rows = self.store.rows(info.name, OF)
        rows = self.one_each(rows[self.has[rows][:, more].all(1)])
        return Told(
            self.subjects[rows], self.answers(info, rows, known), self.answers(info, rows, more)
        )


class _Hiding(Loader):
    """A loader that tells of each sample, (samples, M) bool, only what is `known`."""

    def __init__(self, bundle: Bundle, store: Store) -> None:
        names = [i.name for i in bundle.modalities if i.name in store.modalities]
        super().__init__(store, bundle.scaling, names, bundle.model.config)
        self.known: Bools = np.ones((len(store.samples), len(names)), bool)

    def batch(self, rows: Ints, tasks: tuple[str, ...]) -> Batch:
        hidden = ~self.known[rows.max(axis=1)]
        return super().batch(rows, tasks).hiding(self.modalities, torch.from_numpy(hidden))


def values(asker: Asker, split: str, say: Say = print) -> dict[str, Any]:
    """By task and modality, see `value`."""
    out: dict[str, Any] = {}
    for info in asker.bundle.tasks:
        rows = asker.store.rows(info.name, split)
        if len(rows):
            say(f"{info.name}: {', '.join(asker.names)}")
            out[info.name] = {
                name: _of_split(asker, info, rows, column)
                for column, name in enumerate(asker.names)
            }
    return out


def _of_split(asker: Asker, info: TaskInfo, rows: Ints, column: int) -> dict[str, Any]:
    """One task and modality."""
    there = asker.has[rows, column]
    lacking, having = asker.one_each(rows[~there]), asker.one_each(rows[there])
    asked = np.concatenate([lacking, having])
    known = asker.has[asked]
    known[:, column] = False
    before = asker.answers(info, asked, known)
    moved, left = np.full((2, len(asked)), np.nan)
    for pattern in np.unique(known, axis=0):
        mine = np.flatnonzero((known == pattern).all(1))
        alike = asker.alike(info, pattern, column)
        if len(alike.subjects) > FEWEST:
            moved[mine], left[mine] = expected(info, before[mine], asker.subjects[mine], alike)
    less = uncertainty(info, before) - left
    n = len(lacking)
    after = asker.answers(info, having, asker.has[having])
    real = change(info, before[n:], after)
    really_less = uncertainty(info, before[n:]) - uncertainty(info, after)
    return {
        "lacking": {
            "samples": n,
            "told": int(np.isfinite(moved[:n]).sum()),
            "change": spread(moved[:n]),
            "uncertainty": spread(less[:n]),
        },
        "having": {
            "samples": len(having),
            "change": against(moved[n:], real),
            "uncertainty": against(less[n:], really_less),
            "groups": groups(moved[n:], real),
        },
    }


def of_sample(asker: Asker, info: TaskInfo, row: int) -> dict[str, Any]:
    """What is known of one sample row, and what more would tell; see `value_of`."""
    known, subject = asker.has[row], asker.subjects[[row]]
    now = asker.answers(info, np.array([row]), known)
    modalities: dict[str, Any] = {}
    for column in np.flatnonzero(~known):
        alike = asker.alike(info, known, int(column))
        found: dict[str, Any] = {"alike": len(alike.subjects)}
        if len(alike.subjects) > FEWEST:
            after = next(outcomes(info, now, subject, alike))[1][0]
            low, high = np.percentile(after, (10, 90), axis=0)
            columns = zip(info.classes, after.mean(0), low, high, strict=True)
            found = {
                "alike": len(after),
                "change": rounded(change(info, now, after).mean()),
                "uncertainty": rounded(uncertainty(info, after).mean()),
                "answers": {
                    name: dict(zip(("mean", "low", "high"), map(rounded, numbers), strict=True))
                    for name, *numbers in columns
                },
            }
        modalities[asker.names[column]] = found
    return {
        "known": [name for name, there in zip(asker.names, known, strict=True) if there],
        "uncertainty": rounded(uncertainty(info, now)[0]),
        "answers": dict(zip(info.classes, map(rounded, now[0]), strict=True)),
        "modalities": modalities,
    }


def as_rows(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of what `value` gives, for the screen."""
    rows = [
        [
            task,
            name,
            f"{one['lacking']['told']} of {one['lacking']['samples']}",
            _span(one["lacking"]["change"]),
            _span(one["lacking"]["uncertainty"]),
            _number(one["having"]["change"]["expected"]),
            _number(one["having"]["change"]["real"]),
        ]
        for task, modalities in found["tasks"].items()
        for name, one in modalities.items()
    ]
    header = ["task", "modality", "patients", "change expected", "bits of uncertainty less"]
    return [*header, "those who have it: expected", "real"], rows


def of_sample_as_rows(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The same of what `value_of` gives; of many answers the one that may move most."""
    rows = []
    for name, one in found["modalities"].items():
        row = [name, str(one["alike"])]
        if "answers" in one:
            width = {answer: to["high"] - to["low"] for answer, to in one["answers"].items()}
            most = max(width, key=lambda answer: width[answer])
            row += [_number(one["change"]), _number(one["uncertainty"]), most]
            row += [_number(found["answers"][most]), _span(one["answers"][most])]
        else:
            row += ["too few", "", "", "", ""]
        rows.append(row)
    header = ["modality", "patients alike", "change expected", "bits of uncertainty left"]
    return [*header, "answer", "now", "with it"], rows


def _span(value: dict[str, Any]) -> str:
    if value["mean"] is None:
        return "-"
    return f"{value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
