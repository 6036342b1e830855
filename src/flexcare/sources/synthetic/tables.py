"""Rows of the small tables: persons, admissions, codes, ICU stays, emergency visits."""

from typing import Any

import numpy as np

from flexcare.sources.synthetic import rules
from flexcare.sources.synthetic.layout import CHART_ITEMS, LAB_ITEMS, TEXT_ITEMS, URINE
from flexcare.sources.synthetic.notes import complaint
from flexcare.sources.synthetic.plan import DAY, HOUR, MINUTE, Admission, Stay, Subject, stamp

Row = tuple[Any, ...]
RACES = ("WHITE", "BLACK/AFRICAN AMERICAN", "ASIAN", "HISPANIC/LATINO - PUERTO RICAN", "UNKNOWN")
PERIODS = ("2008 - 2010", "2011 - 2013", "2014 - 2016", "2017 - 2019")
INSURANCES = ("Medicare", "Medicaid", "Other")
MARRIAGES = ("MARRIED", "SINGLE", "WIDOWED", "DIVORCED", "")
HOMES = ("HOME", "HOME HEALTH CARE", "SKILLED NURSING FACILITY", "REHAB")


def dictionary_rows() -> dict[str, list[Row]]:
    """Rows of d_items and d_labitems: the items that occur."""
    kind = ("Numeric", "Text")
    items: list[Row] = [
        (item, label, label, "chartevents", category, unit, kind[item in TEXT_ITEMS], "", "")
        for item, (label, unit, category) in CHART_ITEMS.items()
    ]
    items.append((URINE, "Foley", "Foley", "outputevents", "Output", "ml", "Numeric", "", ""))
    return {"icu/d_items": items, "hosp/d_labitems": [(i, *d) for i, d in LAB_ITEMS.items()]}


def subject_rows(subject: Subject, rng: np.random.Generator) -> dict[str, list[Row]]:
    """Rows of one subject by table."""
    race = str(rng.choice(RACES, p=(0.65, 0.15, 0.05, 0.05, 0.1)))
    dod = "" if subject.died_on is None else stamp(subject.died_on)[:10]
    person = (subject.subject_id, subject.gender, subject.anchor_age, subject.anchor_year)
    rows: dict[str, list[Row]] = {
        "hosp/patients": [(*person, str(rng.choice(PERIODS)), dod)],
        "hosp/admissions": [_admission(subject, a, race, rng) for a in subject.admissions],
        "hosp/diagnoses_icd": [r for a in subject.admissions for r in _codes(subject, a, rng)],
        "hosp/drgcodes": [r for a in subject.admissions for r in _drg(subject, a, rng)],
        "icu/icustays": [
            (subject.subject_id, a.hadm_id, *_stay(s)) for a in subject.admissions for s in a.stays
        ],
    }
    rows |= _emergency(subject, race, rng)
    return {name: [part[n] for n in rng.permutation(len(part))] for name, part in rows.items()}


def _admission(subject: Subject, admission: Admission, race: str, rng: np.random.Generator) -> Row:
    death = "" if admission.death is None else stamp(admission.death)
    emergency = admission.emergency
    leaves = "DIED" if admission.death is not None else str(rng.choice(HOMES))
    return (
        subject.subject_id,
        admission.hadm_id,
        stamp(admission.admit),
        stamp(admission.discharge),
        death,
        "EW EMER." if emergency else "URGENT",
        f"P{rng.integers(10, 99)}AAA",
        "EMERGENCY ROOM" if emergency else "TRANSFER FROM HOSPITAL",
        leaves,
        str(rng.choice(INSURANCES)),
        "ENGLISH" if rng.random() < 0.9 else "?",
        str(rng.choice(MARRIAGES)),
        race,
        stamp(emergency[0]) if emergency else "",
        stamp(emergency[1]) if emergency else "",
        int(admission.death is not None),
    )


def _stay(stay: Stay) -> Row:
    """The columns stay_id to los (days)."""
    days = (stay.end - stay.start) / DAY
    return stay.stay_id, *stay.units, stamp(stay.start), stamp(stay.end), days


def _codes(subject: Subject, admission: Admission, rng: np.random.Generator) -> list[Row]:
    """ICD codes; those of the 25 categories only where an ICU stay could have shown the factors."""
    version = admission.icd_version
    planted = [
        str(rng.choice(rules.CODES[name][version]))
        for name, rule in rules.PHENOTYPES.items()
        if rule.answer(subject.factors, rng) and admission.stays
    ]
    codes = [*planted, *rng.choice(rules.OTHER_CODES[version], 3, replace=False)]
    return [
        (subject.subject_id, admission.hadm_id, place, codes[n], version)
        for place, n in enumerate(rng.permutation(len(codes)), 1)
    ]


def _drg(subject: Subject, admission: Admission, rng: np.random.Generator) -> list[Row]:
    """One HCFA row, and one APR row that no task asks for."""
    key = (subject.factors["t"], subject.factors["c"], admission.coin)
    code, title = rules.DRG[key]
    draw = rng.random()
    if draw < rules.DRG_RARE_SHARE:
        code, title = rules.DRG_RARE[rng.integers(len(rules.DRG_RARE))]
    elif draw < rules.DRG_RARE_SHARE + rules.DRG_NOISE:
        code, title = list(rules.DRG.values())[rng.integers(len(rules.DRG))]
    ids = (subject.subject_id, admission.hadm_id)
    other = (int(rng.integers(100, 900)), "ANY OTHER GROUP", *(rng.integers(1, 5, 2).tolist()))
    return [(*ids, "HCFA", code, title, "", ""), (*ids, "APR", *other)]


def _emergency(subject: Subject, race: str, rng: np.random.Generator) -> dict[str, list[Row]]:
    """Emergency stays of the admissions that came this way, and a rare visit that went home."""
    first = 30_000_000 + 8 * subject.number + 4
    visits: list[tuple[int, object, tuple[int, int], str]] = [
        (first + place, a.hadm_id, a.emergency, "ADMITTED")
        for place, a in enumerate(subject.admissions)
        if a.emergency
    ]
    if rng.random() < 0.05:
        came = subject.index.admit - int(rng.integers(10 * 24, 40 * 24)) * HOUR
        visits.append((first + 3, "", (came, came + 200 * MINUTE), "HOME"))
    rows: dict[str, list[Row]] = {"ed/edstays": [], "ed/triage": []}
    for stay_id, hadm_id, (came, left), disposition in visits:
        where = (stamp(came), stamp(left), subject.gender, race)
        transport = str(rng.choice(("AMBULANCE", "WALK IN")))
        rows["ed/edstays"].append(
            (subject.subject_id, hadm_id, stay_id, *where, transport, disposition)
        )
        rows["ed/triage"].append((subject.subject_id, stay_id, *_triage(subject, rng)))
    return rows


def _triage(subject: Subject, rng: np.random.Generator) -> Row:
    """Vital signs in the columns' order, pain, acuity and the complaint; some left blank."""
    u = subject.severity
    low = 17 * (subject.factors["c"] - 0.5)
    values = (
        f"{rng.normal(98.4, 0.9):.1f}",
        round(rng.normal(88 + 6 * u, 12)),
        round(max(rng.normal(19 + u, 3), 6)),
        round(min(rng.normal(96.5 - u, 2), 100)),
        round(rng.normal(122 - low, 14)),
        round(rng.normal(70 - low, 9)),
        int(rng.integers(11)),
        int(rng.integers(1, 5)),
    )
    return (*("" if rng.random() < 0.05 else value for value in values), complaint(subject, rng))
