"""Chest films of the invented subjects: when, which views, their findings and their pixels."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import simplejpeg

from flexcare.sources.synthetic import rules
from flexcare.sources.synthetic.layout import CHEXPERT
from flexcare.sources.synthetic.plan import DAY, HOUR, Subject, stamp

Floats = npt.NDArray[np.float64]
SIDE = 112
PORTABLE, UPRIGHT = "CHEST (PORTABLE AP)", "CHEST (PA AND LAT)"
VIEW_NAMES = {"AP": "antero-posterior", "PA": "postero-anterior", "LATERAL": "lateral"}
PERIOD = 8  # pixels; divides a patch of 16, so that every patch sees the same streaks
# Where a streaky opacity lies and how far it strays, as (row, column).
LUNGS, MIDLINE, STRAY = ((60, 32), (60, 80)), ((56, 56),), (16, 6)


@dataclass(frozen=True)
class Study:
    """One study: its films as (dicom_id, view, whether the file exists)."""

    study_id: int
    time: int  # seconds since 1970
    thousandths: int
    hadm_id: int | None
    procedure: str
    films: tuple[tuple[str, str, bool], ...]


def draw_studies(subject: Subject, rng: np.random.Generator) -> list[Study]:
    """Studies of a subject: in the index stay (sicker ones more often) and outside any stay.

    The return stay has none: its own answer is no, which would contradict what the film tells.
    """
    stay, hadm_id = subject.index.stays[0], subject.index.hadm_id
    hours = (stay.end - stay.start) / HOUR - 1  # a death is within the last hour
    times: list[tuple[float, int | None, bool]] = []
    if rng.random() < rules.film_probability(subject.severity):
        first = min(0.2 + float(rng.exponential(8)), 0.9 * hours)
        times.append((stay.start + first * HOUR, hadm_id, True))
        for _ in range(int(rng.choice(3, p=(0.65, 0.25, 0.1)))):
            times.append((stay.start + rng.uniform(first, hours) * HOUR, hadm_id, True))
    if rng.random() < 0.1:
        times.append((stay.start + rng.uniform(0, hours) * HOUR, hadm_id, False))
    if rng.random() < 0.15:
        before = subject.index.admit - rng.uniform(20, 50) * DAY
        times.append((before, None, bool(rng.random() < 0.4)))
    return [
        _study(rng, 50_000_001 + 16 * subject.number + place, int(time), hadm, portable)
        for place, (time, hadm, portable) in enumerate(times)
    ]


def _study(
    rng: np.random.Generator, study_id: int, time: int, hadm_id: int | None, portable: bool
) -> Study:
    views = ["AP", "AP"][: 1 + int(rng.random() < 0.05)] if portable else ["PA", "LATERAL"]
    films = tuple((_dicom_id(rng), view, bool(rng.random() > 0.01)) for view in views)
    procedure = PORTABLE if portable else UPRIGHT
    return Study(study_id, time, int(rng.integers(1000)), hadm_id, procedure, films)


def metadata_rows(subject: Subject, study: Study) -> list[tuple[object, ...]]:
    """Rows of mimic-cxr-2.0.0-metadata; StudyTime is a number, so leading zeros are lost."""
    date, clock = stamp(study.time).split(" ")
    time = int(clock.replace(":", "")) + study.thousandths / 1000
    posture = "Recumbent" if study.procedure == PORTABLE else "Erect"
    ids, size = (subject.subject_id, study.study_id, study.procedure), (SIDE, SIDE)
    when = (date.replace("-", ""), time, study.procedure)
    return [
        (dicom, *ids, view, *size, *when, VIEW_NAMES[view], posture)
        for dicom, view, _ in study.films
    ]


def findings_row(subject: Subject, study: Study, rng: np.random.Generator) -> tuple[object, ...]:
    """The row of mimic-cxr-2.0.0-chexpert: 1.0, 0.0, -1.0 (uncertain) or blank."""
    values: list[str] = []
    for name in CHEXPERT.split(","):
        answer = f"{float(rules.FINDINGS[name].answer(subject.factors, rng)):.1f}"
        draw = rng.random()
        unsure = "-1.0" if draw < rules.UNCERTAIN else ""
        values.append(unsure if draw < rules.UNCERTAIN + rules.BLANK else answer)
    return (subject.subject_id, study.study_id, *values)


def picture(subject: Subject, view: str, rng: np.random.Generator) -> bytes:
    """A grey JPEG of SIDE x SIDE pixels.

    An opacity lies in each lung and another in the midline. f decides which way the streaks of
    the first two run, c those of the third; place and brightness tell neither, and a film mirrored
    left to right tells the wrong f. A lateral view shows neither.
    """
    image = _chest() * rng.uniform(0.88, 1.1) + rng.normal(0, 6)
    spots = (("f", LUNGS), ("c", MIDLINE)) if view != "LATERAL" else ()
    for name, places in spots:
        for place in places:
            centre = np.array(place) + rng.uniform(-1, 1, 2) * STRAY
            streaks = rng.uniform(24, 36) * _streaks()[name][subject.factors[name]]
            image = image + _spot(centre, float(rng.uniform(14, 20))) * (30 + streaks)
    image = image + 18 * rng.standard_normal((SIDE, SIDE))
    grey = np.clip(image, 0, 255).astype(np.uint8)[:, :, None]
    return bytes(simplejpeg.encode_jpeg(grey, quality=80, colorspace="GRAY"))


def _spot(centre: npt.NDArray[np.float64], width: float) -> Floats:
    """A round spot of height 1."""
    axis = np.arange(SIDE)
    row, column = (np.exp(-0.5 * ((axis - at) / width) ** 2) for at in centre)
    return np.asarray(np.outer(row, column))


@cache
def _streaks() -> dict[str, tuple[Floats, Floats]]:
    """Streaks over the whole film by factor and its value: either diagonal; level or upright."""
    row, column = 2 * np.pi * np.mgrid[0:SIDE, 0:SIDE] / PERIOD
    return {
        "f": (np.cos(row + column), np.cos(row - column)),
        "c": (np.cos(row), np.cos(column)),
    }


@cache
def _chest() -> Floats:
    """The same chest for all: a bright body with two dark lungs."""
    row, column = np.mgrid[0:SIDE, 0:SIDE].astype(np.float64)
    image = np.full((SIDE, SIDE), 140.0)
    for middle in (32, 80):
        inside = ((row - 58) / 46) ** 2 + ((column - middle) / 21) ** 2
        image -= 80 / (1 + np.exp((inside - 1) * 6))
    return image


def _dicom_id(rng: np.random.Generator) -> str:
    """Five groups of eight hexadecimal digits, as in the real files' names."""
    text = rng.bytes(20).hex()
    return "-".join(text[at : at + 8] for at in range(0, 40, 8))
