"""What was charted in an ICU stay: the rows of chartevents, labevents and outputevents."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flexcare.sources.synthetic import rules
from flexcare.sources.synthetic.layout import URINE
from flexcare.sources.synthetic.plan import HOUR, MINUTE, Admission, Stay, Subject, stamp

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Row = tuple[Any, ...]

NAMES = tuple(rules.VITALS)
PRESSURES = ((220179, 220180, 220181), (220050, 220051, 220052))  # cuff, arterial line
# Text values of the charted items; a row refers to them by place.
EYE = ("None", "To Pain", "To Speech", "Spontaneously")
MOTOR = (
    "No response",
    "Abnormal extension",
    "Abnormal Flexion",
    "Flex-withdraws",
    "Localizes Pain",
    "Obeys Commands",
)
VERBAL = (
    "No Response",
    "Incomprehensible sounds",
    "Inappropriate Words",
    "Confused",
    "Oriented",
    "No Response-ETT",
)
OTHERS = ("Normal <3 Seconds", "Abnormal >3 Seconds", "SR (Sinus Rhythm)")
TEXTS = EYE + MOTOR + VERBAL + OTHERS
EYE_AT, MOTOR_AT, VERBAL_AT = 0, len(EYE), len(EYE) + len(MOTOR)
OTHERS_AT = VERBAL_AT + len(VERBAL)
NOTHING = np.iinfo(np.int64).min  # a time that was not written down


@dataclass(frozen=True)
class ChartRows:
    """Rows of chartevents as columns of equal length.

    Attributes:
        keys: (n, 3) subject_id, hadm_id, stay_id.
        time, stored: seconds since 1970; `stored` may be NOTHING.
        item: itemid. number: valuenum, NaN where blank.
        text: place in TEXTS, -1 where the value is the number. warning: 0 or 1.
    """

    keys: Whole
    time: Whole
    stored: Whole
    item: Whole
    number: Floats
    text: Whole
    warning: Whole

    def take(self, rows: Whole) -> "ChartRows":
        return ChartRows(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


class Chart:
    """Collects what is charted, piece by piece."""

    def __init__(self) -> None:
        self.pieces: list[tuple[Whole, Whole, Floats, Whole]] = []

    def add(
        self,
        time: Whole,
        item: int | Whole,
        number: npt.ArrayLike,
        text: int | Whole = -1,
    ) -> None:
        """Rows at `time` (n,); item, number (NaN: blank) and text may be one for all."""
        whole = np.broadcast_to(np.asarray(item, dtype=np.int64), time.shape)
        value = np.broadcast_to(np.asarray(number, dtype=np.float64), time.shape)
        place = np.broadcast_to(np.asarray(text, dtype=np.int64), time.shape)
        self.pieces.append((time, whole, value, place))

    def columns(self) -> tuple[Whole, Whole, Floats, Whole]:
        time, item, number, text = (
            np.concatenate(parts) for parts in zip(*self.pieces, strict=True)
        )
        return time, item, number, text


class Patient:
    """A subject during one stay: draws values of every vital at given times."""

    def __init__(
        self, subject: Subject, stay: Stay, death: int | None, rng: np.random.Generator
    ) -> None:
        table = np.array([(v.usual, v.s, v.c, v.u, v.dying) for v in rules.VITALS.values()])
        spread = np.array([(v.between, v.within) for v in rules.VITALS.values()])
        cause = (1.0, subject.factors["s"] - 0.5, subject.factors["c"] - 0.5, subject.severity)
        self.level: Floats = table[:, :4] @ np.array(cause)
        self.level += spread[:, 0] * rng.standard_normal(len(NAMES))
        self.within, self.dying, self.rng = spread[:, 1], table[:, 4], rng
        self.death = death if death is not None and death <= stay.end else None

    def values(self, time: Whole) -> dict[str, Floats]:
        """Every vital at `time` (n,), worse in the 24 h before a death in this stay."""
        value = self.level + self.within * self.rng.standard_normal((len(time), len(NAMES)))
        if self.death is not None:
            near = np.clip(1 - (self.death - time) / (24 * HOUR), 0, 1)
            value = value + near[:, None] * self.dying
        return dict(zip(NAMES, value.T, strict=True))


def stay_rows(
    subject: Subject, admission: Admission, stay: Stay, first_lab: int, rng: np.random.Generator
) -> tuple[ChartRows, list[Row], list[Row]]:
    """Rows of one stay: chartevents, labevents (numbered from `first_lab`) and outputevents."""
    patient = Patient(subject, stay, admission.death, rng)
    chart = Chart()
    _chart_vitals(chart, patient, _moments(stay, patient.death, rng))
    _chart_body(chart, stay, rng)
    keys = (subject.subject_id, admission.hadm_id, stay.stay_id)
    labs = _labs(keys, patient, stay, first_lab)
    return _finish(chart, keys, rng), labs, _outputs(keys, stay, rng)


def _moments(stay: Stay, death: int | None, rng: np.random.Generator) -> Whole:
    """Charting times: hourly with jitter, a few up to a day before and some after the stay."""
    hours = np.arange(-(-(stay.end - stay.start) // HOUR))
    inside = stay.start + (hours + rng.random(len(hours))) * HOUR
    before = stay.start - rng.integers(5 * MINUTE, 24 * HOUR, rng.integers(4))
    after = stay.end + rng.integers(5 * MINUTE, 5 * HOUR, 0 if death else rng.integers(3))
    time = np.concatenate([before, inside[inside < (death or stay.end)], after])
    return np.asarray(time // MINUTE * MINUTE, dtype=np.int64)


def _chart_vitals(chart: Chart, patient: Patient, time: Whole) -> None:
    """Everything charted again and again; each item at its own share of the times."""
    rng, value = patient.rng, patient.values(time)
    mean, pulse = value["mean_pressure"], value["pulse_pressure"]
    systolic, diastolic, middle = PRESSURES[int(rng.random() < 0.35)]
    chart.add(time, 220045, np.round(value["heart_rate"]))
    chart.add(time, systolic, np.round(mean + pulse * 2 / 3))
    chart.add(time, diastolic, np.round(mean - pulse / 3))
    chart.add(time, middle, np.round(mean))
    chart.add(time, 220210, np.round(np.maximum(value["respiratory_rate"], 4)))
    chart.add(time, 220277, np.round(np.minimum(value["saturation"], 100)))
    warm = rng.random(len(time)) < 0.5
    celsius = value["celsius"][warm]
    metric = rng.random(len(celsius)) < 0.15
    degrees = np.where(metric, celsius, celsius * 1.8 + 32)
    chart.add(time[warm], np.where(metric, 223762, 223761), np.round(degrees, 1))
    some = rng.random(len(time)) < 0.25
    chart.add(time[some], 225664, np.round(np.maximum(value["glucose"][some], 40)))
    some = rng.random(len(time)) < 0.15
    percent = np.round(np.clip(value["oxygen_percent"][some], 21, 100))
    fraction = rng.random(len(percent)) < 0.1
    chart.add(time[some], 223835, np.where(fraction, percent / 100, percent))
    some = rng.random(len(time)) < 0.1
    chart.add(time[some], 220046, 130.0)
    some = rng.random(len(time)) < 0.25
    chart.add(time[some], 220048, np.nan, OTHERS_AT + 2)
    _chart_coma(chart, rng, time[::4], {name: v[::4] for name, v in value.items()})


def _chart_coma(
    chart: Chart, rng: np.random.Generator, time: Whole, value: dict[str, Floats]
) -> None:
    """The three coma scores of one moment, and the capillary refill, as texts."""
    eye = np.clip(np.rint(value["eye"]), 1, 4)
    motor = np.clip(np.rint(value["motor"]), 1, 6)
    verbal = np.clip(np.rint(value["verbal"]), 1, 5)
    tube = (verbal == 1) & (rng.random(len(time)) < 0.7)
    silent = rng.random((3, len(time))) < 0.05  # only the text was written
    spoken = np.where(tube, len(VERBAL), verbal)  # the last text says why nobody can tell
    parts = (
        (220739, eye, EYE_AT + eye - 1),
        (223901, motor, MOTOR_AT + motor - 1),
        (223900, verbal, VERBAL_AT + spoken - 1),
    )
    for row, (item, score, place) in enumerate(parts):
        chart.add(time, item, np.where(silent[row], np.nan, score), place.astype(np.int64))
    slow = (rng.random(len(time)) < 0.15).astype(np.int64)
    some = rng.random(len(time)) < 0.4
    chart.add(time[some], 223951, np.nan, OTHERS_AT + slow[some])


def _chart_body(chart: Chart, stay: Stay, rng: np.random.Generator) -> None:
    """Height and weight in either unit, once; a daily weight for some."""
    once = np.array([(stay.start + rng.integers(10 * MINUTE, 3 * HOUR)) // MINUTE * MINUTE])
    height, weight = rng.normal(169, 10), float(np.clip(rng.normal(82, 18), 40, 200))
    if rng.random() < 0.8:
        chart.add(once, 226707, np.round(height / 2.54))
    if rng.random() < 0.5:
        chart.add(once, 226730, np.round(height))
    chart.add(once, 226512, np.round(weight, 1))
    if rng.random() < 0.5:
        chart.add(once, 226531, np.round(weight / 0.45359237, 1))
    days = np.arange(stay.start // (24 * HOUR) + 1, stay.end // (24 * HOUR) + 1)
    daily = days * 24 * HOUR + 5 * HOUR
    daily = daily[(daily < stay.end) & (rng.random(len(days)) < 0.5)]
    chart.add(daily, 224639, np.round(weight + rng.normal(0, 1, len(daily)), 1))


def _finish(chart: Chart, keys: tuple[int, int, int], rng: np.random.Generator) -> ChartRows:
    """Add the dirt: impossible values, late or missing storetimes, exact duplicates, disorder."""
    time, item, number, text = chart.columns()
    count = len(time)
    bad = rng.random(count) < 0.004
    number = np.where(bad & (item == 220277), rng.choice((0.0, 981.0), count), number)
    number = np.where(bad & (item == 223761), 9.8, number)
    stored = time + rng.integers(5, 60, count) * MINUTE
    stored = np.where(rng.random(count) < 0.01, NOTHING, stored)
    warning = (rng.random(count) < 0.01).astype(np.int64)
    owner = np.broadcast_to(np.array(keys, dtype=np.int64), (count, 3))
    twice = np.concatenate([np.arange(count), np.flatnonzero(rng.random(count) < 0.005)])
    return ChartRows(owner, time, stored, item, number, text, warning).take(rng.permutation(twice))


def _labs(keys: tuple[int, int, int], patient: Patient, stay: Stay, first: int) -> list[Row]:
    """Chemistry (glucose), blood gas (pH, glucose, saturation) and urine, every 6 to 10 hours."""
    rng = patient.rng
    gaps = rng.integers(6 * 60, 10 * 60, (stay.end - stay.start) // (6 * HOUR) + 3) * MINUTE
    time = stay.start - 12 * HOUR + np.cumsum(gaps)
    time = time[time < stay.end] // MINUTE * MINUTE
    value = patient.values(time)
    rows: list[Row] = []
    for at, glucose, ph, saturation in zip(
        time.tolist(), value["glucose"], value["ph"], value["saturation"], strict=True
    ):
        found = [(50931, round(max(glucose, 40)), "mg/dL", "70", "105")]
        if rng.random() < 0.4:
            found.append((50820, round(ph, 2), "units", "7.35", "7.45"))
            found.append((50809, round(max(glucose + rng.normal(0, 5), 40)), "mg/dL", "70", "105"))
            found.append((50817, round(min(saturation, 100)), "%", "", ""))
        if rng.random() < 0.05:
            found.append((51478, 1000, "mg/dL", "", ""))
        specimen = int(rng.integers(1_000_000, 99_999_999))
        for item, result, unit, low, high in found:
            rows.append(
                _lab(rng, (first + len(rows), *keys[:2], specimen, item), at, result, unit)
                + _judged(result, low, high)
            )
    return [rows[place] for place in rng.permutation(len(rows))]


def _lab(rng: np.random.Generator, ids: tuple[int, ...], at: int, result: float, unit: str) -> Row:
    """The columns labevent_id to valueuom; hadm_id, storetime or the number may be blank."""
    number, subject_id, hadm_id, specimen, item = ids
    blank, late, unread = rng.random(3)
    stored = "" if late < 0.02 else stamp(at + int(rng.integers(20, 120)) * MINUTE)
    return (
        number,
        subject_id,
        "" if blank < 0.1 else hadm_id,
        specimen,
        item,
        "",
        stamp(at),
        stored,
        "ERROR" if unread < 0.01 else result,
        "" if unread < 0.01 else result,
        unit,
    )


def _judged(result: float, low: str, high: str) -> Row:
    """The columns ref_range_lower to comments."""
    outside = bool(low) and not float(low) <= result <= float(high)
    return low, high, "abnormal" if outside else "", "ROUTINE", ""


def _outputs(keys: tuple[int, int, int], stay: Stay, rng: np.random.Generator) -> list[Row]:
    """Urine every four hours or so: rows that no variable uses."""
    rows: list[Row] = []
    for at in range(stay.start + HOUR, stay.end, 4 * HOUR):
        when = at // MINUTE * MINUTE
        stored = stamp(when + int(rng.integers(5, 60)) * MINUTE)
        volume = int(rng.integers(30, 500))
        rows.append((*keys, "", stamp(when), stored, URINE, volume, "ml"))
    return rows
