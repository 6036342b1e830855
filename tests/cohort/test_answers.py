"""Answers that a data set states itself: rule `answer`, ask "answers", and rule `stay_longer`."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from flexcare.errors import UserError
from flexcare.schema import SPLITS
from flexcare.sources.mimic_iv import MimicIV
from flexcare.sources.tables import ANSWERS, tidy
from flexcare.store import Store
from flexcare.training.schedules import one_hour
from hospital import HEART_RATE, Hospital
from prepared import Make, answers

Row = tuple[int, str, float | None, float | None]


@pytest.fixture
def told(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Prepares five patients of ten days (stays 100, 200, ...) of whom the source says `rows`."""

    def prepared(rows: list[Row], task: str, **settings: Any) -> Store:
        hospital = Hospital()
        for subject in range(1, 6):
            hospital.chart(hospital.patient(subject, days=10), 1, HEART_RATE, 80)
        columns = zip(*rows, strict=True)
        names = ("stay_id", "name", "hours", "value")
        table = tidy(ANSWERS, **dict(zip(names, columns, strict=True)))
        monkeypatch.setattr(MimicIV, "answers", lambda source: table)
        (tmp_path / "mine.toml").write_text('question = "?"\n' + task)
        return make(hospital, tasks=str(tmp_path / "mine.toml"), **settings)

    return prepared


BINARY = 'kind = "binary"\nclasses = ["yes"]\nask = "icu_admission + 24h"\n'
ONE = BINARY + 'label = { rule = "answer", name = "ill" }\n'
HOURLY = ONE.replace("icu_admission + 24h", "answers")


def test_an_answer_of_the_stay_is_asked_when_the_task_says(told: Any) -> None:
    rows: list[Row] = [(100, "ill", None, 1), (200, "ill", None, 0), (300, "ill", None, None)]
    rows += [(100, "other", None, 0), (400, "ill", 24, 1), (999, "ill", None, 1)]
    store = told(rows, ONE)
    assert answers(store, "mine") == {"100": 1, "200": 0}  # unknown, hourly and absent: left out
    assert not store.tasks["mine"].hourly
    reasons = {s["reason"]: s["left_out"] for s in store.manifest["cohort_flow"]}
    assert reasons["answer unknown"] == 3


def test_answers_with_hours_are_asked_then_and_there(told: Any) -> None:
    rows: list[Row] = [(200, "ill", 7, 1), (100, "ill", 5, 0), (100, "ill", 4.5, 1)]
    rows += [(100, "ill", None, 1), (100, "other", 3, 1), (300, "ill", 9, None)]
    store = told(rows, HOURLY)
    assert answers(store, "mine") == {"100/4.5": 1, "100/5": 0, "200/7": 1}
    assert store.samples["hours"].to_pylist() == [4.5, 5, 7]
    hours = [row["series_hours"] for row in store.samples.to_pylist()]
    assert hours == [4.5, 5, 7]  # and nothing later is seen


def test_an_epoch_has_one_answered_hour_of_each_stay_and_later_another(told: Any) -> None:
    rows: list[Row] = [(stay, "ill", hour, 0) for stay in (100, 200) for hour in range(2, 30)]
    store = told(rows, HOURLY)
    assert store.tasks["mine"].hourly
    assert len(set(store.samples["sample_id"].to_pylist())) == len(rows)
    every = pa.array(range(len(rows))).to_numpy()
    drawn = [one_hour(store, every, 0, epoch).tolist() for epoch in range(5)]
    assert all(len(epoch) == 2 for epoch in drawn)
    assert len({tuple(epoch) for epoch in drawn}) > 1
    assert len(told(rows, HOURLY, hours="one").samples) == 2


