"""ACES task files (https://eventstreamaces.readthedocs.io): cohorts and labels of a MEDS dataset
described in YAML. The package es-aces finds them; what it finds becomes a MEDS label file."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flexcare.errors import UserError

ENDINGS = (".yaml", ".yml")
LABELS = {
    "subject_id": pa.int64(),
    "prediction_time": pa.timestamp("us"),
    "boolean_value": pa.bool_(),
}
# What ACES calls these columns.
NAMES = {"prediction_time": "index_timestamp", "boolean_value": "label"}


def asks_aces(names: str | Sequence[str] | None) -> bool:
    """Whether an ACES task file is among the tasks (a list, or a text with commas)."""
    return any(Path(name).suffix in ENDINGS for name in _listed(names))


def label_files(
    names: str | Sequence[str] | None, shards: Sequence[Path] | None, scratch: Path
) -> list[str]:
    """The tasks, with each ACES task file replaced by the label file that it gives.

    Args:
        shards: of a MEDS dataset; None: the source is none.
        scratch: a folder for the label files.

    Raises:
        UserError: no MEDS dataset, es-aces is not installed, a task file cannot be used, or nobody
            is in its cohort.
    """
    if shards is None:
        raise UserError(
            "ACES task files ask a MEDS dataset",
            found="another source",
            expected="flexcare prepare meds",
        )
    scratch.mkdir(exist_ok=True)
    return [
        str(_labels(Path(name), shards, scratch)) if Path(name).suffix in ENDINGS else name
        for name in _listed(names)
    ]


def _listed(names: str | Sequence[str] | None) -> list[str]:
    parts = names.split(",") if isinstance(names, str) else names or ()
    return [part.strip() for part in parts if part.strip()]


def _labels(path: Path, shards: Sequence[Path], scratch: Path) -> Path:
    """Write the label file of one task file."""
    if not path.is_file():
        raise UserError(f"no file {path}", expected="an ACES task file (.yaml)")
    extract = _extractor(path)
    labels = pa.concat_tables([extract(_with_numbers(shard, scratch)) for shard in shards])
    if not len(labels):
        raise UserError(
            f"{path.name} finds nobody in this dataset",
            found="no subject meets its criteria",
            expected="at least one",
            do="Compare the codes of its predicates with those of the dataset.",
        )
    out = scratch / f"{path.stem}.parquet"
    pq.write_table(labels, out)
    return out


def _with_numbers(shard: Path, scratch: Path) -> Path:
    """The shard, or a copy of an older one in which `value` is called numeric_value."""
    names = pq.read_schema(shard).names
    if "numeric_value" in names:
        return shard
    table = pq.read_table(shard)
    number = table["value"] if "value" in names else pa.nulls(len(table), pa.float32())
    copy = scratch / "older.parquet"
    pq.write_table(table.append_column("numeric_value", number), copy)
    return copy


def _extractor(path: Path) -> Callable[[Path], pa.Table]:
    """What gives the labels of one shard, in the columns of LABELS."""
    try:
        config, predicates, query = (
            importlib.import_module(f"aces.{name}") for name in ("config", "predicates", "query")
        )
        settings = importlib.import_module("omegaconf").DictConfig
    except ImportError:
        raise UserError(
            f"{path.name} is an ACES task file, and ACES is not installed",
            expected="the package es-aces",
            do="pip install 'flexcare[aces]'",
        ) from None

    def extract(shard: Path) -> pa.Table:
        try:
            task = config.TaskExtractorConfig.load(path)  # anew: a query changes it
            _check(path, task)
            where = settings({"path": str(shard), "standard": "meds", "ts_format": None})
            found = query.query(task, predicates.get_predicates_df(task, where))
        except UserError:
            raise
        except Exception as error:  # ACES raises many kinds for a wrong file
            raise _unusable(path, error) from None
        return _as_labels(found.to_arrow() if len(found) else None)

    return extract


def _check(path: Path, task: Any) -> None:
    """Refuse a task that says not what is asked, or not when."""
    windows = {"label": task.label_window, "index_timestamp": task.index_timestamp_window}
    missing = [name for name, window in windows.items() if not window]
    if missing:
        raise UserError(
            f"{path.name} is no question with an answer",
            found=f"no window with {' or '.join(missing)}",
            expected="one window with label, and one with index_timestamp (the prediction time)",
        )


def _as_labels(found: pa.Table | None) -> pa.Table:
    schema = pa.schema(list(LABELS.items()))
    if found is None:
        return schema.empty_table()
    columns: list[Any] = [found[NAMES.get(name, name)].cast(kind) for name, kind in LABELS.items()]
    return pa.table(columns, schema=schema)


def _unusable(path: Path, error: Exception) -> UserError:
    # The kind of the error and its first line, which names predicates and windows.
    said = str(error).strip().splitlines()
    return UserError(
        f"ACES cannot use {path.name}",
        found=f"{type(error).__name__}: {said[0] if said else ''}"[:300],
        expected="predicates, trigger and windows as ACES describes them",
        do="Try the file with `aces-cli`.",
    )
