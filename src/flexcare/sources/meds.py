"""Any MEDS dataset: Parquet shards with subject_id, time, code, numeric_value, text_value.

MEDS has neither stays nor admissions: they are found by their codes (meds_codes.toml). A value is
available at its time, for the format knows no other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pyarrow as pa

from flexcare.errors import UserError
from flexcare.features.variables import Variable, VariableSet, read_variables
from flexcare.sources.events import SEED_SECONDS, tidy_events
from flexcare.sources.meds_shards import reading_shards, rows_of, shards_of
from flexcare.sources.meds_stays import belongs, codes_of, find_stays, literal
from flexcare.sources.tables import FewTables, possible_ages, reading

FREQUENT = 64  # numeric codes that are taken where no variables file fits
FITTING = "mimic_iv"  # the variables file that is tried first
SPLITS = Path("metadata", "subject_splits.parquet")


@dataclass
class Meds(FewTables):
    """A MEDS dataset as tidy tables; see sources.tables.Source and `find_stays`.

    Args:
        path: folder with data/**/*.parquet, a folder of shards, or one shard.
    """

    name: str = "meds"
    variables: str = ""  # the package's file that fits; "": none does, see `own_variables`

    def __post_init__(self) -> None:
        self.shards = shards_of(self.path)
        self.meaning = codes_of(self.path)
        with reading_shards(self.shards):
            self.connection.execute(f"CREATE OR REPLACE TEMP VIEW meds AS {rows_of(self.shards)}")
            self._read_facts()
            find_stays(self.connection, self.meaning)
        self.held_out = self._held_out()
        self.variables = FITTING if self._fits(FITTING) else ""

    def _read_facts(self) -> None:
        """The rows that say who and when, and of every code how many numbers it has."""
        run, meaning = self.connection.execute, self.meaning
        run(
            "CREATE OR REPLACE TEMP TABLE meds_facts AS SELECT subject_id, time, code FROM meds"
            f" WHERE {meaning.structural()} OR {belongs(meaning.diagnosis)}"
        )
        counted = run(
            "SELECT code, count(number), count(text), count(*),"
            " count(*) FILTER (subject_id IS NULL) FROM meds GROUP BY code"
        ).fetchall()
        self.numbers = {code: count for code, count, *_ in counted if code is not None}
        self.texts = sum(texts for _, _, texts, _, _ in counted)
        lost = sum(rows if code is None else nobody for code, _, _, rows, nobody in counted)
        if lost:
            self.dropped["rows without subject_id or code"] += lost

    def _held_out(self) -> frozenset[int] | None:
        """The subjects that the dataset's own splits hold out; None if it has none."""
        path = self.path / SPLITS
        if not path.is_file():
            return None
        sql = f"SELECT subject_id FROM read_parquet({literal(str(path))}) WHERE split = 'held_out'"
        with reading(SPLITS.name):
            found = self.connection.execute(sql).fetchall()
        return frozenset(subject for (subject,) in found) or None

    def _fits(self, name: str) -> bool:
        """Whether at least half of the variables of the package's file have codes here."""
        path = Path(str(files("flexcare.sources") / f"{name}_variables.toml"))
        wanted = {n: v for n, v in read_variables(path).variables.items() if v.items}
        there = {variable for _, _, variable in self._codes_of_items(VariableSet(wanted))}
        return 2 * len(there) >= len(wanted)

    def _codes_of_items(self, variables: VariableSet) -> list[tuple[str, str, int]]:
        """(code, item, variable number) of all codes that an item of a variable stands for.

        An item stands for itself, for what begins with it and "//", and, if it is a number, for
        codes in which it follows one of `numbered`; of a variable's items the longest counts.
        """
        owners: dict[str, list[int]] = {}
        for number, variable in enumerate(variables.variables.values()):
            for item in variable.items:
                owners.setdefault(str(item), []).append(number)
        found = []
        for code in self.numbers:
            parts, taken = code.split("//"), set[int]()
            names = ["//".join(parts[:end]) for end in range(len(parts), 0, -1)]
            if parts[0] in self.meaning.numbered and parts[1:] and parts[1].isdecimal():
                names.append(parts[1])
            for item in names:
                for number in owners.get(item, ()):
                    if number not in taken:
                        taken.add(number)
                        found.append((code, item, number))
        return found

    def own_variables(self, stays: pa.Table) -> VariableSet:
        """The most frequent numeric codes within these stays, as variables without limits; a code's
        median there is taken as normal.

        Args:
            stays: subject_id, intime, outtime; of the training split.

        Raises:
            UserError: no code has a numeric value there.
        """
        self.connection.register("training_stays", stays)
        sql = (
            "SELECT code, median(value) FROM (SELECT *, TRY_CAST(number AS FLOAT) AS value"
            " FROM meds JOIN training_stays USING (subject_id)"
            " WHERE time BETWEEN intime AND outtime) WHERE isfinite(value) AND NOT"
            f" {self.meaning.structural()} GROUP BY code ORDER BY count(*) DESC, code"
            f" LIMIT {FREQUENT}"
        )
        with reading_shards(self.shards):
            found = self.connection.execute(sql).fetchall()
        self.connection.unregister("training_stays")
        if not found:
            raise self._no_numbers()
        tables = {
            code: Variable(unit=_unit(code), items=(code,), normal=median) for code, median in found
        }
        return VariableSet(tables)

    def _no_numbers(self) -> UserError:
        return UserError(
            f"{self.path} has no numeric values for the variables",
            found=f"{sum(self.numbers.values()):,} numeric values of {len(self.numbers):,} codes",
            expected="numeric_value (older: value) in rows within stays",
            do="Fill numeric_value, or text_value and give --variables with categories.",
        )

    def _items(self, variables: VariableSet) -> pa.Table:
        """Which code is which item of which variable."""
        found = self._codes_of_items(variables)
        columns = {"code": pa.string(), "itemid": pa.string(), "variable": pa.int16()}
        parts = zip(*found, strict=True) if found else ((), (), ())
        arrays = [pa.array(part, kind) for part, kind in zip(parts, columns.values(), strict=True)]
        return pa.table(arrays, names=list(columns))

    def subjects(self) -> pa.Table:
        # In the year of the first stay the age is right; later it grows with the year.
        found = self._table(
            "SELECT subject_id, any_value(sex) AS sex,"
            " date_sub('year', any_value(birth), min(intime))::DOUBLE AS anchor_age,"
            " year(min(intime))::INT AS anchor_year, any_value(death)::DATE AS death_date"
            " FROM meds_subjects LEFT JOIN meds_stays USING (subject_id)"
            " GROUP BY subject_id ORDER BY subject_id"
        )
        return possible_ages(found, self.dropped)

    def admissions(self) -> pa.Table:
        return self._table("SELECT * FROM meds_admissions ORDER BY hadm_id")

    def stays(self) -> pa.Table:
        return self._table("SELECT * EXCLUDE own FROM meds_stays ORDER BY stay_id")

    def diagnoses(self) -> pa.Table:
        """ICD codes charted within an admission: DIAGNOSIS//ICD//version//code."""
        entry = self.meaning.diagnosis
        place = len(entry.split("//"))
        return self._table(
            f"SELECT hadm_id, split_part(code, '//', {place + 2}) AS code,"
            f" TRY_CAST(split_part(code, '//', {place + 1}) AS INT) AS version"
            " FROM meds_facts JOIN meds_admissions AS a ON a.subject_id = meds_facts.subject_id"
            f" AND time BETWEEN admittime AND dischtime WHERE {belongs(entry)}"
            " ORDER BY ALL"
        ).drop_null()

    def _table(self, sql: str) -> pa.Table:
        with reading_shards(self.shards):
            return self.connection.sql(sql).to_arrow_table()

    def events(self, stays: pa.Table, variables: VariableSet, clock: str) -> Iterator[pa.Table]:
        """Values of the variables in these stays (columns stay_id, subject_id, intime, outtime,
        los), by subject and time; static codes (without a time) hold from the stay's start."""
        connection = self.connection
        self.files += [shard for shard in self.shards if shard not in self.files]
        kinds = {variable.kind for variable in variables.variables.values()}
        if not (any(self.numbers.values()) or self.texts or kinds & {"codes", "static"}):
            raise self._no_numbers()
        rows = pa.array(range(len(stays)), pa.int32())
        connection.register("cohort_stays", stays.append_column("stay", rows))
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE kept AS SELECT stay, subject_id, intime, outtime,"
            " round(los * 86400) AS length FROM cohort_stays"
        )
        connection.register("meds_items", self._items(variables))
        with reading_shards(self.shards):
            yield from tidy_events(connection, _RAW, variables, clock, self.dropped, self.codes)


# Of a code without a time what follows the item is its text: GENDER//F.
_RAW = f"""
SELECT stay, items.*,
    CASE WHEN coded THEN meds.code
        WHEN meds.time IS NULL THEN coalesce(meds.text, substr(meds.code, length(items.itemid) + 3))
        ELSE meds.text END AS text,
    meds.number,
    CASE WHEN meds.time IS NULL THEN 0 ELSE epoch(meds.time) - epoch(intime) END AS seconds,
    seconds AS stored, length
FROM meds JOIN meds_items USING (code)
    JOIN items ON items.itemid = meds_items.itemid AND items.variable = meds_items.variable
    LEFT JOIN kept ON kept.subject_id = meds.subject_id AND
        CASE WHEN meds.time IS NULL THEN earliest < -{SEED_SECONDS}
            ELSE meds.time <= outtime AND (earliest < -{SEED_SECONDS}
                OR meds.time >= intime - INTERVAL {SEED_SECONDS} SECOND) END
"""


def _unit(code: str) -> str:
    """The last part of a code of three or more, as in LAB//220045//bpm."""
    parts = code.split("//")
    return parts[-1] if len(parts) > 2 else ""
