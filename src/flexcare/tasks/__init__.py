"""WHAT is asked: one small TOML a task, of the package or of the user, or a MEDS label file."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from flexcare.config import Section, check, read_toml
from flexcare.errors import UserError, missing_column, unknown
from flexcare.schema import Kind

STANDARD = (
    "in_hospital_mortality",
    "decompensation",
    "length_of_stay",
    "phenotyping",
    "readmission",
    "diagnosis",
    "drg",
)
METRIC_OF_KIND = {
    "binary": "average_precision",
    "multilabel": "macro_average_precision",
    "multiclass": "macro_f1",
}


class Task(Section):
    """A question, when it is asked, and the rule that answers it.

    Attributes:
        ask: "icu_admission + 48h", "every hour after 4h", "icu_discharge", "hospital_discharge",
            "film" or "answers" (cohort.asks), or "labels" for a MEDS label file.
        label: `rule` (a name of cohort.labels.RULES) and its parameters.
        classes: names of the outputs; empty: the rule finds them in the training split.
        observed: only asked once something was observed in the stay.
        own_section: the note is this section of the admission's own discharge summary.
    """

    name: str
    question: str
    kind: Kind
    ask: str
    label: dict[str, Any]
    classes: tuple[str, ...] = ()
    metric: str = ""
    weight: float = 1.0
    observed: bool = False
    adults: bool = False
    own_section: str = ""

    @property
    def primary_metric(self) -> str:
        return self.metric or METRIC_OF_KIND[self.kind]


def load_task(name: str) -> Task:
    """A task by its name in the package, the path of a TOML file, or of a MEDS label file.

    Raises:
        UserError: no such name or file, or the file cannot be used.
    """
    path = Path(name)
    if path.suffix == ".toml":
        return check(Task, {"name": path.stem} | read_toml(path), path.name)
    if path.suffix == ".parquet":
        return _of_labels(path)
    known = [
        one.name.removesuffix(".toml")
        for one in files("flexcare.tasks").iterdir()
        if one.name.endswith(".toml")
    ]
    if name not in known:
        raise unknown("task", name, known, "A path of a .toml or a MEDS .parquet works too.")
    resource = files("flexcare.tasks") / f"{name}.toml"
    return check(Task, {"name": name} | read_toml(Path(str(resource))), f"task {name}")


def load_tasks(names: str | Sequence[str] | None) -> list[Task]:
    """The tasks of a list, or of a text with commas; None gives the seven of the package."""
    parts = names.split(",") if isinstance(names, str) else names
    chosen = STANDARD if parts is None else [part.strip() for part in parts if part.strip()]
    if not chosen:
        raise UserError("no tasks given", expected="at least one name, or nothing at all")
    tasks = [load_task(name) for name in chosen]
    twice = {task.name for task in tasks if sum(t.name == task.name for t in tasks) > 1}
    if twice:
        raise UserError(
            "a task is asked for twice", found=", ".join(sorted(twice)), expected="each name once"
        )
    return tasks


def _of_labels(path: Path) -> Task:
    """The task that a MEDS label file poses; its kind by the first value column that is filled."""
    kinds: dict[str, Literal["binary", "multiclass"]] = {
        "boolean_value": "binary",
        "integer_value": "multiclass",
        "categorical_value": "multiclass",
    }
    if not path.is_file():
        raise UserError(f"no file {path}", expected="a MEDS label file (parquet)")
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid):
        raise UserError(
            f"{path.name} cannot be read",
            found="no Parquet file, or a damaged one",
            expected="a MEDS label file (parquet)",
        ) from None
    for column in ("subject_id", "prediction_time"):
        if column not in table.column_names:
            raise missing_column(path.name, column, table.column_names)
    if not pa.types.is_integer(table["subject_id"].type):
        raise UserError(
            f"{path.name}: subject_id is no whole number",
            found=str(table["subject_id"].type),
            expected="int64 (MEDS)",
        )
    for column, kind in kinds.items():
        if column in table.column_names and table[column].null_count < len(table):
            return Task(
                name=path.stem,
                question=f"labels of {path.name}",
                kind=kind,
                ask="labels",
                label={"rule": "meds_labels", "file": str(path), "column": column},
                classes=("true",) if kind == "binary" else (),
            )
    raise UserError(
        f"{path.name} has no labels",
        found=", ".join(table.column_names),
        expected="a filled column of " + ", ".join(kinds),
    )
