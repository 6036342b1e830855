"""The predictions table keeps to MEDS and refuses what cannot be judged."""

import datetime

import meds
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from flexcare.errors import UserError
from flexcare.evaluation.predictions import (
    cases,
    predictions_table,
    read_predictions,
    write_predictions,
)
from flexcare.schema import PREDICTIONS, SAMPLES, TaskInfo

INFOS = {
    "binary": TaskInfo("death", "Will it end badly?", "binary", ("death",), "average_precision"),
    "multiclass": TaskInfo("stay", "How long?", "multiclass", ("a", "b", "c"), "quadratic_kappa"),
    "multilabel": TaskInfo("codes", "Which?", "multilabel", ("x", "y"), "macro_average_precision"),
}
LABELS = {
    "binary": [[1.0], [0.0], [0.0]],
    "multiclass": [[2.0], [0.0], [0.0]],
    "multilabel": [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]],
}
MASKS = {
    "binary": [[True], [True], [False]],
    "multiclass": [[True], [True], [False]],
    "multilabel": [[True, False], [True, True], [False, False]],
}


def samples(kind):
    rows = [
        {
            "sample_id": f"s{i}",
            "task": INFOS[kind].name,
            "subject_id": 100 + i,
            "hadm_id": None,
            "stay_id": i,
            "prediction_time": datetime.datetime(2020, 1, 1),
            "hours": 48.0,
            "label": LABELS[kind][i],
            "label_mask": MASKS[kind][i],
            "split": "held_out",
        }
        for i in (2, 1, 0)
    ]
    return pa.Table.from_pylist(rows, schema=SAMPLES)


def table(kind, probabilities=None):
    if probabilities is None:
        outputs = INFOS[kind].outputs
        probabilities = np.linspace(0.1, 0.9, 3 * outputs).reshape(3, outputs)
    groups = [{"sex": "F", "age_band": "65-79"}, {}, {"age_band": "80+", "sex": "M"}]
    return predictions_table(
        samples(kind), INFOS[kind], probabilities, "network", ["film+note", "none", "note"], groups
    )


def test_label_columns_are_those_of_meds():
    label = meds.LabelSchema.schema()
    assert PREDICTIONS.names[: len(label.names)] == label.names
    for field in label:
        assert PREDICTIONS.field(field.name).type == field.type


@pytest.mark.parametrize(
    ("kind", "values"),
    [("binary", ["boolean_value"]), ("multiclass", ["integer_value", "categorical_value"])],
)
def test_labelled_rows_are_a_meds_label_file(kind, values):
    found = table(kind).filter(pc.is_valid(pc.field(values[0])))
    meds.LabelSchema.validate(found.select(["subject_id", "prediction_time", *values]))


def test_prediction_columns_are_those_of_meds_evaluation():
    found = table("binary")
    assert found["predicted_boolean_probability"].type == pa.float32()
    assert found["predicted_boolean_value"].to_pylist() == [False, True, True]
    assert found["boolean_value"].to_pylist() == [None, False, True]


def test_a_class_has_its_number_and_its_name_and_no_boolean():
    found = table("multiclass")
    assert found["integer_value"].to_pylist() == [None, 0, 2]
    assert found["categorical_value"].to_pylist() == [None, "a", "c"]
    assert found["predicted_boolean_probability"].null_count == 3


@pytest.mark.parametrize("kind", sorted(INFOS))
def test_written_then_read_is_the_same(kind, tmp_path):
    write_predictions(tmp_path / "p.parquet", table(kind))
    assert read_predictions(tmp_path / "p.parquet").equals(table(kind))


@pytest.mark.parametrize("kind", sorted(INFOS))
def test_cases_are_the_labelled_samples_in_order_of_their_names(kind):
    found = cases(table(kind), INFOS[kind])
    assert found.sample_ids.tolist() == ["s0", "s1"]
    np.testing.assert_array_equal(found.answers.mask, np.array(MASKS[kind])[:2])
    np.testing.assert_array_equal(
        found.answers.labels, np.where(MASKS[kind], LABELS[kind], 0.0)[:2]
    )
    assert found.modalities.tolist() == ["note", "none"]
    assert found.subgroups["sex"].tolist() == ["M", "not recorded"]
    assert found.subgroups["age_band"].tolist() == ["80+", "not recorded"]
    assert found.answers.subjects.tolist() == [0, 1]


def test_subgroups_survive_tables_put_together_and_cut():
    both = pa.concat_tables([table("multilabel"), table("binary")]).slice(1)
    found = cases(both, INFOS["binary"])
    assert found.subgroups["sex"].tolist() == ["M", "not recorded"]


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.1, np.inf])
def test_probabilities_that_are_none_are_refused(bad):
    with pytest.raises(UserError, match="1 missing, NaN or outside"):
        table("binary", np.array([[0.2], [bad], [0.3]]))


def test_a_column_that_is_not_there_is_named(tmp_path):
    pq.write_table(table("binary").drop_columns(["modalities"]), tmp_path / "p.parquet")
    with pytest.raises(UserError, match="no column modalities"):
        read_predictions(tmp_path / "p.parquet")


def test_the_same_sample_twice_is_refused(tmp_path):
    pq.write_table(pa.concat_tables([table("binary")] * 2), tmp_path / "p.parquet")
    with pytest.raises(UserError, match="3 repeated rows"):
        read_predictions(tmp_path / "p.parquet")


def test_no_file_and_foreign_file_are_explained(tmp_path):
    with pytest.raises(UserError, match="no file"):
        read_predictions(tmp_path / "none.parquet")
    (tmp_path / "p.parquet").write_text("hello")
    with pytest.raises(UserError, match="not Parquet"):
        read_predictions(tmp_path / "p.parquet")


def test_answers_of_another_task_are_refused():
    other = TaskInfo("death", "", "multilabel", ("a", "b"), "macro_auroc")
    with pytest.raises(UserError, match="do not fit the task"):
        cases(table("binary"), other)


def test_lengths_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="death"):
        table("binary", np.zeros((3, 2)))


def test_a_column_of_the_wrong_type_is_named_without_what_it_holds(tmp_path):
    found = table("binary")
    place = found.column_names.index("subject_id")
    names = pa.array(["Jane Roe"] * found.num_rows)
    with pytest.raises(UserError) as caught:
        write_predictions(tmp_path / "p.parquet", found.set_column(place, "subject_id", names))
    assert "subject_id: string" in str(caught.value)
    assert "subject_id: int64" in str(caught.value)
    assert "Jane" not in str(caught.value)
    assert not list(tmp_path.iterdir())
