"""Raw rows of every kind of modality -> events: numbers of codes, limits of time, counts."""

from pathlib import Path
from typing import Any

import pytest

from flexcare.errors import UserError
from flexcare.store import Store
from several import VARIABLES, Ward, WardSource, prepare_ward

TASK: dict[str, Any] = {"tasks": "in_hospital_mortality"}


def events_of(store: Store, subject: int) -> list[tuple[str, float, float, float]]:
    """(variable, value, hours, hours when visible) of a subject's stay, in the store's order."""
    row = next(r for r in store.samples.to_pylist() if r["subject_id"] == subject)
    out = []
    for i in range(row["series_first"], row["series_stop"]):
        event = {name: array[i].item() for name, array in store.events.items()}
        hours = event["seconds"] / 3600, event["available"] / 3600
        out.append((store.variables[event["variable"]], event["value"], *hours))
    return out


def full(patients: int = 12) -> Ward:
    one = Ward(patients=patients)
    for subject in range(1, patients + 1):
        one.add(subject, "hr", 80, 1)
        one.add(subject, "dx", f" {'bA'[subject % 2]} ", -5000)
    return one


def test_codes_are_numbered_in_their_order_and_spelling_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = full()
    for code in ("b", "B", "", "a"):
        one.add(1, "dx", code, 2)
    one.add(1, "rx", "b", 3)
    one.add(99, "dx", "of nobody here", 3)
    store = prepare_ward(one, tmp_path / "w", monkeypatch, **TASK)
    assert store.codes == {"diagnosis": ["A", "B", "a", "b"], "drug": ["b"]}
    drawn = sorted(events_of(store, 1))
    assert [e[:2] for e in drawn] == [
        ("diagnosis", 0), ("diagnosis", 1), ("diagnosis", 2), ("diagnosis", 3), ("drug", 0),
        ("heart_rate", 80),
    ]  # fmt: skip
    assert store.manifest["dropped"]["events without a usable value"] == 1
    assert store.manifest["dropped"]["events of no stay of the cohort"] == 1


def test_only_a_series_forgets_what_was_long_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = full()
    for item, value in (("hr", 70), ("age", 50), ("dx", "A"), ("slide", 7)):
        one.add(1, item, value, -24.5)
        one.add(1, item, value, 72.5)  # after the stay
    one.add(1, "weight", 80, -24 * 365 * 60)  # as long as a life
    one.add(1, "7", 2.5, -23.5, 5)
    store = prepare_ward(one, tmp_path / "w", monkeypatch, **TASK)
    assert events_of(store, 1) == [
        ("weight", 80, -24 * 365 * 60, -24 * 365 * 60), ("diagnosis", 0, -5000, -5000),
        ("age", 50, -24.5, -24.5), ("diagnosis", 0, -24.5, -24.5), ("slide", 7, -24.5, -24.5),
        ("lactate", 2.5, -23.5, 5), ("heart_rate", 80, 1, 1),
    ]  # fmt: skip
    assert store.manifest["dropped"]["events outside the stay"] == 5


def test_limits_and_categories_hold_for_static_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = full()
    for value in ("SURGICAL", "nowhere"):
        one.add(1, "unit", value, 0)
    one.add(1, "age", 200, 0)
    store = prepare_ward(one, tmp_path / "w", monkeypatch, **TASK)
    assert events_of(store, 1)[1:-1] == [("unit", 1, 0, 0)]
    assert store.manifest["dropped"]["events without a usable value"] == 1
    assert store.manifest["dropped"]["events outside the plausible range"] == 1


def test_codes_that_training_never_saw_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = full(30)
    for subject in range(1, 31):
        one.add(subject, "rx", f"own {subject}", 5)
    store = prepare_ward(one, tmp_path / "w", monkeypatch, **TASK)
    known = store.manifest["scaling"]["codes"]["codes"]
    rows = store.samples.to_pylist()
    training = {f"own {r['subject_id']}" for r in rows if r["split"] == "train"}
    assert set(known["drug"]) == training
    assert store.modalities["codes"].width == len(training) + 2
    reason = "codes: events of codes never seen in the training split"
    assert store.manifest["dropped"][reason] == 30 - len(training) > 0


@pytest.mark.parametrize(("broken", "told"), [("wide", "several widths"), ("nan", "not finite")])
def test_vectors_that_cannot_be_used_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, told: str
) -> None:
    events = WardSource.events

    def spoiled(self: WardSource, *given: Any) -> Any:
        yield from events(self, *given)
        if broken == "nan":
            self.vectors["slide"][3, 2] = float("nan")
        else:
            self.vectors["slide"] = self.vectors["slide"][:, :4]

    monkeypatch.setattr(WardSource, "events", spoiled)
    with pytest.raises(UserError, match=told):
        prepare_ward(full(), tmp_path / "w", monkeypatch, **TASK)
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["variables.toml"]


def test_what_a_store_has_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = full()
    for subject in range(1, 13):
        one.add(subject, "slide", subject, 3)
    first = prepare_ward(one, tmp_path / "w", monkeypatch, **TASK)

    def never(self: WardSource, *given: Any) -> Any:
        raise AssertionError("events are read again")

    monkeypatch.setattr(WardSource, "events", never)
    said: list[str] = []
    again = prepare_ward(one, tmp_path / "v", monkeypatch, VARIABLES, reuse=first.path,
                         say=said.append, **TASK)  # fmt: skip
    assert any(line.startswith("vitals, labs, static") and "taken from" in line for line in said)
    assert again.manifest["content"] == first.manifest["content"]
    assert again.manifest["scaling"] == first.manifest["scaling"]
    assert again.codes == first.codes
    assert (again.vectors("slide") == first.vectors("slide")).all()
