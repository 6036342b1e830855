"""WHO: which stays are kept, with what is known of the stay, its admission and its subject."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flexcare.config import Preparation
from flexcare.errors import UserError
from flexcare.sources.tables import Source

DAY = np.timedelta64(1, "D")
Mask = NDArray[np.bool_]


@dataclass
class Flow:
    """How many were left out at each step, and why; printed in the report."""

    steps: list[dict[str, Any]] = field(default_factory=list)

    def start(self, unit: str, count: int, reason: str) -> None:
        self.steps.append({"unit": unit, "reason": reason, "left_out": 0, "remaining": count})

    def step(self, unit: str, keep: Mask, reason: str) -> None:
        left_out = int((~keep).sum())
        self.steps.append(
            {"unit": unit, "reason": reason, "left_out": left_out, "remaining": int(keep.sum())}
        )


def column(table: pa.Table, name: str) -> NDArray[Any]:
    """A column as numpy: times as datetime64[us] with NaT, texts as objects."""
    out: NDArray[Any] = table[name].combine_chunks().to_numpy(zero_copy_only=False)
    return out


def join(left: pa.Table, right: pa.Table, key: str) -> pa.Table:
    """Left outer join in the order of `left`; columns that both have are taken from `left`."""
    place = pc.index_in(left[key], value_set=right[key].combine_chunks())
    for name in right.column_names:
        if name not in left.column_names:
            left = left.append_column(name, right[name].combine_chunks().take(place))
    return left


def admissions_of(source: Source, subjects: pa.Table, settings: Preparation) -> pa.Table:
    """Admissions with their subject, and whether the patient died in hospital.

    Adds `dead`: death in hospital by the rule of the settings.
    """
    table = join(source.admissions(), subjects, "subject_id")
    admit, discharge = column(table, "admittime"), column(table, "dischtime")
    death = column(table, "deathtime")
    dead, discharge = DEATH_IN_HOSPITAL[settings.hospital_death](table, admit, discharge, death)
    discharge_column = pa.array(discharge.astype("datetime64[us]"))
    table = table.set_column(table.column_names.index("dischtime"), "dischtime", discharge_column)
    return table.append_column("dead", pa.array(dead)).sort_by("hadm_id")


def _by_flag(
    table: pa.Table, admit: NDArray[Any], discharge: NDArray[Any], death: NDArray[Any]
) -> tuple[Mask, NDArray[Any]]:
    """The hospital's flag; a death after a midnight dischtime ends the admission."""
    dead = pc.fill_null(table["died"], False).combine_chunks().to_numpy(zero_copy_only=False)
    # differs from the paper: a death after a midnight dischtime counts.
    return dead, np.where(death > discharge, death, discharge)


def _by_deathtime(
    table: pa.Table, admit: NDArray[Any], discharge: NDArray[Any], death: NDArray[Any]
) -> tuple[Mask, NDArray[Any]]:
    """deathtime within [admittime, dischtime]."""
    return (death >= admit) & (death <= discharge), discharge


DEATH_IN_HOSPITAL: dict[str, Callable[..., tuple[Mask, NDArray[Any]]]] = {
    "flag": _by_flag,
    "deathtime": _by_deathtime,
}


def age_at(
    time: NDArray[Any], anchor_age: NDArray[Any], anchor_year: NDArray[Any], how: str
) -> NDArray[np.float64]:
    """Age in years: of the anchor year, or moved to the year of `time`."""
    if how == "anchor":
        return anchor_age.astype(np.float64)
    year = time.astype("datetime64[Y]").astype(np.float64) + 1970
    out: NDArray[np.float64] = anchor_age + year - anchor_year.astype(np.float64)
    return out


def death_in_icu(
    intime: NDArray[Any], outtime: NDArray[Any], death: NDArray[Any], dod: NDArray[Any], how: str
) -> Mask:
    """deathtime, or else the date of death, within [intime, outtime].

    `how` = "midnight" takes a date as its first second, "date" compares dates.
    """
    by_time = (death >= intime) & (death <= outtime)
    first, last = (intime, outtime) if how == "midnight" else _dates(intime, outtime)
    by_date = (dod >= first) & (dod <= last)
    return np.where(np.isnat(death), by_date, by_time)


def _dates(*times: NDArray[Any]) -> list[NDArray[Any]]:
    return [time.astype("datetime64[D]") for time in times]


def select_stays(
    source: Source, admissions: pa.Table, settings: Preparation, flow: Flow
) -> tuple[pa.Table, pa.Table]:
    """The kept stays, joined with admission and subject, and all stays of the source.

    Adds `age` (years at ICU admission), `died_in_icu` and `los_hours`.

    Raises:
        UserError: nobody is left.
    """
    every = source.stays().sort_by([("subject_id", "ascending"), ("stay_id", "ascending")])
    stays = join(every, admissions, "hadm_id")
    flow.start("stays", len(stays), "all stays")
    timed = ~np.isnat(column(stays, "intime")) & ~np.isnat(column(stays, "outtime"))
    timed &= ~np.isnat(column(stays, "admittime")) & (column(stays, "los") >= 0)
    stays = _step(stays, timed, "no readable times or length, or of no known admission", flow)
    filters = (
        [_no_transfer, _one_stay] if not settings.one_stay_first else [_one_stay, _no_transfer]
    )
    if not settings.one_stay:
        filters.remove(_one_stay)
    for keep in filters:
        stays = keep(stays, flow)
    intime = column(stays, "intime")
    age = age_at(intime, column(stays, "anchor_age"), column(stays, "anchor_year"), settings.age)
    stays = stays.append_column("age", pa.array(age))
    if settings.min_age > 0:
        reason = f"younger than {settings.min_age:g} years, or age unknown"
        stays = _step(stays, age >= settings.min_age, reason, flow)
    if not len(stays):
        raise UserError(
            "no ICU stay is left in the cohort",
            found=" -> ".join(f"{s['remaining']} ({s['reason']})" for s in flow.steps),
            expected="at least one stay",
            do="Check that all files are of the same release, or loosen the settings.",
        )
    icu_death = death_in_icu(
        column(stays, "intime"),
        column(stays, "outtime"),
        column(stays, "deathtime"),
        column(stays, "death_date"),
        settings.icu_death_date,
    )
    stays = stays.append_column("died_in_icu", pa.array(icu_death))
    # In whole seconds, as times are: days with some decimals are seldom a whole number of hours.
    seconds = pc.round(pc.multiply(stays["los"], 86_400.0))
    stays = stays.append_column("los_hours", pc.divide(seconds, 3600.0))
    return stays, every


def _step(stays: pa.Table, keep: Mask, reason: str, flow: Flow) -> pa.Table:
    flow.step("stays", keep, reason)
    return stays.filter(pa.array(keep))


def _no_transfer(stays: pa.Table, flow: Flow) -> pa.Table:
    keep = pc.fill_null(pc.equal(stays["first_unit"], stays["last_unit"]), False)
    return _step(
        stays, keep.to_numpy(zero_copy_only=False), "first and last care unit differ", flow
    )


def _one_stay(stays: pa.Table, flow: Flow) -> pa.Table:
    _, place, count = np.unique(column(stays, "hadm_id"), return_inverse=True, return_counts=True)
    return _step(stays, count[place] == 1, "admission with more than one such stay", flow)
