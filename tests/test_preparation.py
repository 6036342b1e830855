"""Raw tables -> store: the counts on real rows, and what must not change a store."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flexcare.preparation as preparing
import flexcare.sources.events as events
from flexcare.cohort.samples import GROUPS
from flexcare.errors import UserError
from flexcare.files import read_json
from flexcare.preparation import prepare
from flexcare.presets import PRESETS, read_preset
from flexcare.store import Store, samples_schema
from hospital import Hospital, put
from prepared import Make, everything, prepare_there, quiet

TASKS = "in_hospital_mortality,decompensation,length_of_stay,readmission,phenotyping"


@pytest.fixture(scope="session")
def demo(open_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Prepares the MIMIC-IV demo with a preset and settings."""
    folder, count = tmp_path_factory.mktemp("demo"), iter(range(100))

    def made(preset: str, tasks: str = TASKS, **settings: Any) -> Store:
        out = folder / f"store{next(count)}"
        prepare("mimic-iv", open_data / "mimic_iv_demo", out, preset=preset, tasks=tasks,
                ed=open_data / "mimic_iv_ed_demo", settings=settings, say=quiet)  # fmt: skip
        return Store(out)

    return made


def counted(store: Store) -> dict[str, tuple[int, int]]:
    """Samples and positive ones of each task (of classes and labels: of the first)."""
    rows = store.samples.to_pylist()
    total = Counter(row["task"] for row in rows)
    positive = Counter(row["task"] for row in rows if row["label"][0] == 1)
    return {task: (total[task], positive[task]) for task in total}


def test_the_demo_has_the_counts_of_the_specification(demo: Any) -> None:
    store = demo("paper", hours="every")
    found = counted(store)
    assert found["in_hospital_mortality"] == (54, 5)
    assert found["decompensation"] == (8688, 80)
    assert found["length_of_stay"][0] == 8710
    assert found["readmission"] == (108, 14)
    assert found["phenotyping"][0] == 112
    rows = store.samples.to_pylist()
    keys = [(r["task"], r["stay_id"], r["hours"]) for r in rows]
    assert len(set(keys)) == len(keys)
    assert len({r["sample_id"] for r in rows}) == len(rows)


def test_by_the_flag_more_demo_patients_die(demo: Any) -> None:
    found = counted(demo("paper", hours="every", hospital_death="flag"))
    assert found["in_hospital_mortality"] == (54, 9)
    assert found["decompensation"] == (8688, 152)


def test_the_paper_keeps_one_hour_a_stay(demo: Any) -> None:
    store = demo("paper")
    for task in ("decompensation", "length_of_stay"):
        stays = [r["stay_id"] for r in store.samples.to_pylist() if r["task"] == task]
        assert len(stays) == len(set(stays)) > 100


# What `corrected` does otherwise, and what each step leaves of the paper's counts on the demo.
STEPS: list[tuple[dict[str, Any], dict[str, tuple[int, int | None]]]] = [
    ({"hours": "every"}, {"decompensation": (8688, 80), "length_of_stay": (8710, None)}),
    ({"hospital_death": "flag"}, {"in_hospital_mortality": (54, 9), "decompensation": (8688, 152)}),
    ({"stay_after_death": False}, {"length_of_stay": (8688, None)}),
    ({"one_stay_first": True}, {"phenotyping": (110, None), "in_hospital_mortality": (53, 8)}),
    ({"age": "at_icu_admission"}, {"phenotyping": (110, None)}),
    ({"icu_death_date": "date"}, {}),
    ({"returns": "all"}, {}),
    ({"note": "available", "films_of_minors": False}, {}),
]


def test_corrected_differs_from_paper_only_where_the_specification_says(demo: Any) -> None:
    paper, corrected = (read_preset(name)["preparation"] for name in ("paper", "corrected"))
    assert corrected == {}
    changed: dict[str, Any] = {}
    for step, counts in STEPS:
        changed |= step
        found = counted(demo("paper", **changed)) if counts else {}
        for task, (samples, positive) in counts.items():
            assert found[task][0] == samples
            assert positive is None or found[task][1] == positive
    assert set(changed) == set(paper)
    last, ours = demo("paper", **changed), demo("corrected")
    assert last.manifest["content"] == ours.manifest["content"]
    assert last.manifest["settings"] == ours.manifest["settings"]


def test_the_demo_in_the_authors_columns(demo: Any) -> None:
    said: list[str] = []
    store = demo("authors")
    assert store.modalities["series"].width == 76
    names = list(store.modalities["series"].settings["variables"])
    scale = dict(zip(names, store.manifest["scaling"]["series"]["scale"], strict=True))
    assert (scale["oxygen_saturation"], scale["glucose"]) == (5135, 1767)
    assert said == []


def test_complaints_of_the_demo_are_available_at_the_emergency_visit(demo: Any) -> None:
    store = demo("corrected")
    rows = store.samples.to_pylist()
    texts = store.texts.to_pylist()
    used = [(row, texts[i]) for row in rows for i in row["text_rows"]]
    assert len({text["document_id"] for _, text in used}) > 50
    for row, text in used:
        assert text["kind"] == "chief_complaint"
        assert text["subject_id"] == row["subject_id"]
        assert text["available_at"] <= row["prediction_time"]


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_store_written_twice_is_the_same_to_the_byte(tmp_path: Path, preset: str) -> None:
    folder = everything(4).write(tmp_path / "h")
    stores = [content(prepare_there(folder, tmp_path / name, preset).path) for name in "ab"]
    assert stores[0] == stores[1]
    assert len(stores[0]) == 13