def test_several_names_make_labels_masked_where_unknown(told: Any) -> None:
    task = BINARY.replace("binary", "multilabel").replace('"yes"', '"a", "b"')
    task += 'label = { rule = "answer", names = ["ill", "other"] }\n'
    rows: list[Row] = [(100, "ill", None, 1), (200, "other", None, 0), (200, "ill", None, None)]
    rows += [(300, "other", None, 1), (300, "ill", None, 0)]
    found = answers(told(rows, task), "mine")
    assert found == {"100": [1, None], "200": [None, 0], "300": [0, 1]}
    hourly = task.replace("icu_admission + 24h", "answers")
    rows = [(100, "ill", 2, 1), (100, "other", 3, 1), (100, "ill", 3, 0), (200, "other", 5, None)]
    store = told(rows, hourly)
    assert answers(store, "mine") == {"100/2": [1, None], "100/3": [0, 1]}
    assert len(store.samples) == 2  # both names at one hour are one question


def test_edges_make_classes_of_a_number(told: Any) -> None:
    task = ONE.replace("binary", "multiclass").replace('"yes"', '"a", "b", "c"')
    rows: list[Row] = [(100 * n, "ill", None, v) for n, v in enumerate((0.5, 1, 6.9, 7, -3), 1)]
    found = answers(told(rows, task.replace('"ill"', '"ill", edges = [1, 7]')), "mine")
    assert found == {"100": 0, "200": 1, "300": 1, "400": 2, "500": 0}


@pytest.mark.parametrize(("rows", "word"), [
    ([(100, "ill", None, 2)], "no class"),
    ([(100, "ill", None, 0.5)], "no class"),
    ([(100, "ill", None, 1), (100, "ill", None, 1)], "given twice"),
])  # fmt: skip
def test_answers_that_cannot_be_used_are_refused(told: Any, rows: list[Row], word: str) -> None:
    with pytest.raises(UserError, match=word):
        told(rows, ONE)


def test_a_rule_without_a_name_is_refused(told: Any) -> None:
    with pytest.raises(UserError, match="lacks a parameter"):
        told([(100, "ill", None, 1)], BINARY + 'label = { rule = "answer" }\n')


def test_stay_longer_counts_the_whole_stay(make: Make, tmp_path: Path) -> None:
    hospital = Hospital()
    for subject, days in enumerate((0.5, 1, 3, 3.1), start=1):
        hospital.chart(hospital.patient(subject, days=days), 0.1, HEART_RATE, 80)
    path = tmp_path / "long.toml"
    path.write_text(f'question = "?"\n{BINARY}label = {{ rule = "stay_longer", days = 3 }}\n')
    assert answers(make(hospital, tasks=str(path)), "long") == {"200": 0, "300": 0, "400": 1}


def test_a_source_that_does_not_know_deaths_is_not_asked_about_them(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown is not alive."""
    admissions = MimicIV.admissions

    def unknown(source: MimicIV) -> pa.Table:
        table = admissions(source)
        place = table.column_names.index("died")
        return table.set_column(place, "died", pa.nulls(len(table), pa.bool_()))

    monkeypatch.setattr(MimicIV, "admissions", unknown)
    hospital = Hospital()
    hospital.chart(hospital.patient(1), 1, HEART_RATE, 80)
    for task in ("in_hospital_mortality", "decompensation", "readmission"):
        with pytest.raises(UserError, match="does not say who died"):
            make(hospital, tasks=task)


def test_those_whom_the_source_sets_apart_are_held_out(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospital = Hospital()
    for subject in range(1, 41):
        hospital.patient(subject, death=48)
    subjects = MimicIV.subjects

    def told(source: MimicIV) -> pa.Table:
        source.held_out = frozenset({2, 3, 77})
        return subjects(source)

    monkeypatch.setattr(MimicIV, "subjects", told)
    store = make(hospital, tasks="phenotyping")
    split = dict(zip(*(store.samples[n].to_pylist() for n in ("subject_id", "split")), strict=True))
    assert {subject for subject, name in split.items() if name == "held_out"} == {2, 3}
    assert set(split.values()) == set(SPLITS)
    assert store.manifest["splits"]["held_out"] == "the data set"
    with pytest.raises(UserError, match="no folds"):
        make(hospital, tasks="phenotyping", folds=5)
