"""The predictions table: one row a sample and model, in the form of MEDS label files.

`predicted_boolean_value` and `predicted_boolean_probability` are the columns that meds-evaluation
reads; it knows binary tasks only, so the other kinds carry columns of our own beside them
(`flexcare.schema.PREDICTIONS`). Every model of a run, baselines too, writes this table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flexcare.errors import UserError
from flexcare.evaluation.metrics import Answers, Bools, Floats
from flexcare.files import whole
from flexcare.schema import PREDICTIONS, TaskInfo

Texts = npt.NDArray[np.object_]
THRESHOLD = 0.5  # of predicted_boolean_value
NOT_RECORDED = "not recorded"


def predictions_table(
    samples: pa.Table,
    info: TaskInfo,
    probabilities: npt.NDArray[Any],
    model: str,
    modalities: list[str],
    subgroups: list[dict[str, str]],
) -> pa.Table:
    """One task's predictions by one model.

    Args:
        samples: N rows of the store's samples table (`schema.SAMPLES`), all of this task.
        probabilities: (N, outputs) of 0..1: sigmoid, or softmax of a multiclass task.
        modalities: N texts: those present, sorted and joined by "+"; "none" if none.
        subgroups: N tables such as {"age_band": "65-79", "sex": "F"}.

    Raises:
        UserError: probabilities that are missing, not finite or outside 0..1.
        ValueError: lengths that do not fit.
    """
    probabilities = np.asarray(probabilities)
    if probabilities.shape != (samples.num_rows, info.outputs):
        raise ValueError(f"{info.name}: {samples.num_rows} samples, {probabilities.shape}")
    if len(modalities) != samples.num_rows or len(subgroups) != samples.num_rows:
        raise ValueError(f"{info.name}: {len(modalities)} combinations, {len(subgroups)} subgroups")
    columns: dict[str, Any] = {name: samples[name] for name in _COPIED}
    columns |= _answers_as_meds(samples, info, probabilities)
    columns["model"] = pa.repeat(pa.scalar(model), samples.num_rows)
    columns["probabilities"] = _lists(probabilities)
    columns["modalities"] = pa.array(modalities, pa.string())
    columns["subgroups"] = pa.array([list(group.items()) for group in subgroups], _GROUPS)
    arrays = [columns.get(name) for name in PREDICTIONS.names]
    absent = [pa.nulls(samples.num_rows, field.type) for field in PREDICTIONS]
    filled = [b if a is None else a for a, b in zip(arrays, absent, strict=True)]
    table = pa.Table.from_arrays(filled, names=PREDICTIONS.names).cast(PREDICTIONS)
    return validate(table, f"predictions of {model}")


_COPIED = (
    "subject_id",
    "prediction_time",
    "sample_id",
    "task",
    "split",
    "hours",
    "label",
    "label_mask",
)
_GROUPS = PREDICTIONS.field("subgroups").type


def _lists(values: npt.NDArray[Any]) -> pa.ListArray:
    offsets = pa.array(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1])
    return pa.ListArray.from_arrays(offsets, pa.array(values.astype(np.float32).ravel()))


def _answers_as_meds(
    samples: pa.Table, info: TaskInfo, probabilities: npt.NDArray[Any]
) -> dict[str, Any]:
    """The columns that belong to one kind of task; a masked label is null."""
    if info.kind == "multilabel":
        return {}
    label, mask = (
        _matrix(samples["label"], 1, info.name),
        _matrix(samples["label_mask"], 1, info.name),
    )
    known, value = mask[:, 0].astype(bool), np.nan_to_num(label[:, 0])
    if info.kind == "binary":
        return {
            "boolean_value": pa.array(value > 0, mask=~known),
            "predicted_boolean_value": pa.array(probabilities[:, 0] >= THRESHOLD),
            "predicted_boolean_probability": pa.array(probabilities[:, 0].astype(np.float32)),
        }
    number = value.astype(np.int64)
    if (number[known] >= info.outputs).any() or (number[known] < 0).any():
        raise ValueError(f"{info.name}: a class number beyond its {info.outputs} classes")
    names = np.array(info.classes, object)[np.where(known, number, 0)]
    return {
        "integer_value": pa.array(number, mask=~known),
        "categorical_value": pa.array(names, pa.string(), mask=~known),
    }


def _matrix(lists: Any, width: int, task: str) -> Floats:
    """(N, width) of a column of lists; null entries become NaN."""
    if len(lists) and set(pc.unique(pc.list_value_length(lists)).to_pylist()) != {width}:
        raise UserError(
            f"predictions of task {task} do not fit the task",
            found=f"lists of {pc.unique(pc.list_value_length(lists)).to_pylist()} numbers",
            expected=f"{width} in every row",
            do="Predict again with the bundle and the store that belong together.",
        )
    flat = pc.list_flatten(lists).cast(pa.float64())
    return np.asarray(flat.to_numpy(), np.float64).reshape(len(lists), width)


def validate(table: pa.Table, where: str) -> pa.Table:
    """The same table in the types of `PREDICTIONS`, or a `UserError` that calls it `where`."""
    missing = [name for name in PREDICTIONS.names if name not in table.column_names]
    if missing:
        raise UserError(
            f"{where} is not a predictions table",
            found=f"no column {', '.join(missing)}",
            expected="the columns of flexcare.schema.PREDICTIONS",
            do="Write it with flexcare.evaluation.predictions.write_predictions.",
        )
    table = table.select(PREDICTIONS.names)
    try:
        table = table.cast(PREDICTIONS)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        # Types alone: what arrow says of a cast repeats a cell, which may identify somebody.
        other = [one for one in table.schema if one.type != PREDICTIONS.field(one.name).type]
        raise UserError(
            f"{where} has a column of the wrong type",
            found=", ".join(f"{one.name}: {one.type}" for one in other),
            expected=", ".join(f"{o.name}: {PREDICTIONS.field(o.name).type}" for o in other),
        ) from None
    lists = table["probabilities"]
    flat = pc.list_flatten(lists)
    bad = pc.sum(
        pc.invert(pc.fill_null(pc.and_(pc.greater_equal(flat, 0), pc.less_equal(flat, 1)), False))
    )
    if lists.null_count or bad.as_py():
        raise UserError(
            f"{where} holds probabilities that are none",
            found=f"{(bad.as_py() or 0) + lists.null_count} missing, NaN or outside 0..1",
            expected="numbers from 0 to 1",
            do="The model diverged or the file is damaged: look at its training losses.",
        )
    keys = table.select(["task", "model", "sample_id"])
    repeated = table.num_rows - keys.group_by(keys.column_names).aggregate([]).num_rows
    if repeated:
        raise UserError(
            f"{where} answers the same sample twice",
            found=f"{repeated} repeated rows",
            expected="one row a sample, task and model",
        )
    return table


def averaged(tables: Sequence[pa.Table], model: str) -> pa.Table:
    """The mean of several models' probabilities for the same samples, under a name of its own.

    Raises:
        ValueError: other samples, or the same in another order.
    """
    first = tables[0]
    for other in tables[1:]:
        if not other["sample_id"].equals(first["sample_id"]):
            raise ValueError("models that answered different samples have no mean")
    lists = first["probabilities"].combine_chunks()
    flat = [pc.list_flatten(table["probabilities"]).to_numpy() for table in tables]
    mean = np.mean(flat, axis=0, dtype=np.float64).astype(np.float32)
    probabilities = pa.ListArray.from_arrays(lists.offsets, pa.array(mean))
    binary = pc.is_valid(first["predicted_boolean_probability"])
    chance = pc.if_else(binary, pc.list_element(probabilities, 0), None)
    columns = {
        "probabilities": probabilities,
        "predicted_boolean_probability": chance,
        "predicted_boolean_value": pc.greater_equal(chance, pa.scalar(THRESHOLD, pa.float32())),
        "model": pa.repeat(pa.scalar(model), len(first)),
    }
    arrays = [columns.get(name, first[name]) for name in PREDICTIONS.names]
    return pa.Table.from_arrays(arrays, schema=PREDICTIONS)


def write_predictions(path: Path, table: pa.Table) -> None:
    """Write a checked predictions table as Parquet, whole or not at all."""
    table = validate(table, str(path))
    with whole(path) as temporary:
        pq.write_table(table, temporary)


# What meds-evaluation reads: it refuses other columns, other kinds of tasks and unknown labels.
MEDS = (
    "subject_id",
    "prediction_time",
    "boolean_value",
    "predicted_boolean_value",
    "predicted_boolean_probability",
)


def write_meds(folder: Path, table: pa.Table) -> list[str]:
    """Write FOLDER/TASK.parquet for each binary task of one model's predictions: the labelled
    samples, with the columns of meds-evaluation's schema. Gives the names of the tasks."""
    labelled = table.filter(pc.is_valid(table["boolean_value"]))
    names = sorted(pc.unique(labelled["task"]).to_pylist())
    with whole(folder) as temporary:
        temporary.mkdir()
        for name in names:
            rows = labelled.filter(pc.equal(labelled["task"], name)).select(MEDS)
            pq.write_table(rows, temporary / f"{name}.parquet")
    return names


