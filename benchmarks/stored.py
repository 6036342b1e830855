"""A store of random stays of the paper's size with MIMIC's missingness, written in seconds."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from invented import OUTPUTS, SHARE, note_lengths

from flexcare.features.variables import read_variables
from flexcare.files import sha256, write_json
from flexcare.schema import STORE_VERSION, ModalityInfo, TaskInfo
from flexcare.store import EVENT_ARRAYS, Store, modality_table, samples_schema, task_table

HOURS, EVENTS, SIDE, WIDTH = 48, 480, 224, 768  # events of a stay: ten an hour
TEXTS = 1000  # that several stays share, to keep the folder small
METRIC = {"binary": "auroc", "multilabel": "macro_auroc", "multiclass": "accuracy"}


def write_store(
    path: Path, stays: int, tuning: int = 0, asked: Sequence[int] = (HOURS,), seed: int = 0
) -> Store:
    """Stays asked all seven tasks at the hours `asked`; the last `tuning` are of that split."""
    random = np.random.default_rng(seed)
    (path / "events").mkdir(parents=True)
    variables = read_variables(Path(str(files("flexcare.sources") / "mimic_iv_variables.toml")))
    columns, count = variables.columns(), len(variables.names)
    seconds = np.sort(random.integers(0, HOURS * 3600, (stays, EVENTS)), axis=1).ravel()
    value = {"variable": random.integers(0, count, seconds.size), "value": np.ones(seconds.size)}
    for name, kind in EVENT_ARRAYS.items():
        np.save(path / "events" / f"{name}.npy", value.get(name, seconds).astype(kind))
    films, notes = (random.random(stays) < SHARE[name] for name in ("film", "note"))
    np.save(path / "films.npy", random.integers(0, 256, (films.sum(), SIDE, SIDE), np.uint8))
    stops = np.cumsum(note_lengths(TEXTS, random))
    folder = path / "embeddings" / "random"
    folder.mkdir(parents=True)
    np.save(folder / "spans.npy", np.stack([np.append(0, stops[:-1]), stops], axis=1))
    np.save(folder / "tokens.npy", random.random((stops[-1], WIDTH), np.float32).astype("f2"))
    tables = [_samples(task, stays, tuning, asked, films, notes, random) for task in OUTPUTS]
    pq.write_table(pa.concat_tables(tables), path / "samples.parquet")
    infos = [TaskInfo(n, "?", kind, tuple(map(str, range(width))), METRIC[kind])
             for n, (kind, width) in OUTPUTS.items()]  # fmt: skip
    modalities = [
        ModalityInfo("series", "time_series", len(columns),
                     {"variables": variables.to_dict(), "columns": columns}),
        ModalityInfo("film", "image", SIDE, {}),
        ModalityInfo("note", "text", WIDTH, {"encoder": "random"}),
    ]  # fmt: skip
    manifest = {
        "artefact": "store", "schema_version": STORE_VERSION, "source": "random",
        "preset": "corrected", "settings": {}, "source_files": {},
        "tasks": task_table({info.name: info for info in infos}),
        "variables": list(variables.names),
        "modalities": modality_table({info.name: info for info in modalities}),
        "scaling": {"series": {"center": [0.0] * count, "scale": [1.0] * count},
                    "film": {"mean": 0.5, "sd": 0.3}},
        "content": {"samples.parquet": sha256(path / "samples.parquet")},
    }  # fmt: skip
    write_json(path / "manifest.json", manifest)
    return Store(path)


def _samples(
    task: str,
    stays: int,
    tuning: int,
    asked: Sequence[int],
    films: np.ndarray,
    notes: np.ndarray,
    random: np.random.Generator,
) -> pa.Table:
    """One task's samples: a row a stay and hour."""
    kind, outputs = OUTPUTS[task]
    number, hours = np.repeat(np.arange(stays), len(asked)), np.tile(asked, stays)
    film_rows = np.where(films, np.cumsum(films) - 1, -1)[number]
    films, notes, rows = films[number], notes[number], len(number)
    width = 1 if kind == "multiclass" else outputs
    labels = random.integers(0, outputs if kind == "multiclass" else 2, (rows, width))
    texts = pa.ListArray.from_arrays(np.append(0, np.cumsum(notes)), number[notes] % TEXTS)
    columns = {
        "sample_id": [f"{task}/{n}/{h}" for n, h in zip(number, hours, strict=True)],
        "task": pa.repeat(task, rows),
        "subject_id": number, "hadm_id": number, "stay_id": number,
        "prediction_time": (hours * np.timedelta64(1, "h")).astype("m8[us]").astype("M8[us]"),
        "hours": hours.astype(float), "series_hours": hours.astype(float),
        "label": list(labels.astype(np.float32)), "label_mask": list(np.ones_like(labels, bool)),
        "split": np.where(number < stays - tuning, "train", "tuning"),
        "series_first": number * EVENTS, "series_stop": (number + 1) * EVENTS,
        "film_row": film_rows, "text_rows": texts,
        "group:sex": np.where(number % 2, "F", "M"), "has_series": np.ones(rows, bool),
        "has_film": films, "has_note": notes,
    }  # fmt: skip
    schema = samples_schema(["sex"])
    return pa.table({name: columns[name] for name in schema.names}).cast(schema)
