"""Against the truth of the invented hospital: which factors z_S tells, which modalities matter."""

from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from flexcare.experiments.measures.trained import SPLIT, Found, Trained
from flexcare.experiments.verdict import Value
from flexcare.files import read_json
from flexcare.loading.events import plain
from flexcare.loading.loader import Loader
from flexcare.serving.predictor import predict_rows
from flexcare.store import HAS

FACTORS = ("s", "f", "t", "c")
FEWEST = 15  # samples of either answer
Floats = NDArray[np.float64]
Chosen = tuple[str, ...]  # modalities


def planted(run: Trained) -> Found:
    """Probes: AUROC of a linear reader of a factor from the z_S of one modality: shared (of what
    all modalities tell, the mean over them), own (of what only this one tells), foreign (of what
    this one cannot tell); shown, of every factor from every z_S. Shapley values of the modalities
    for the AUROC of each label: right, the part of all of them that falls on modalities the label
    is planted in, of labels that some modality has nothing to do with.
    """
    assert run.truth is not None
    truth = read_json(run.truth / "truth.json", "the truth of an invented hospital")
    table, shown = _probes(run, truth), _shapley(run, truth)
    values = _by_kind(table, truth)
    values["right"] = Value(_share(shown))
    return Found(values, {"shapley": shown, "probes": table})


def _probes(run: Trained, truth: dict[str, Any]) -> dict[str, Any]:
    """Rows factors, columns combinations: AUROC of the probe; None: too few patients."""
    sides = [_states(run, split) for split in ("train", SPLIT)]
    values = [
        [
            probe(*((z[has[:, n], n], y[factor][has[:, n]]) for z, has, y in sides))
            for n in range(len(run.model.combinations))
        ]
        for factor in FACTORS
    ]
    columns = ["+".join(one) for one in run.model.combinations]
    rows = [f"{factor}, seen in {' and '.join(_seen(truth, factor))}" for factor in FACTORS]
    return {"rows": rows, "columns": columns, "values": values}


def _by_kind(table: dict[str, Any], truth: dict[str, Any]) -> dict[str, Value]:
    """The mean over the probes of single modalities of each kind."""
    found: dict[str, list[float]] = {"shared": [], "own": [], "foreign": []}
    for factor, areas in zip(FACTORS, table["values"], strict=True):
        seen = _seen(truth, factor)
        for name, area in zip(table["columns"], areas, strict=True):
            if area is not None and "+" not in name:
                kind = "shared" if len(seen) > 1 else "own"
                found[kind if name in seen else "foreign"].append(area)
    return {name: Value(float(np.mean(areas))) for name, areas in found.items() if areas}


def _seen(truth: dict[str, Any], factor: str) -> tuple[str, ...]:
    """The modalities that tell a factor."""
    return tuple(truth["factors"][factor]["seen_in"])


def _states(run: Trained, split: str) -> tuple[Floats, NDArray[np.bool_], dict[str, Any]]:
    """z_S (n, S, D) of a split's patients, which of them are present, and the factors (n,)."""
    assert run.truth is not None
    states, present, rows = [], [], []
    for asked, output in run.outputs(split):
        states.append(output.combined.double().numpy())
        present.append(output.present.numpy())
        rows.append(asked.max(1))
    subjects = plain(run.store.samples["subject_id"])[np.concatenate(rows)]
    table = pq.read_table(run.truth / "factors.parquet")
    order = np.argsort(plain(table["subject_id"]))
    place = order[np.searchsorted(plain(table["subject_id"])[order], subjects)]
    factors = {name: plain(table[name])[place] for name in FACTORS}
    return np.concatenate(states), np.concatenate(present), factors


def probe(train: tuple[Floats, Floats], test: tuple[Floats, Floats]) -> float | None:
    """AUROC of a linear reader; None where there are too few to learn from or to judge."""
    if min(np.bincount(y.astype(int), minlength=2).min() for _, y in (train, test)) < FEWEST:
        return None
    centre, scale = train[0].mean(0), train[0].std(0) + 1e-9
    reader = LogisticRegression(C=0.1, max_iter=500).fit((train[0] - centre) / scale, train[1])
    return float(roc_auc_score(test[1], reader.decision_function((test[0] - centre) / scale)))


def _shapley(run: Trained, truth: dict[str, Any]) -> dict[str, Any]:
    """Rows labels, columns modalities, and which modalities each label is planted in."""
    names = run.modalities
    sets = [chosen for size in range(len(names) + 1) for chosen in combinations(names, size)]
    areas = {chosen: _areas(run, chosen) for chosen in sets}
    rows, values, needed = [], [], []
    for label in areas[names]:
        needs = needs_of(truth, *label)
        if needs is not None:
            worth = {chosen: areas[chosen][label] for chosen in sets}
            rows.append("/".join(label))
            values.append([round(shapley_value(worth, name, names), 4) for name in names])
            needed.append([needs[name] != "noise" for name in names])
    return {"rows": rows, "columns": list(names), "values": values, "needed": needed}


def shapley_value(worth: dict[Chosen, float], name: str, names: Chosen) -> float:
    """What a modality adds to each set of the others, weighted; `worth` by set, names in order."""
    others, out = [one for one in names if one != name], 0.0
    for size in range(len(names)):
        weight = factorial(size) * factorial(len(names) - size - 1) / factorial(len(names))
        for chosen in combinations(others, size):
            more = tuple(one for one in names if one in (*chosen, name))
            out += weight * (worth[more] - worth[chosen])
    return out


def _areas(run: Trained, chosen: Chosen) -> dict[tuple[str, str], float]:
    """AUROC by task and label of patients with every modality, given some of them."""
    loader = Loader(run.store, run.predictor.bundle.scaling, chosen, run.model.config)
    rows = {}
    for info in run.model.tasks:
        own = run.store.rows(info.name, SPLIT)
        has = [plain(run.store.samples[HAS + name])[own] for name in run.modalities]
        rows[info.name] = own[np.all(has, axis=0)]
    found, out = predict_rows(run.model, loader, rows), {}
    for info in run.model.tasks:
        answers = loader.batch(rows[info.name][:, None], (info.name,))
        truth, known = (x[info.name].numpy() for x in (answers.labels, answers.label_masks))
        for place, label in enumerate(info.classes if info.kind != "multiclass" else ()):
            y, p = (x[known[:, place], place] for x in (truth, found[info.name]))
            if np.bincount(y.astype(int), minlength=2).min() >= FEWEST:
                out[info.name, label] = float(roc_auc_score(y, p)) if chosen else 0.5
    return out


def needs_of(truth: dict[str, Any], task: str, label: str) -> dict[str, str] | None:
    """How each modality matters to a label, by the truth; None for a coin."""
    labels = {
        name: one for t in truth["tasks"].values() for name, one in t.get("labels", {}).items()
    }
    found = labels.get(label) or truth["tasks"].get(task)
    if found is None or not found["factors"]:
        return None
    needs: dict[str, str] = found["needs"]
    return needs


def _share(shown: dict[str, Any]) -> float:
    """The part of all Shapley values, signs left out, that falls where it should; NaN: of none."""
    pairs = zip(shown["values"], shown["needed"], strict=True)
    told = [(np.abs(values), np.array(needed)) for values, needed in pairs if not all(needed)]
    whole = sum(values.sum() for values, _ in told)
    return float(sum(values[needed].sum() for values, needed in told) / whole) if whole else np.nan