def read_predictions(path: Path) -> pa.Table:
    """Read and check one; a missing or foreign file is a `UserError`."""
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise UserError(f"no file {path}", expected="a predictions table (Parquet)") from None
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is not Parquet", found=str(error)) from None
    return validate(table, str(path))


@dataclass(frozen=True)
class Cases:
    """One task's labelled samples by one model, as arrays in the order of their names.

    Attributes:
        sample_ids: (N,) sorted.
        answers: labels, probabilities, subjects.
        modalities: (N,) the combination present.
        subgroups: by key, (N,) the group.
    """

    sample_ids: Texts
    answers: Answers
    modalities: Texts
    subgroups: dict[str, Texts]

    def rows(self, chosen: Any) -> "Cases":
        """The chosen samples (mask or row numbers)."""
        return Cases(
            self.sample_ids[chosen],
            self.answers.rows(chosen),
            self.modalities[chosen],
            {key: values[chosen] for key, values in self.subgroups.items()},
        )


def cases(table: pa.Table, info: TaskInfo) -> Cases:
    """The labelled samples of `info` in a predictions table of one model."""
    table = table.filter(pc.equal(table["task"], info.name)).sort_by("sample_id")
    width = 1 if info.kind == "multiclass" else info.outputs
    mask: Bools = _matrix(table["label_mask"], width, info.name) == 1
    labels = np.where(mask, _matrix(table["label"], width, info.name), 0)
    subjects = np.unique(table["subject_id"].to_numpy(), return_inverse=True)[1].astype(np.int64)
    probabilities = _matrix(table["probabilities"], info.outputs, info.name)
    return Cases(
        _texts(table["sample_id"]),
        Answers(labels, mask, probabilities, subjects),
        _texts(table["modalities"]),
        _groups(table["subgroups"]),
    ).rows(mask.any(1))


def _texts(values: Any) -> Texts:
    return np.asarray(pc.fill_null(values, NOT_RECORDED).to_numpy(), object)


def _groups(maps: Any) -> dict[str, Texts]:
    """A column of maps as one array a key."""
    out: dict[str, Texts] = {}
    start = 0
    for chunk in maps.chunks:
        rows = np.repeat(np.arange(len(chunk)), np.diff(chunk.offsets.to_numpy())) + start
        span = (
            slice(chunk.offsets[0].as_py(), chunk.offsets[-1].as_py()) if len(chunk) else slice(0)
        )
        keys = chunk.keys[span].to_numpy(zero_copy_only=False)
        items = chunk.items[span].fill_null(NOT_RECORDED).to_numpy(zero_copy_only=False)
        for key in dict.fromkeys(keys):
            values = out.setdefault(key, np.full(len(maps), NOT_RECORDED, object))
            values[rows[keys == key]] = items[keys == key]
        start += len(chunk)
    return out
