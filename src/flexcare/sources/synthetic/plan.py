"""Who the invented subjects are and when things happen to them; every later part reads this.

Times are whole seconds since 1970, local and naive like MIMIC-IV's shifted dates.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from flexcare.sources.synthetic import rules

MINUTE, HOUR, DAY = 60, 3600, 86400
STREAMS = ("plan", "tables", "series", "studies", "pictures", "notes")
UNITS = (
    "Medical Intensive Care Unit (MICU)",
    "Surgical Intensive Care Unit (SICU)",
    "Medical/Surgical Intensive Care Unit (MICU/SICU)",
    "Coronary Care Unit (CCU)",
    "Cardiac Vascular Intensive Care Unit (CVICU)",
    "Trauma SICU (TSICU)",
)
ORIGIN = datetime(1970, 1, 1)


@dataclass(frozen=True)
class Stay:
    """One ICU stay."""

    stay_id: int
    start: int
    end: int
    units: tuple[str, str]  # first, last


@dataclass(frozen=True)
class Admission:
    """One hospital admission; `coin` is the part of its DRG that only its own summary tells."""

    hadm_id: int
    admit: int
    discharge: int
    death: int | None
    stays: tuple[Stay, ...]
    emergency: tuple[int, int] | None  # registered, left the emergency department
    icd_version: int
    coin: int


@dataclass(frozen=True)
class Subject:
    """One subject: factors, person, admissions. Depends on the seed and its number alone."""

    number: int
    factors: dict[str, int]
    severity: float
    gender: str
    anchor_age: int
    anchor_year: int
    died_on: int | None  # any second of that day
    earlier: Admission | None
    index: Admission
    returned: Admission | None

    @property
    def subject_id(self) -> int:
        return 10_000_001 + self.number

    @property
    def admissions(self) -> tuple[Admission, ...]:
        return tuple(a for a in (self.earlier, self.index, self.returned) if a is not None)


def generator(seed: int, number: int, stream: str) -> np.random.Generator:
    """The random numbers of one subject for one purpose (a name of STREAMS)."""
    return np.random.default_rng([seed, number, STREAMS.index(stream)])


def stamp(seconds: int) -> str:
    """Seconds since 1970 as the tables write a time."""
    return str(ORIGIN + timedelta(seconds=seconds))


def day(seconds: int) -> int:
    """Midnight before."""
    return seconds - seconds % DAY


def draw_subject(seed: int, number: int) -> Subject:
    """Invent subject `number` of the hospital of `seed`."""
    rng = generator(seed, number, "plan")
    factors = {name: int(rng.integers(2)) for name in rules.FACTORS}
    severity = float(rng.standard_normal())
    index = _index(rng, number, severity, factors["c"])
    earlier = _earlier(rng, number, index.admit) if rng.random() < 0.8 else None
    returns = rules.RETURN.answer(factors, rng)
    returned = _return(rng, number, index) if returns and index.death is None else None
    year = (ORIGIN + timedelta(seconds=index.stays[0].start)).year
    return Subject(
        number=number,
        factors=factors,
        severity=severity,
        gender="FM"[rng.integers(2)],
        anchor_age=17 if rng.random() < 0.015 else int(np.clip(rng.normal(64, 15), 18, 91)),
        anchor_year=year - int(rng.integers(3)),
        died_on=_last_day(rng, index, returned),
        earlier=earlier,
        index=index,
        returned=returned,
    )


def _index(rng: np.random.Generator, number: int, severity: float, c: int) -> Admission:
    """The admission with the ICU stay that most samples come from."""
    admit = 141 * 365 * DAY + _minutes(rng, 0, 80 * 365 * 24)
    emergency, start = _arrive(rng, admit)
    logarithm = np.log(rules.LOS_MEDIAN) + rules.LOS_U * severity + rules.LOS_SD * rng.normal()
    hours = float(np.clip(np.exp(logarithm), *rules.LOS_RANGE))
    stays = [Stay(_stay_id(number, 0), start, start + int(hours * HOUR), _units(rng, 0.08))]
    chance, draw = rules.death_probability(severity, c), rng.random()
    dies, in_icu = draw < chance, draw < chance * (1 - rules.WARD_SHARE)
    if rng.random() < 0.05 and not in_icu:
        start = stays[0].end + _minutes(rng, 12, 48)
        end = start + _minutes(rng, 10, 40)
        stays.append(Stay(_stay_id(number, 1), start, end, _units(rng, 0.08)))
    out = stays[-1].end
    ward = float(np.clip(72 * np.exp(0.7 * rng.normal()), 5, 700))
    left = _whole(out - _minutes(rng, 0, 1)) if in_icu else _whole(out + int(ward * HOUR))
    # MIMIC-IV has deaths after the "discharge", which is then the midnight before.
    midnight = dies and rng.random() < 0.15 and day(left) > admit + HOUR
    return Admission(
        hadm_id=_hadm_id(number, 1),
        admit=admit,
        discharge=day(left) if midnight else left,
        death=left if dies else None,
        stays=tuple(stays),
        emergency=emergency,
        icd_version=int(rng.choice((9, 10))),
        coin=int(rng.integers(2)),
    )


def _earlier(rng: np.random.Generator, number: int, before: int) -> Admission:
    """A ward admission months before, whose summary is known when the index admission starts."""
    admit = before - _minutes(rng, 60 * 24, 300 * 24)
    return Admission(
        hadm_id=_hadm_id(number, 0),
        admit=admit,
        discharge=admit + _minutes(rng, 24, 8 * 24),
        death=None,
        stays=(),
        emergency=None,
        icd_version=int(rng.choice((9, 10))),
        coin=int(rng.integers(2)),
    )


def _return(rng: np.random.Generator, number: int, index: Admission) -> Admission:
    """Back in the ICU for about a day, 5 to 25 days after discharge.

    Most of these stays change the unit: the cohort leaves them out, yet a look at ALL stays still
    counts them as a return. Kept ones would add samples whose own answer is no.
    """
    admit = index.discharge + _minutes(rng, 5 * 24, 25 * 24)
    emergency, start = _arrive(rng, admit)
    hours = float(np.clip(22 * np.exp(0.35 * rng.normal()), 9, 44))
    stay = Stay(_stay_id(number, 2), start, start + int(hours * HOUR), _units(rng, 0.85))
    return Admission(
        hadm_id=_hadm_id(number, 2),
        admit=admit,
        discharge=_whole(stay.end + _minutes(rng, 10, 100)),
        death=None,
        stays=(stay,),
        emergency=emergency,
        icd_version=index.icd_version,
        coin=int(rng.integers(2)),
    )


def _arrive(rng: np.random.Generator, admit: int) -> tuple[tuple[int, int] | None, int]:
    """Emergency times (60 %) and the ICU admission, for some after a spell on the ward."""
    registered, left = admit - _minutes(rng, 1, 8), admit + _minutes(rng, 0, 3)
    emergency = (registered, left) if rng.random() < 0.6 else None
    ward = _minutes(rng, 4, 48) if rng.random() < 0.2 else 0
    # intime has seconds, other times whole minutes
    return emergency, (left if emergency else admit) + ward + int(rng.integers(5, 900))


def _last_day(rng: np.random.Generator, index: Admission, returned: Admission | None) -> int | None:
    """The day of death: in hospital, within 30 days (rare), months later, or never."""
    soon, later = _minutes(rng, 2 * 24, 28 * 24), _minutes(rng, 60 * 24, 300 * 24)
    draw = rng.random()
    if index.death is not None:
        return index.death
    if returned is None and draw < rules.LATE_DEATH:
        return index.discharge + soon
    return (returned or index).discharge + later if draw > 0.95 else None


def _minutes(rng: np.random.Generator, low: float, high: float) -> int:
    """A span between `low` and `high` hours, in seconds, of whole minutes."""
    return int(rng.integers(int(low * 60), int(high * 60))) * MINUTE


def _whole(seconds: int) -> int:
    return seconds - seconds % MINUTE


def _units(rng: np.random.Generator, moved: float) -> tuple[str, str]:
    """First and last care unit; different with probability `moved`."""
    first, other = (str(unit) for unit in rng.choice(UNITS, 2, replace=False))
    return first, other if rng.random() < moved else first


def _hadm_id(number: int, place: int) -> int:
    return 20_000_000 + 8 * number + place


def _stay_id(number: int, place: int) -> int:
    return 30_000_000 + 8 * number + place
