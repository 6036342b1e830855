"""Discharge summaries, radiology reports and triage complaints of the invented subjects."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from flexcare.sources.synthetic import words
from flexcare.sources.synthetic.films import Study
from flexcare.sources.synthetic.plan import MINUTE, Admission, Subject, day, stamp

Row = tuple[Any, ...]
Vocabulary = dict[str, tuple[tuple[str, ...], tuple[str, ...]]]
LACKS_HISTORY, LACKS_SUMMARY, HAS_REPORT = 0.1, 0.05, 0.9


def discharge_rows(subject: Subject, rng: np.random.Generator) -> list[Row]:
    """Rows of note/discharge: one summary an admission, few admissions without."""
    rows: list[Row] = []
    for admission in subject.admissions:
        text = _summary(subject, admission, rng)
        stored = admission.discharge + int(rng.integers(1, 72 * 60)) * MINUTE
        # The earlier admission (no ICU stay) always has one.
        if rng.random() >= LACKS_SUMMARY or not admission.stays:
            ids = _ids(subject, "DS", admission.hadm_id, len(rows) + 1)
            # MIMIC-IV dates a summary by the day alone.
            rows.append((*ids, stamp(day(admission.discharge)), stamp(stored), text))
    return rows


def radiology_rows(
    subject: Subject, studies: Sequence[Study], rng: np.random.Generator
) -> list[Row]:
    """Rows of note/radiology: a report of most studies, stored 1 to 6 hours after it."""
    rows: list[Row] = []
    for study in studies:
        text = _report(subject, study, rng)
        stored = stamp(study.time // MINUTE * MINUTE + int(rng.integers(60, 360)) * MINUTE)
        told, late = rng.random(2)
        if told < HAS_REPORT:
            ids = _ids(subject, "RR", study.hadm_id, len(rows) + 1)
            when = stamp(study.time // MINUTE * MINUTE)
            rows.append((*ids, when, "" if late < 0.01 else stored, text))
    return rows


def _ids(subject: Subject, kind: str, hadm_id: int | None, number: int) -> Row:
    """The columns note_id to note_seq."""
    key = f"{subject.subject_id}-{kind}-{number}"
    return key, subject.subject_id, "" if hadm_id is None else hadm_id, kind, number


def complaint(subject: Subject, rng: np.random.Generator) -> str:
    """A triage complaint that tells severity or c, right two times in three."""
    told = {"u": int(subject.severity > 0), "c": subject.factors["c"]}
    name = "u" if rng.random() < 0.6 else "c"
    side = told[name] ^ int(rng.random() < 1 / 3)
    return str(rng.choice(words.COMPLAINT[name][side]))


def _summary(subject: Subject, admission: Admission, rng: np.random.Generator) -> str:
    history = _history(subject, rng)
    draw = rng.random()
    past = f"Past Medical History:\n{history}\n\n"
    if not admission.stays and draw < LACKS_HISTORY:
        past = "" if draw < LACKS_HISTORY / 2 else "Past Medical History:\n\n"
    disposition = "Home" if admission.death is None else "Expired"
    drugs = "\n".join(f"{n}. {drug}" for n, drug in enumerate(_some(rng, words.DRUGS, 3), 1))
    return (
        f"Name:  ___                 Unit No:   ___\n\n"
        f"Admission Date:  ___         Discharge Date:   ___\n\n"
        f"Date of Birth:  ___             Sex:   {subject.gender}\n\n"
        f"Chief Complaint:\n{rng.choice(words.REASONS)}\n\n"
        f"Major Surgical or Invasive Procedure:\n___\n\n"
        f"History of Present Illness:\nThe patient came in for the complaint above.\n\n"
        f"{past}"
        f"Social History:\n___\n\n"
        f"Family History:\nNon-contributory.\n\n"
        f"Brief Hospital Course:\n{_course(subject, admission.coin, rng)}\n\n"
        f"Medications on Admission:\n{drugs}\n\n"
        f"Discharge Disposition:\n{disposition}\n\n"
        f"Discharge Condition:\n___\n"
    )


def _history(subject: Subject, rng: np.random.Generator) -> str:
    """30 to 60 words: several that tell t, two that tell c, and neutral ones."""
    told = _telling(subject, words.HISTORY, {"t": 5, "c": 2}, rng)
    items = [*told, *_some(rng, words.NEUTRAL_HISTORY, 4)]
    forms = [str(rng.choice(words.HISTORY_FORMS)).format(items[n]) for n in rng.permutation(11)]
    return "\n".join(f"{n}. {form.capitalize()}" for n, form in enumerate(forms, 1))


def _course(subject: Subject, coin: int, rng: np.random.Generator) -> str:
    """40 to 80 words: what tells t, c and the coin of the DRG, among neutral sentences."""
    told = _telling(subject, words.HISTORY, {"t": 3, "c": 1}, rng)
    sentences = [str(rng.choice(words.COURSE_FORMS)).format(item) for item in told]
    for item in _some(rng, words.COURSE[coin], 2):
        sentences.append(str(rng.choice(words.COIN_FORMS)).format(item))
    sentences += _some(rng, words.NEUTRAL_COURSE, 3)
    return " ".join(s[0].upper() + s[1:] for s in _some(rng, sentences, len(sentences)))


def _report(subject: Subject, study: Study, rng: np.random.Generator) -> str:
    """A radiology report of its view, neutral words and words that tell c."""
    told = _telling(subject, words.OUTLINE, {"c": 2}, rng)
    sentences = [f"There is a {told[0]}.", f"Note is made of a {told[1]}."]
    sentences += _some(rng, words.NEUTRAL_FILM, 2)
    body = " ".join(_some(rng, sentences, len(sentences)))
    return (
        f"EXAMINATION:  {study.procedure}\n\nINDICATION:  ___ year old patient, follow up.\n\n"
        f"FINDINGS:\n{body}\n\nIMPRESSION:\nAs above.\n"
    )


def _telling(
    subject: Subject, vocabulary: Vocabulary, count: dict[str, int], rng: np.random.Generator
) -> list[str]:
    """Words that tell the subject's factors, `count` of each."""
    return [
        word
        for name, number in count.items()
        for word in _some(rng, vocabulary[name][subject.factors[name]], number)
    ]


def _some(rng: np.random.Generator, items: Sequence[str], count: int) -> list[str]:
    """`count` different items in random order."""
    return [items[place] for place in rng.permutation(len(items))[:count]]
