"""WHAT is asked: the seven tasks, a user's own file, a MEDS label file, and wrong ones."""

from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flexcare.cohort.asks import parse_ask
from flexcare.cohort.labels import RULES
from flexcare.errors import UserError
from flexcare.sources import DEFAULT_TASKS
from flexcare.tasks import STANDARD, load_task, load_tasks

OWN = 'question = "?"\nkind = "binary"\nask = "icu_discharge"\nlabel = { rule = "ccs" }\n'


def test_the_seven_tasks_are_those_of_the_specification() -> None:
    tasks = {task.name: task for task in load_tasks(None)}
    assert tuple(tasks) == STANDARD
    assert {
        name: (t.kind, len(t.classes), t.weight, t.primary_metric) for name, t in tasks.items()
    } == {
        "in_hospital_mortality": ("binary", 1, 0.2, "average_precision"),
        "decompensation": ("binary", 1, 0.2, "average_precision"),
        "length_of_stay": ("multiclass", 10, 0.5, "quadratic_kappa"),
        "phenotyping": ("multilabel", 25, 1.0, "macro_average_precision"),
        "readmission": ("binary", 1, 0.2, "average_precision"),
        "diagnosis": ("multilabel", 14, 0.2, "macro_average_precision"),
        "drg": ("multiclass", 0, 1.0, "macro_f1"),
    }
    assert {name: t.ask for name, t in tasks.items()} == {
        "in_hospital_mortality": "icu_admission + 48h",
        "decompensation": "every hour after 4h",
        "length_of_stay": "every hour after 4h",
        "phenotyping": "icu_discharge",
        "readmission": "icu_discharge",
        "diagnosis": "film",
        "drg": "hospital_discharge",
    }


@pytest.mark.parametrize("name", sorted({*STANDARD, *chain(*DEFAULT_TASKS.values())}))
def test_every_task_names_a_time_and_a_rule_that_exist(name: str) -> None:
    task = load_task(name)
    assert task.label["rule"] in RULES
    parse_ask(task.ask)
    assert task.question.endswith("?")


def test_tasks_are_chosen_by_name_in_the_order_given() -> None:
    assert [t.name for t in load_tasks("readmission, drg,")] == ["readmission", "drg"]


def test_a_task_of_ones_own_is_named_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(OWN)
    assert load_task(str(tmp_path / "mine.toml")).name == "mine"
    (tmp_path / "mine.toml").write_text('name = "other"\n' + OWN)
    assert load_task(str(tmp_path / "mine.toml")).name == "other"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour = 1\n" + OWN, "unknown setting in mine.toml: 'colour'"),
        (OWN.replace("binary", "trinary"), "kind = 'trinary'"),
        (OWN.replace('question = "?"\n', ""), "question"),
        ("question =", "is not TOML"),
    ],
)
def test_a_wrong_task_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UserError) as error:
        load_task(str(tmp_path / "mine.toml"))
    assert message in str(error.value)


def test_a_misspelt_task_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'decompensation'"):
        load_task("decompensaton")


def test_the_same_task_twice_is_refused() -> None:
    with pytest.raises(UserError, match="asked for twice"):
        load_tasks("drg,drg")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    for name in ("mine.toml", "mine.parquet"):
        with pytest.raises(UserError, match="no file"):
            load_task(str(tmp_path / name))


@pytest.mark.parametrize(
    ("column", "values", "kind"),
    [
        ("boolean_value", [True, None], "binary"),
        ("integer_value", [3, 4], "multiclass"),
        ("categorical_value", ["a", "b"], "multiclass"),
    ],
)
def test_the_kind_of_a_label_file_is_that_of_its_values(
    tmp_path: Path, column: str, values: list[object], kind: str
) -> None:
    table = {"subject_id": [1, 2], "prediction_time": [None, None], column: values}
    pq.write_table(pa.table(table), tmp_path / "sepsis.parquet")
    task = load_task(str(tmp_path / "sepsis.parquet"))
    assert (task.name, task.kind, task.label["column"]) == ("sepsis", kind, column)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"patient_id": [1], "prediction_time": [None]}, "has no column subject_id"),
        ({"subject_id": [1], "predict_time": [None]}, "Did you mean 'predict_time'"),
        ({"subject_id": [1], "prediction_time": [None], "float_value": [0.5]}, "has no labels"),
        ({"subject_id": [1], "prediction_time": [None], "boolean_value": [None]}, "has no labels"),
        ({"subject_id": ["a"], "prediction_time": [None], "boolean_value": [True]}, "whole number"),
    ],
)
def test_a_wrong_label_file_is_refused(
    tmp_path: Path, table: dict[str, list[object]], message: str
) -> None:
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=message):
        load_task(str(tmp_path / "x.parquet"))


def test_a_label_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("subject_id,prediction_time")
    with pytest.raises(UserError, match="cannot be read"):
        load_task(str(tmp_path / "x.parquet"))
