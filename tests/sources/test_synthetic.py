"""The invented hospital is written as MIMIC-IV is, with its dirt, and always the same."""

import csv
import gzip
import os
import re
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from flexcare.errors import UserError
from flexcare.sources.synthetic import simulate, write
from flexcare.sources.synthetic.layout import COLUMNS
from flexcare.sources.synthetic.plan import draw_subject

SUBJECTS = 150
DEMO = Path(os.environ.get("FLEXCARE_OPEN_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    out = tmp_path_factory.mktemp("invented") / "hospital"
    simulate(out, SUBJECTS, seed=3)
    return out


@pytest.fixture(scope="module")
def charted(hospital):
    return read(hospital, "icu/chartevents")


def read(hospital, name):
    with gzip.open(hospital / f"{name}.csv.gz", "rt", newline="") as file:
        return list(csv.DictReader(file))


def when(text):
    return datetime.fromisoformat(text)


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def index_of(rows):
    """Rows of the index admissions: the second of the eight numbers a subject owns."""
    return [row for row in rows if int(row["hadm_id"]) % 8 == 1]


def test_same_seed_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        simulate(tmp_path / name, 20, seed=1)
    simulate(tmp_path / "c", 20, seed=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_a_subject_does_not_depend_on_the_number_of_subjects(tmp_path, monkeypatch):
    simulate(tmp_path / "few", 20, seed=1)
    monkeypatch.setattr(write, "CHUNK", 7)
    simulate(tmp_path / "more", 26, seed=1)
    few, more = contents(tmp_path / "few"), contents(tmp_path / "more")
    for path, content in few.items():
        if path.suffix == ".gz":
            assert gzip.decompress(more[path]).startswith(gzip.decompress(content)), path
        elif path.suffix == ".jpg":
            assert more[path] == content


def test_films_and_notes_can_be_left_out_and_change_nothing_else(tmp_path):
    simulate(tmp_path / "all", 20)
    simulate(tmp_path / "less", 20, films=False, notes=False)
    everything = contents(tmp_path / "all")
    left = {p: c for p, c in everything.items() if p.parts[0] not in ("cxr", "note")}
    assert contents(tmp_path / "less") == left
    assert len(left) < len(everything)


def test_existing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="exists already"):
        simulate(tmp_path, 20)


@pytest.mark.parametrize(("subjects", "seed"), [(19, 0), (0, 0), (20, -1)])
def test_too_small_numbers_are_refused(tmp_path, subjects, seed):
    with pytest.raises(UserError, match="too small"):
        simulate(tmp_path / "new", subjects, seed)
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("no picture")

    monkeypatch.setattr(write, "picture", broken)
    with pytest.raises(RuntimeError, match="no picture"):
        simulate(tmp_path / "new", 20)
    assert not list(tmp_path.iterdir())


def test_every_table_of_the_layout_is_written_with_its_columns(hospital):
    for name, columns in COLUMNS.items():
        with gzip.open(hospital / f"{name}.csv.gz", "rt") as file:
            assert file.readline() == columns + "\n"
            assert file.readline(), name


@pytest.mark.parametrize("name", [n for n in COLUMNS if n.split("/")[0] in ("hosp", "icu", "ed")])
def test_columns_equal_the_published_ones(name):
    folder = "mimic_iv_ed_demo" if name.startswith("ed/") else "mimic_iv_demo"
    path = DEMO / folder / f"{name}.csv.gz"
    if not path.exists():
        pytest.skip(f"open data not at hand: {folder}")
    with gzip.open(path, "rt") as file:
        assert COLUMNS[name] == file.readline().strip()


def test_films_and_notes_have_the_published_columns(hospital):
    finding = next(iter(read(hospital, "cxr/mimic-cxr-2.0.0-chexpert")))
    film = next(iter(read(hospital, "cxr/mimic-cxr-2.0.0-metadata")))
    note = next(iter(read(hospital, "note/radiology")))
    assert list(finding)[:4] == ["subject_id", "study_id", "Atelectasis", "Cardiomegaly"]
    assert len(finding) == 16
    assert {"dicom_id", "ViewPosition", "StudyDate", "StudyTime"} < film.keys()
    assert [key for key in note if key.endswith("time")] == ["charttime", "storetime"]
    assert re.fullmatch(r"([0-9a-f]{8}-){4}[0-9a-f]{8}", film["dicom_id"])
    place = f"p10/p{film['subject_id']}/s{film['study_id']}/{film['dicom_id']}.jpg"
    assert (hospital / "cxr" / "files" / place).exists()


def test_rows_belong_to_their_subject_and_identifiers_are_unique(hospital, charted):
    admissions = {a["hadm_id"]: a["subject_id"] for a in read(hospital, "hosp/admissions")}
    stays = {s["stay_id"]: s["hadm_id"] for s in read(hospital, "icu/icustays")}
    emergencies = {e["stay_id"] for e in read(hospital, "ed/edstays")}
    labs = [row["labevent_id"] for row in read(hospital, "hosp/labevents")]
    assert len(labs) == len(set(labs))
    assert not emergencies & set(stays)
    for row in charted:
        assert stays[row["stay_id"]] == row["hadm_id"]
        assert admissions[row["hadm_id"]] == row["subject_id"]


def test_deaths_are_consistent_and_some_follow_a_midnight_discharge(hospital):
    dod = {p["subject_id"]: p["dod"] for p in read(hospital, "hosp/patients")}
    late = 0
    for row in read(hospital, "hosp/admissions"):
        assert (row["hospital_expire_flag"] == "1") == bool(row["deathtime"])
        assert when(row["admittime"]) < when(row["dischtime"])
        if row["deathtime"]:
            assert dod[row["subject_id"]] == row["deathtime"][:10]
            assert when(row["deathtime"]) >= when(row["dischtime"])
            late += when(row["deathtime"]) > when(row["dischtime"])
    assert late


def test_the_usual_dirt_is_there(hospital, charted):
    stays = {s["stay_id"]: s for s in read(hospital, "icu/icustays")}
    labs = read(hospital, "hosp/labevents")
    lines = [tuple(row.values()) for row in charted]
    hour = timedelta(hours=1)
    early = [when(r["charttime"]) + hour < when(stays[r["stay_id"]]["intime"]) for r in charted]
    after = [when(r["charttime"]) > when(stays[r["stay_id"]]["outtime"]) for r in charted]
    assert len(set(lines)) < len(lines)
    assert any(early)
    assert any(after)
    assert {"0", "981"} <= {r["value"] for r in charted if r["itemid"] == "220277"}
    assert "9.8" in {r["value"] for r in charted if r["itemid"] == "223761"}
    assert any(not r["storetime"] for r in charted)
    assert any(not r["valuenum"] and r["value"] == "Obeys Commands" for r in charted)
    assert {"220046", "220048"} <= {r["itemid"] for r in charted}
    assert {r["warning"] for r in charted} == {"0", "1"}
    times = [r["charttime"] for r in charted if r["stay_id"] == charted[0]["stay_id"]]
    rates = [r["charttime"] for r in charted[: len(times)] if r["itemid"] == "220045"]
    assert rates != sorted(rates)
    assert 0.05 < np.mean([not r["hadm_id"] for r in labs]) < 0.2
    assert any(not r["valuenum"] and r["value"] == "ERROR" for r in labs)
    assert any(
        len(r["StudyTime"].split(".")[0]) < 6
        for r in read(hospital, "cxr/mimic-cxr-2.0.0-metadata")
    )
    assert any(not r["hadm_id"] for r in read(hospital, "note/radiology"))
    assert len(index_of(stays.values())) > SUBJECTS, "some admissions have two stays"
    assert len(index_of(read(hospital, "note/discharge"))) < SUBJECTS
    assert any(draw_subject(3, number).anchor_age == 17 for number in range(SUBJECTS))
