"""PhysioNet/CinC Challenge 2012: 48 hours of intensive care, with outcomes, in sets a and b.

Each stay is what the data show of it: 48 h, whatever came later. Outcomes are answers only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flexcare.errors import UserError
from flexcare.features.variables import VariableSet
from flexcare.sources.archives import Records, files_of, locate, read_records
from flexcare.sources.events import tidy_events
from flexcare.sources.tables import (
    ADMISSIONS,
    ANSWERS,
    OLDEST,
    STAYS,
    SUBJECTS,
    FewTables,
    RawFolder,
    reading,
    tidy,
)

SETS = ("a", "b")  # b is the test set
COLUMNS = {"Time": pa.string(), "Parameter": pa.string(), "Value": pa.string()}
OUTCOMES = {
    "RecordID": "BIGINT",
    "Length_of_stay": "DOUBLE",
    "Survival": "DOUBLE",
    "In-hospital_death": "DOUBLE",
}
DESCRIPTORS = ("RecordID", "Age", "Gender", "Height", "ICUType", "Weight")
UNITS = {1: "coronary care", 2: "cardiac surgery recovery", 3: "medical", 4: "surgical"}
START = np.datetime64("2000-01-01", "us")
OBSERVED_DAYS = 2
MISSING = -1  # of descriptors and outcomes
DAY = np.timedelta64(86_400_000_000, "us")
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """Everything of the sets that are there, records in order.

    Attributes:
        ids: (records,) RecordID; first_of_b: row of the first that is of set b.
        descriptors: (records,) by name, NaN where missing.
        rows: stay_id, itemid, seconds, number (as text) of all that was charted.
    """

    ids: NDArray[np.int64]
    first_of_b: int
    descriptors: dict[str, Numbers]
    rows: pa.Table


@dataclass
class Physionet2012(FewTables):
    """The archives `set-a` and `set-b` (or one) with `Outcomes-a.txt` and `Outcomes-b.txt`.

    Records are subjects, admissions and stays at once, with one number.
    """

    name: str = "physionet2012"
    variables: str = "physionet2012"

    @cached_property
    def _archives(self) -> dict[str, Path]:
        """Archive or folder by the name of its set."""
        found = {name: locate(self.path, f"set-{name}") for name in SETS}
        there = {name: path for name, path in found.items() if path}
        if not there:
            raise UserError(
                f"{self.path} is not the Challenge 2012",
                found="neither set-a nor set-b there",
                expected="set-a.tar.gz, set-b.tar.gz, or the folders they hold",
                do="Check the path; docs/data.md says what goes where.",
            )
        return there

    @cached_property
    def _measured(self) -> Measured:
        paths = self._archives.values()
        sets = [read_records(path, ".txt", ",", COLUMNS, self.dropped) for path in paths]
        ids = np.concatenate([one.ids for one in sets])
        if len(np.unique(ids)) < len(ids):
            raise UserError(
                "a record is in both sets",
                found=f"{len(ids) - len(np.unique(ids))} such records",
                expected="set a and set b as downloaded",
            )
        first_of_b = len(sets[0].ids) if "a" in self._archives else 0
        return self._sorted_out(ids, first_of_b, sets)

    def _sorted_out(self, ids: NDArray[np.int64], first_of_b: int, sets: list[Records]) -> Measured:
        """Descriptors apart from what was charted."""
        shift = np.cumsum([0, *(len(one.ids) for one in sets)])
        record = np.concatenate([s.record + n for s, n in zip(sets, shift, strict=False)])
        table = pa.concat_tables([one.table for one in sets]).combine_chunks()
        name = table["Parameter"].combine_chunks()
        time = table["Time"].combine_chunks().dictionary_encode()
        place = pc.index_in(name, value_set=pa.array(DESCRIPTORS)).fill_null(-1).to_numpy()
        at_start = np.array([text == "00:00" for text in time.dictionary.to_pylist()], bool)
        # A weight is charted later, too, perhaps at 00:00: the first one there is the descriptor.
        candidate = np.flatnonzero((place >= 0) & at_start[time.indices.to_numpy()])
        keys, first = np.unique(
            record[candidate] * len(DESCRIPTORS) + place[candidate], return_index=True
        )
        chosen = candidate[first]
        values = np.full((len(DESCRIPTORS), len(ids)), np.nan)
        values[keys % len(DESCRIPTORS), keys // len(DESCRIPTORS)] = _numbers(
            table["Value"].take(pa.array(chosen))
        )
        charted = (place < 0) | (place == DESCRIPTORS.index("Weight"))
        charted[chosen] = False
        rows = np.flatnonzero(charted)
        seconds = _seconds(time.dictionary.to_pylist())[time.indices.to_numpy()[rows]]
        return Measured(
            ids,
            first_of_b,
            self._described(ids, values),
            pa.table(
                {
                    "stay_id": ids[record[rows]],
                    "itemid": name.take(pa.array(rows)),
                    "seconds": pa.array(seconds, from_pandas=True),
                    "number": table["Value"].take(pa.array(rows)),
                }
            ),
        )

    def _described(self, ids: NDArray[np.int64], values: Numbers) -> dict[str, Numbers]:
        """The descriptors by name; NaN where missing or impossible."""
        values[values == MISSING] = np.nan
        described = dict(zip(DESCRIPTORS, values, strict=True))
        named = described.pop("RecordID")
        wrong = ~np.isnan(named) & (named != ids)
        if wrong.any():
            raise UserError(
                "files whose RecordID is not their name",
                found=f"{wrong.sum()} of {len(ids)}",
                expected="132539.txt for record 132539",
                do="Download the archives again.",
            )
        age = described["Age"]
        impossible = (age < 0) | (age > OLDEST)
        described["Age"] = np.where(impossible, np.nan, age)
        nothing = np.isnan(values[1:]).all(axis=0)
        counts = {"impossible ages, taken as missing": impossible,
                  "records without descriptors, kept": nothing}  # fmt: skip
        self.dropped.update({reason: int(n.sum()) for reason, n in counts.items() if n.any()})
        return described

    @cached_property
    def _outcomes(self) -> dict[str, Numbers]:
        """Columns of the outcome files in the order of the records; NaN where unknown."""
        folder = RawFolder(self.path, self.connection, self.files, self.dropped)
        tables = [folder.typed(f"Outcomes-{s}", OUTCOMES, key="RecordID") for s in self._archives]
        table = pa.concat_tables(tables)
        place = pc.index_in(pa.array(self._measured.ids), value_set=table["RecordID"])
        missing = place.null_count
        if missing:
            self.dropped["records without outcomes, kept"] += missing
        out = {}
        for name in list(OUTCOMES)[1:]:
            column = table[name].combine_chunks().take(place)
            out[name] = column.to_numpy(zero_copy_only=False).astype(np.float64)
        stay = out["Length_of_stay"]
        out["Length_of_stay"] = np.where(stay < 0, np.nan, stay)
        return out

    def subjects(self) -> pa.Table:
        measured = self._measured
        if 0 < measured.first_of_b < len(measured.ids):
            self.held_out = frozenset(measured.ids[measured.first_of_b :].tolist())
        sex = np.array(["F", "M", None], object)
        gender = np.nan_to_num(measured.descriptors["Gender"], nan=2).astype(np.int64)
        return tidy(
            SUBJECTS,
            subject_id=measured.ids,
            sex=sex[np.where((gender == 0) | (gender == 1), gender, 2)].tolist(),
            anchor_age=measured.descriptors["Age"],
            anchor_year=np.full(len(measured.ids), 2000, np.int32),
        )

    def admissions(self) -> pa.Table:
        """One a stay; Length_of_stay counts whole days to the end of the hospital stay."""
        ids, outcomes = self._measured.ids, self._outcomes
        days = outcomes["Length_of_stay"]
        ends = np.where(
            np.isnan(days), np.datetime64("NaT"), START + np.nan_to_num(days).astype(int) * DAY
        )
        died = [None if np.isnan(one) else bool(one) for one in outcomes["In-hospital_death"]]
        return tidy(
            ADMISSIONS,
            hadm_id=ids,
            subject_id=ids,
            admittime=np.full(len(ids), START),
            dischtime=ends,
            died=died,
            admission_type=self._units(),
        )

    def _units(self) -> list[str]:
        kinds = np.nan_to_num(self._measured.descriptors["ICUType"])
        return [UNITS.get(int(kind), "unknown") for kind in kinds]

    def stays(self) -> pa.Table:
        """The 48 hours that the data show."""
        ids, units = self._measured.ids, self._units()
        return tidy(
            STAYS,
            stay_id=ids,
            hadm_id=ids,
            subject_id=ids,
            intime=np.full(len(ids), START),
            outtime=np.full(len(ids), START + OBSERVED_DAYS * DAY),
            los=np.full(len(ids), float(OBSERVED_DAYS)),
            first_unit=units,
            last_unit=units,
        )

    def answers(self) -> pa.Table:
        """Of each stay: death in hospital, death within a year, days in hospital.

        Survival counts days to death; -1 says that no death is known, which is taken as alive
        after a year, since deaths were looked up years later. Any other negative number is an
        error of the data and unknown; who died in hospital by the flag is dead in any case.
        """
        ids, outcomes = self._measured.ids, self._outcomes
        dead, survival = outcomes["In-hospital_death"], outcomes["Survival"]
        within = np.where(survival == MISSING, 0.0, (survival <= 365) * 1.0)
        within[np.isnan(survival) | ((survival < 0) & (survival != MISSING))] = np.nan
        days = outcomes["Length_of_stay"]
        columns = {
            "in_hospital_death": dead,
            "death_within_a_year": np.where(dead == 1, 1.0, within),
            "days_in_hospital": days,
            # Under two days contradicts that the stay was observed for two.
            "days_after_two": np.where(days < OBSERVED_DAYS, np.nan, days - OBSERVED_DAYS),
        }
        return pa.concat_tables(
            tidy(ANSWERS, stay_id=ids, name=[name] * len(ids), value=values)
            for name, values in columns.items()
        )

    def events(self, stays: pa.Table, variables: VariableSet, clock: str) -> Iterator[pa.Table]:
        """What was charted in these stays, and their descriptors at their start.

        The data have one time a value, so both clocks are this one.
        """
        measured = self._measured
        self.files += [p for path in self._archives.values() for p in files_of(path, ".txt")]
        names = {item for one in variables.variables.values() for item in one.items}
        unknown = pc.invert(pc.is_in(measured.rows["itemid"], value_set=pa.array(sorted(names))))
        if count := pc.sum(unknown).as_py():
            self.dropped["rows of parameters that no variable names"] += count
        self.connection.register("charted", pa.concat_tables([measured.rows, _static(measured)]))
        row = pa.array(range(len(stays)), pa.int32())
        self.connection.register("kept", stays.select(["stay_id"]).append_column("stay", row))
        raw = (
            "SELECT stay, items.*, NULL::VARCHAR AS text, number, seconds, seconds AS stored,"
            f" {OBSERVED_DAYS * 86_400} AS length"
            " FROM charted JOIN items USING (itemid) LEFT JOIN kept USING (stay_id)"
        )
        with reading("the charted values"):
            yield from tidy_events(self.connection, raw, variables, clock, self.dropped)
        self.connection.unregister("charted")


def _static(measured: Measured) -> pa.Table:
    """Descriptors as rows at the stay's start."""
    tables = []
    for name, values in measured.descriptors.items():
        there = ~np.isnan(values)
        text = pa.array(values[there]).cast(pa.string())
        columns = {
            "stay_id": measured.ids[there],
            "itemid": pa.array([f"descriptor {name}"] * int(there.sum()), pa.string()),
            "seconds": np.zeros(int(there.sum())),
            "number": text,
        }
        tables.append(pa.table(columns))
    return pa.concat_tables(tables)


def _numbers(texts: pa.ChunkedArray) -> Numbers:
    """Texts as numbers, NaN where they are none."""
    out = np.full(len(texts), np.nan)
    for place, text in enumerate(texts.to_pylist()):
        try:
            out[place] = float(text)
        except (TypeError, ValueError):
            continue
    return out


def _seconds(times: list[str | None]) -> Numbers:
    """hh:mm as seconds; NaN where it is something else."""
    out = np.full(len(times), np.nan)
    for place, time in enumerate(times):
        hours, _, minutes = (time or "").partition(":")
        if hours.isdecimal() and minutes.isdecimal():
            out[place] = 3600 * int(hours) + 60 * int(minutes)
    return out
