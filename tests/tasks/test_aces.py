"""An ACES task file becomes a label file, or is refused with one clear error."""

import sys
from pathlib import Path

import pytest

from flexcare.errors import UserError
from flexcare.preparation import prepare
from meds_data import HEART_RATE, at, prepared, put, ward
from prepared import answers, quiet

QUESTION = """
predicates:
  icu: {code: {regex: "^ICU_ADMISSION//.*"}}
  left: {code: {regex: "^ICU_DISCHARGE//.*"}}
  fast: {code: "LAB//220045//bpm", value_min: 73.5}
trigger: icu
windows:
  input: {start: null, end: trigger + 24h, start_inclusive: true, end_inclusive: true,
          has: {left: "(None, 0)"}, index_timestamp: end}
  target: {start: input.end, end: start + 24h, start_inclusive: false, end_inclusive: true,
           label: fast}
"""


@pytest.fixture
def question(tmp_path: Path) -> Path:
    path = tmp_path / "fast.yaml"
    path.write_text(QUESTION)
    return path


@pytest.mark.parametrize("older", [False, True])
def test_a_task_file_asks_and_answers(question: Path, tmp_path: Path, older: bool) -> None:
    pytest.importorskip("aces")
    folder = ward(4).write(tmp_path / "d")
    if older:
        table = ward(4).table()
        names = ["value" if name == "numeric_value" else name for name in table.column_names]
        folder = put(tmp_path / "old", table.rename_columns(names))
    store = prepared(folder, tmp_path / "s", f"{question},phenotyping")
    assert list(store.tasks) == ["fast", "phenotyping"]
    # Rates are 70 + subject + hours / 10, over 73.5 on the second day from subject 1 on or not.
    assert list(answers(store, "fast").values()) == [1, 1, 1, 1]
    times = [r["prediction_time"] for r in store.samples.to_pylist() if r["task"] == "fast"]
    assert sorted(times) == [at(30.0 * n + 24) for n in range(1, 5)]


def test_answers_differ_with_the_values(question: Path, tmp_path: Path) -> None:
    pytest.importorskip("aces")
    data = ward(4)
    for row in data.rows:
        if row["subject_id"] == 2 and row["code"] == HEART_RATE:
            row["numeric_value"] = 60.0
    store = prepared(data.write(tmp_path / "d"), tmp_path / "s", str(question))
    by_subject = {r["subject_id"]: r["label"][0] for r in store.samples.to_pylist()}
    assert by_subject == {1: 1, 2: 0, 3: 1, 4: 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("trigger: icu", "trigger: nothing"), "ACES cannot use"),
        (("^ICU_ADMISSION", "^NOWHERE"), "finds nobody"),
        (("label: fast", 'has: {fast: "(0, None)"}'), "no window with label"),
        ((", index_timestamp: end", ""), "no window with index_timestamp"),
    ],
)
def test_a_wrong_task_file_is_refused(
    question: Path, tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    pytest.importorskip("aces")
    question.write_text(QUESTION.replace(*change))
    with pytest.raises(UserError, match=message):
        prepared(ward(4).write(tmp_path / "d"), tmp_path / "s", str(question))
    assert not (tmp_path / "s").exists()


def test_without_the_package_the_error_says_what_to_install(
    question: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("aces", "aces.config"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match="ACES is not installed") as caught:
        prepared(ward(2).write(tmp_path / "d"), tmp_path / "s", str(question))
    assert "flexcare[aces]" in caught.value.do
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "fast.yaml"]


def test_a_missing_task_file_and_another_source_are_refused(question: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file"):
        prepared(ward(2).write(tmp_path / "d"), tmp_path / "s", str(tmp_path / "none.yaml"))
    with pytest.raises(UserError, match="ask a MEDS dataset"):
        prepare("mimic-iv", tmp_path / "d", tmp_path / "s", tasks=str(question), say=quiet)
