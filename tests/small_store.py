"""A store of invented patients, written in a blink: three modalities, three kinds of task."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flexcare.features.variables import variable_set
from flexcare.files import sha256, write_json
from flexcare.schema import STORE_VERSION, ModalityInfo, TaskInfo
from flexcare.store import EVENT_ARRAYS, Store, modality_table, samples_schema, task_table

DEATH = TaskInfo("death", "?", "binary", ("dead",), "average_precision", 0.2)
STAY = TaskInfo(
    "stay", "?", "multiclass", ("short", "long", "longer"), "quadratic_kappa", 0.5, hourly=True
)
FINDINGS = TaskInfo("findings", "?", "multilabel", ("a", "b"), "macro_average_precision")
VARIABLES: dict[str, Any] = {
    "pulse": {"unit": "1/min", "normal": 80.0},
    "sugar": {"unit": "mg/dL", "normal": 100.0},
    "awake": {"unit": "", "normal": "yes", "categories": ["yes", "no"], "scores": [1, 0]},
}
SIDE, WIDTH, ASKED_AT = 16, 6, 8  # pixels, encoder width, hour
TINY = {"hidden": 8, "layers": 1, "feedforward": 2, "patch": 8, "experts": 4, "max_bins": 16}


def small_store(
    path: Path,
    train: int = 24,
    tuning: int = 6,
    seed: int = 0,
    alike: bool = False,
    held_out: int = 2,
) -> Store:
    """One stay a subject; `death` and every hour of `stay` ask the same things at hour 8.

    Args:
        train, tuning, held_out: subjects of these splits.
        alike: all answers of the tuning split are 0.
    """
    random = np.random.default_rng(seed)
    subjects = train + tuning + held_out
    path.mkdir(parents=True)
    sick = random.random(subjects) < 0.5
    hours = random.integers(ASKED_AT, 15, subjects)
    spans = _write_events(path, random, sick)
    films = random.integers(0, 120, (subjects, SIDE, SIDE)) + 100 * sick[:, None, None]
    np.save(path / "films.npy", films.astype(np.uint8))
    _write_notes(path, random, sick)
    has = random.random((subjects, 3)) < [0.8, 0.6, 0.6]
    rows = []
    for subject in range(subjects):
        split = "train" if subject < train else "tuning" if subject < train + tuning else "held_out"
        known = {
            "subject_id": subject, "hadm_id": subject, "stay_id": 100 + subject, "split": split,
            "series_first": spans[subject], "series_stop": spans[subject + 1],
            "has_series": bool(has[subject, 0]), "film_row": subject if has[subject, 1] else -1,
            "has_film": bool(has[subject, 1]), "has_note": bool(has[subject, 2]),
            "text_rows": [subject, (subject + 1) % subjects][: 1 + subject % 2]
            if has[subject, 2] else [],
        }  # fmt: skip
        same = alike and split == "tuning"
        ill = float(sick[subject]) * (not same)
        longer = [0.0 if same else float(int(ill) + hour % 2) for hour in range(hours[subject] + 1)]
        rows.append(_row(known, DEATH, ASKED_AT, [ill], [True]))
        rows.append(_row(known, FINDINGS, 12, [ill, 0.0], [True, bool(subject % 3)]))
        for hour in range(4, hours[subject] + 1):
            rows.append(_row(known, STAY, hour, [longer[hour]], [True]))
    rows.sort(key=lambda row: row["task"])
    table = pa.Table.from_pylist(rows, schema=samples_schema([]))
    pq.write_table(table, path / "samples.parquet", row_group_size=50)
    _write_manifest(path)
    return Store(path)


def _row(known: dict[str, Any], info: TaskInfo, hour: int, label: Any, mask: Any) -> dict[str, Any]:
    time = np.datetime64("2150-01-01", "us") + np.timedelta64(hour, "h")
    return known | {
        "sample_id": f"{info.name}/{known['stay_id']}/{hour}", "task": info.name,
        "prediction_time": time.item(), "hours": float(hour), "series_hours": float(hour),
        "label": label, "label_mask": mask,
    }  # fmt: skip


def _write_events(path: Path, random: np.random.Generator, sick: Any) -> list[int]:
    """Ten values of a stay's first ten hours; the sick have a faster pulse."""
    seconds = np.sort(random.integers(0, 36_000, (len(sick), 10)), axis=1)
    variable = random.integers(0, 3, seconds.shape)
    value = np.where(
        variable == 2, random.integers(0, 2, seconds.shape), 90 + 20 * sick[:, None] + 5 * variable
    )
    arrays = {"seconds": seconds, "available": seconds, "variable": variable, "value": value}
    (path / "events").mkdir()
    for name, kind in EVENT_ARRAYS.items():
        np.save(path / "events" / f"{name}.npy", arrays[name].ravel().astype(kind))
    return list(range(0, seconds.size + 1, 10))


def _write_notes(path: Path, random: np.random.Generator, sick: Any) -> None:
    folder = path / "embeddings" / "invented"
    folder.mkdir(parents=True)
    length = random.integers(1, 5, len(sick))
    stops = np.cumsum(length)
    np.save(folder / "spans.npy", np.stack([stops - length, stops], 1))
    tokens = random.normal(size=(stops[-1], WIDTH)) + np.repeat(sick, length)[:, None]
    np.save(folder / "tokens.npy", tokens.astype(np.float16))


def _write_manifest(path: Path) -> None:
    variables = variable_set(VARIABLES, "the test's variables")
    columns = list(variables.columns())
    settings = {"variables": variables.to_dict(), "columns": columns}
    modalities = [
        ModalityInfo("series", "time_series", len(columns), settings),
        ModalityInfo("film", "image", SIDE, {}),
        ModalityInfo("note", "text", WIDTH, {"encoder": "invented"}),
    ]
    manifest = {
        "artefact": "store",
        "schema_version": STORE_VERSION,
        "source": "invented",
        "preset": "corrected",
        "settings": {},
        "source_files": {},
        "tasks": task_table({info.name: info for info in (DEATH, STAY, FINDINGS)}),
        "variables": list(variables.names),
        "modalities": modality_table({info.name: info for info in modalities}),
        "scaling": {
            "series": {"center": [100.0, 100.0, 0.0], "scale": [10.0, 10.0, 1.0]},
            "film": {"mean": 0.4, "sd": 0.2},
        },
        "content": {"samples.parquet": sha256(path / "samples.parquet")},
    }
    write_json(path / "manifest.json", manifest)
