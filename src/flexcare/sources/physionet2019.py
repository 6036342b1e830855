"""PhysioNet/CinC Challenge 2019: intensive care by the hour, with a label of sepsis for each hour.

A row says what was known of one hour. Here its values are of that hour, visible when it ends, and
the question is asked at that moment: the row k of a stay (from 0) lies in [k, k + 1) and is asked
at k + 1 hours. Hours count from the first row, which the data need not begin with the admission.
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
    reading,
    tidy,
)

SETS = ("A", "B")  # of two hospitals
MEASURED = (
    "HR", "O2Sat", "Temp", "SBP", "MAP", "DBP", "Resp", "EtCO2", "BaseExcess", "HCO3", "FiO2", "pH",
    "PaCO2", "SaO2", "AST", "BUN", "Alkalinephos", "Calcium", "Chloride", "Creatinine",
    "Bilirubin_direct", "Glucose", "Lactate", "Magnesium", "Phosphate", "Potassium",
    "Bilirubin_total", "TroponinI", "Hct", "Hgb", "PTT", "WBC", "Fibrinogen", "Platelets",
)  # fmt: skip
KNOWN = ("Age", "Gender", "Unit1", "Unit2", "HospAdmTime")  # at the start, repeated in every row
HOUR, LABEL = "ICULOS", "SepsisLabel"
COLUMNS = dict.fromkeys((*MEASURED, *KNOWN, HOUR, LABEL), pa.float32())
UNITS = ("unknown", "medical", "surgical")  # neither Unit1 nor Unit2, Unit1, Unit2
START = np.datetime64("2000-01-01", "us")
ONE_HOUR = np.timedelta64(3_600_000_000, "us")


@dataclass
class Physionet2019(FewTables):
    """The archives or folders `training_setA` and `training_setB`, or a folder of psv files.

    With both sets, B is held out: it is of another hospital. Records are subjects, admissions and
    stays at once, with the number of their file.
    """

    name: str = "physionet2019"
    variables: str = "physionet2019"

    @cached_property
    def _archives(self) -> list[Path]:
        found = [locate(self.path, f"training_set{s}", f"training/training_set{s}") for s in SETS]
        there = [path for path in found if path]
        if there:
            return there
        if not any(self.path.glob("*.psv")):
            raise UserError(
                f"{self.path} is not the Challenge 2019",
                found="neither training_setA nor training_setB nor psv files there",
                expected="training_setA as archive or folder",
                do="Check the path; docs/data.md says what goes where.",
            )
        return [self.path]

    @cached_property
    def _records(self) -> Records:
        """All sets as one; `held_out` is set if there are two."""
        sets = [read_records(p, ".psv", "|", COLUMNS, self.dropped) for p in self._archives]
        ids = np.concatenate([one.ids for one in sets])
        if len(np.unique(ids)) < len(ids):
            raise UserError(
                "a record is in both sets",
                found=f"{len(ids) - len(np.unique(ids))} such records",
                expected="the sets as downloaded",
            )
        if len(sets) > 1:
            self.held_out = frozenset(sets[1].ids.tolist())
        shift = np.cumsum([0, *(len(one.ids) for one in sets)])
        record = np.concatenate([s.record + n for s, n in zip(sets, shift, strict=False)])
        table = pa.concat_tables([one.table for one in sets]).combine_chunks()
        return Records(ids, record.astype(np.int32), table)

    def _column(self, name: str) -> NDArray[np.float32]:
        out: NDArray[np.float32] = self._records.table[name].to_numpy()
        return out

    @cached_property
    def _hours(self) -> NDArray[np.int64]:
        """(rows,) the hour of each row, 0 for a stay's first.

        Raises:
            UserError: the hours in the unit do not rise from row to row.
        """
        record, hour = self._records.record, self._column(HOUR)
        same = np.diff(record) == 0
        wrong = np.isnan(hour) | (hour != np.round(hour))
        wrong[1:] |= same & ~(np.diff(hour) > 0)
        if wrong.any():
            raise UserError(
                f"{HOUR} does not count the hours",
                found=f"{wrong.sum()} such rows of {len(hour)}",
                expected="a whole number that rises from row to row",
                do="Download it again and compare its checksum.",
            )
        first = np.searchsorted(record, np.arange(len(self._records.ids)))
        return (hour - hour[first[record]]).astype(np.int64)

    @cached_property
    def _lengths(self) -> NDArray[np.int64]:
        """(records,) hours of each stay."""
        out = np.zeros(len(self._records.ids), np.int64)
        np.maximum.at(out, self._records.record, self._hours + 1)
        return out

    @cached_property
    def _start(self) -> dict[str, NDArray[np.float32]]:
        """(records,) what the first row says of the patient, NaN where missing."""
        ids, record = self._records.ids, self._records.record
        first = np.searchsorted(record, np.arange(len(ids)))
        some = np.bincount(record, minlength=len(ids)) > 0
        out = {}
        for name in KNOWN:
            values = np.append(self._column(name), np.float32(np.nan))
            out[name] = np.where(some, values[first], np.nan).astype(np.float32)
        impossible = (out["Age"] < 0) | (out["Age"] > OLDEST)
        if impossible.any():
            self.dropped["impossible ages, taken as missing"] += int(impossible.sum())
        out["Age"] = np.where(impossible, np.nan, out["Age"]).astype(np.float32)
        nothing = np.isnan(np.stack(list(out.values()))).all(axis=0)
        if nothing.any():
            self.dropped["records without descriptors, kept"] += int(nothing.sum())
        unit = np.where(out.pop("Unit1") == 1, 1.0, np.where(out.pop("Unit2") == 1, 2.0, np.nan))
        return out | {"Unit": unit.astype(np.float32)}

    def subjects(self) -> pa.Table:
        ids, start = self._records.ids, self._start
        sex = np.array(["F", "M", None], object)
        gender = np.nan_to_num(start["Gender"], nan=2).astype(np.int64)
        return tidy(
            SUBJECTS,
            subject_id=ids,
            sex=sex[np.where((gender == 0) | (gender == 1), gender, 2)].tolist(),
            anchor_age=start["Age"].astype(np.float64),
            anchor_year=np.full(len(ids), 2000, np.int32),
        )

    def _times(self) -> tuple[NDArray[np.datetime64], NDArray[np.datetime64]]:
        return np.full(len(self._lengths), START), START + self._lengths * ONE_HOUR

    def admissions(self) -> pa.Table:
        """One a stay; nobody knows who died."""
        ids, (start, stop) = self._records.ids, self._times()
        times = {"admittime": start, "dischtime": stop}
        return tidy(ADMISSIONS, hadm_id=ids, subject_id=ids, admission_type=self._units(), **times)

    def _units(self) -> list[str]:
        return [UNITS[int(number)] for number in np.nan_to_num(self._start["Unit"])]

    def stays(self) -> pa.Table:
        """As long as there are rows."""
        ids, (start, stop), units = self._records.ids, self._times(), self._units()
        keys = {"stay_id": ids, "hadm_id": ids, "subject_id": ids}
        times = {"intime": start, "outtime": stop, "los": self._lengths / 24}
        return tidy(STAYS, **keys, **times, first_unit=units, last_unit=units)

    def answers(self) -> pa.Table:
        """`sepsis` at the end of every hour: 1 from 6 h before its onset on."""
        records = self._records
        name = pa.DictionaryArray.from_arrays(np.zeros(len(records.record), np.int8), ["sepsis"])
        return tidy(
            ANSWERS,
            stay_id=records.ids[records.record],
            name=name.cast(pa.string()),
            hours=self._hours + 1.0,
            value=self._column(LABEL).astype(np.float64),
        )

    def events(self, stays: pa.Table, variables: VariableSet, clock: str) -> Iterator[pa.Table]:
        """What each hour's row says, visible when the hour ends; what is known at the start.

        An hour has but one such moment, so both clocks are this one.
        """
        self.files += [file for path in self._archives for file in files_of(path, ".psv")]
        records = self._records
        place = pc.index_in(pa.array(records.ids), value_set=stays["stay_id"].combine_chunks())
        row = place.take(pa.array(records.record)).cast(pa.int32())
        wanted = {item for one in variables.variables.values() for item in one.items}
        columns = [name for name in (*MEASURED, HOUR) if name in wanted]
        rows = records.table.select(columns)
        rows = rows.append_column("stay", row).append_column("hour", pa.array(self._hours))
        self.connection.register("hourly", rows)
        self.connection.register("known", pa.table({"stay": place.cast(pa.int32()), **self._start}))
        names = ", ".join(f'"{name}"' for name in columns)
        known = ", ".join(f'"{name}"' for name in self._start)
        raw = (
            "SELECT stay, items.*, NULL::VARCHAR AS text, number, seconds, stored,"
            f" {2**31} AS length FROM (SELECT stay, itemid, number, hour * 3600 AS seconds,"
            f" hour * 3600 + 3600 AS stored FROM (UNPIVOT hourly ON {names}"
            " INTO NAME itemid VALUE number)"
            " UNION ALL SELECT stay, itemid, number, 0, 0"
            f" FROM (UNPIVOT known ON {known} INTO NAME itemid VALUE number)"
            " WHERE NOT isnan(number)) JOIN items USING (itemid)"
        )
        with reading("the hourly values"):
            yield from tidy_events(self.connection, raw, variables, "storetime", self.dropped)
        self.connection.unregister("hourly")
        self.connection.unregister("known")