@pytest.mark.parametrize("clock", ["charttime", "storetime"])
def test_the_order_of_raw_rows_does_not_matter(make: Make, clock: str) -> None:
    hospital = everything(4)
    first = make(hospital, clock=clock)
    generator = np.random.default_rng(0)
    for rows in hospital.tables.values():
        generator.shuffle(rows)  # type: ignore[arg-type]
    second = make(hospital, clock=clock)
    assert first.manifest["content"] == second.manifest["content"]


@pytest.mark.parametrize("clock", ["charttime", "storetime"])
def test_work_in_small_pieces_gives_the_same_store(
    make: Make, monkeypatch: pytest.MonkeyPatch, clock: str
) -> None:
    whole = make(everything(6), clock=clock)
    monkeypatch.setattr(preparing, "PIECE", 7)
    monkeypatch.setattr(events, "SORTED", 5)
    pieces = make(everything(6), clock=clock)
    assert pieces.samples.equals(whole.samples)
    assert pieces.samples.schema == samples_schema(list(GROUPS))
    other = {n: h for n, h in whole.manifest["content"].items() if n != "samples.parquet"}
    assert other.items() <= pieces.manifest["content"].items()


def test_more_patients_change_nothing_for_the_others(make: Make) -> None:
    few, many = make(everything(3)), make(everything(8))
    rows = {r["sample_id"]: r for r in many.samples.to_pylist()}
    places = ("series_first", "series_stop", "film_row", "text_rows")
    for row in few.samples.to_pylist():
        other = rows[row["sample_id"]]
        assert {k: v for k, v in row.items() if k not in places} == {
            k: v for k, v in other.items() if k not in places
        }


def test_a_new_task_recomputes_nothing_of_the_others(make: Make) -> None:
    few, many = make(everything(3), tasks="phenotyping"), make(everything(3))
    for name in few.manifest["content"]:
        if name.startswith("events/"):
            assert few.manifest["content"][name] == many.manifest["content"][name]
    rows = {r["sample_id"] for r in many.samples.to_pylist()}
    assert {r["sample_id"] for r in few.samples.to_pylist()} <= rows


def test_steps_and_warnings_are_said(tmp_path: Path) -> None:
    said: list[str] = []
    folder = everything(2).write(tmp_path / "h")
    prepare("mimic-iv", folder, tmp_path / "s", preset="authors", say=said.append)
    assert said[0].startswith("warning: preset authors repeats known faults")
    assert any(line.startswith("phenotyping: 2 samples") for line in said)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_a_set_of_ordinary_options(preset: str) -> None:
    from flexcare.config import Preparation, check

    table = read_preset(preset)
    assert set(table) <= {"preparation", "training", "warning"}
    check(Preparation, table["preparation"], preset)


def test_films_that_are_absent_or_unreadable_are_counted(make: Make) -> None:
    hospital = Hospital()
    stay = hospital.patient(1)
    hospital.chart(stay, 1, 220045, 80)
    for study, name in enumerate(("good", "absent", "broken", "cut"), start=1):
        hospital.film(1, study, 10 + study, name, Edema="1.0")
    paths = {path.rsplit("/", 1)[1]: path for path in hospital.films}
    del hospital.films[paths["absent.jpg"]]
    hospital.films[paths["broken.jpg"]] = b"no film"
    hospital.films[paths["cut.jpg"]] = hospital.films[paths["cut.jpg"]][:400]
    store = make(hospital, tasks="diagnosis,in_hospital_mortality")
    assert store.manifest["dropped"] == {
        "films listed but absent": 1, "films that cannot be decoded": 2,
    }  # fmt: skip
    rows = {r["sample_id"]: r["has_film"] for r in store.samples.to_pylist()}
    assert rows == {"in_hospital_mortality/100": False, "diagnosis/1": True}
    assert store.films.shape == (1, 28, 28)


def test_a_folder_of_notes_may_be_given_from_above_or_within(tmp_path: Path) -> None:
    folder = everything(2).write(tmp_path / "h")
    options: dict[str, Any] = {"tasks": "phenotyping", "say": quiet}
    for number, note in enumerate((folder, folder / "note")):
        prepare("mimic-iv", folder, tmp_path / f"s{number}", note=note, **options)
    one, two = (read_json(tmp_path / f"s{n}" / "manifest.json", "") for n in (0, 1))
    assert one == two
    assert "note" in one["modalities"]


def test_a_store_in_the_way_is_left_alone(tmp_path: Path) -> None:
    put(tmp_path / "s" / "mine.txt", b"mine")
    with pytest.raises(UserError, match="exists already"):
        prepare_there(everything(1).write(tmp_path / "h"), tmp_path / "s")
    assert (tmp_path / "s" / "mine.txt").read_bytes() == b"mine"
