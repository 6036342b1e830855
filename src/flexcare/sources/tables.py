"""The tidy tables every source yields, and the reading of raw csv files by DuckDB.

A raw file is read as text in one stream; what cannot be a number or a time is counted and
becomes null, and is refused where it is a key.
"""

import csv
import errno
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flexcare.errors import UserError, missing_column
from flexcare.features.variables import VariableSet

# What a source gives. Times are naive; `available_at` is when the hospital could see it.
SUBJECTS = "subject_id BIGINT, sex VARCHAR, anchor_age DOUBLE, anchor_year INT, death_date DATE"
ADMISSIONS = (
    "hadm_id BIGINT, subject_id BIGINT, admittime TIMESTAMP, dischtime TIMESTAMP,"
    " deathtime TIMESTAMP, died BOOLEAN, admission_type VARCHAR, insurance VARCHAR, race VARCHAR"
)
STAYS = (
    "stay_id BIGINT, hadm_id BIGINT, subject_id BIGINT, intime TIMESTAMP, outtime TIMESTAMP,"
    " los DOUBLE, first_unit VARCHAR, last_unit VARCHAR"  # los in days
)
DIAGNOSES = "hadm_id BIGINT, code VARCHAR, version INT"
DRGS = "hadm_id BIGINT, code VARCHAR"
IMAGES = (
    "image_id VARCHAR, study_id BIGINT, subject_id BIGINT, time TIMESTAMP, path VARCHAR,"
    " findings FLOAT[]"  # 1, 0, or null where the label is uncertain or blank
)
DOCUMENTS = (
    "document_id VARCHAR, subject_id BIGINT, hadm_id BIGINT, kind VARCHAR, time TIMESTAMP,"
    " available_at TIMESTAMP, text VARCHAR"
)
# Outcomes that the data set states itself: `hours` from the stay's start at which one is asked for,
# null: of the whole stay; `value` 0 or 1, a number, or a class; null: unknown.
ANSWERS = "stay_id BIGINT, name VARCHAR, hours DOUBLE, value DOUBLE"
TYPES = {
    "BIGINT": pa.int64(),
    "INT": pa.int32(),
    "DOUBLE": pa.float64(),
    "VARCHAR": pa.string(),
    "BOOLEAN": pa.bool_(),
    "DATE": pa.date32(),
    "TIMESTAMP": pa.timestamp("us"),
    "FLOAT[]": pa.list_(pa.float32()),
}
# When a text that is there can be read as each type; a key has no decimals to be rounded away.
READABLE = dict.fromkeys(
    ("VARCHAR", "DOUBLE", "INT", "BOOLEAN", "DATE", "TIMESTAMP"),
    'TRY_CAST("{c}" AS {kind}) IS NOT NULL',
) | {"BIGINT": """regexp_full_match("{c}", '-?[0-9]+')"""}
OLDEST = 120  # years
ENDINGS = (".csv.gz", ".csv", ".txt")
_PLAIN = (duckdb.IOException, duckdb.InvalidInputException, duckdb.OutOfMemoryException)


class Source(Protocol):
    """A place patients come from.

    Attributes:
        name: as on the command line.
        path: folder of its tables.
        variables: the variables file of the package that fits it.
        files: raw files read so far.
        dropped: counts of what was left out, by reason.
        held_out: subjects that the data set itself sets apart for the last test, once `subjects`
            was read; None: a hash decides.
        codes: by variable of codes, the code of each number; filled by `events`.
        vectors: by variable of embeddings, (rows, width) float32; filled by `events`.
    """

    name: str
    path: Path
    variables: str
    finding_names: tuple[str, ...]
    files: list[Path]
    dropped: Counter[str]
    held_out: frozenset[int] | None
    codes: dict[str, list[str]]
    vectors: dict[str, NDArray[np.float32]]

    def subjects(self) -> pa.Table: ...
    def admissions(self) -> pa.Table: ...
    def stays(self) -> pa.Table: ...
    def diagnoses(self) -> pa.Table: ...
    def drgs(self) -> pa.Table: ...
    def images(self) -> pa.Table: ...
    def documents(self) -> Iterator[pa.RecordBatch]: ...
    def answers(self) -> pa.Table: ...
    def events(self, stays: pa.Table, variables: VariableSet, clock: str) -> Iterator[pa.Table]:
        """Sorted events of these stays: stay (row of `stays`), seconds, available, variable,
        value; see features.series.Events."""
        ...


@runtime_checkable
class FindsVariables(Protocol):
    """A source whose `variables` may be "": it then finds them in what the training split has."""

    def own_variables(self, stays: pa.Table) -> VariableSet: ...


@runtime_checkable
class GivesWaves(Protocol):
    """A source with records of waves: by variable of waves, the file of each row."""

    waves: dict[str, list[Path]]


def tidy(columns: str, **values: Any) -> pa.Table:
    """A table of these columns (ANSWERS and the like); those that are not given are null."""
    fields = [tuple(part.split()) for part in columns.split(", ")]
    rows = len(next(iter(values.values()), ()))
    arrays = [
        pa.array(values[name], TYPES[kind], from_pandas=True)
        if name in values
        else pa.nulls(rows, TYPES[kind])
        for name, kind in fields
    ]
    return pa.table(arrays, names=[name for name, _ in fields])


def possible_ages(subjects: pa.Table, dropped: Counter[str]) -> pa.Table:
    """SUBJECTS with the ages outside 0 to OLDEST years missing, and counted."""
    ages = subjects["anchor_age"]
    wrong = pc.fill_null(pc.or_(pc.less(ages, 0), pc.greater(ages, OLDEST)), False)
    if count := pc.sum(wrong).as_py():
        dropped["impossible ages, taken as missing"] = count
    place = subjects.column_names.index("anchor_age")
    possible = pc.if_else(wrong, pa.scalar(None, ages.type), ages)
    return subjects.set_column(place, "anchor_age", possible)


@dataclass
class FewTables:
    """A source without the tables that not every data set has: they are empty."""

    path: Path
    connection: duckdb.DuckDBPyConnection
    finding_names: tuple[str, ...] = ()
    files: list[Path] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    held_out: frozenset[int] | None = None
    codes: dict[str, list[str]] = field(default_factory=dict)
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def diagnoses(self) -> pa.Table:
        return tidy(DIAGNOSES)

    def drgs(self) -> pa.Table:
        return tidy(DRGS)

    def images(self) -> pa.Table:
        return tidy(IMAGES)

    def documents(self) -> Iterator[pa.RecordBatch]:
        return iter(())

    def answers(self) -> pa.Table:
        return tidy(ANSWERS)


@dataclass
class RawFolder:
    """A folder of csv or csv.gz files, read through one DuckDB connection."""

    path: Path
    connection: duckdb.DuckDBPyConnection
    files: list[Path]
    dropped: Counter[str]

    def find(self, name: str, what: str = "") -> Path:
        """The file of a table, with one of ENDINGS, which must be there."""
        found = self.optional(name)
        if found is None:
            raise UserError(
                f"table {name} is missing",
                found=f"no {name} with {', '.join(ENDINGS)} in {self.path}",
                expected=what or "the folder as downloaded, with this table",
                do="Check the path; docs/data.md says what goes where.",
            )
        return found

    def optional(self, name: str) -> Path | None:
        """The file of a table that may be absent."""
        for ending in ENDINGS:
            path = self.path / (name + ending)
            if path.is_file():
                return path
        return None

    def text(self, name: str, columns: tuple[str, ...]) -> str:
        """SQL that reads these columns of a table as text; checks that they are there."""
        path = self.find(name)
        if path not in self.files:
            self.files.append(path)
        header = _header(path)
        for column in columns:
            if column not in header:
                raise missing_column(path.name, column, header)
        kinds = ", ".join(f"'{column}': 'VARCHAR'" for column in header)
        wanted = ", ".join(f'"{column}"' for column in columns)
        return (
            f"(SELECT {wanted} FROM read_csv('{_quoted(path)}', auto_detect=false, header=true,"
            f" delim=',', quote='\"', escape='\"', columns={{{kinds}}}))"
        )

    def typed(self, name: str, columns: dict[str, str], key: str | None = None) -> pa.Table:
        """These columns of a small table, with types.

        Args:
            columns: name -> DuckDB type.
            key: a column whose values must differ from row to row; every BIGINT must be there.
        """
        raw = self.query(f"SELECT * FROM {self.text(name, tuple(columns))}", name)
        casts = ", ".join(f'TRY_CAST("{c}" AS {kind}) AS "{c}"' for c, kind in columns.items())
        faults = ", ".join(
            f"count(*) FILTER (\"{c}\" <> '' AND NOT ({READABLE[kind].format(c=c, kind=kind)}))"
            for c, kind in columns.items()
        )
        with self.connection.cursor() as cursor:
            cursor.register("raw", raw)
            table = cursor.sql(f"SELECT {casts} FROM raw").to_arrow_table()
            counts = cursor.sql(f"SELECT {faults} FROM raw").fetchall()[0]
        identifiers = [c for c, kind in columns.items() if kind == "BIGINT"]
        for column, count in zip(columns, counts, strict=True):
            if count and column in identifiers:
                raise UserError(
                    f"{name}: column {column} holds keys that are no numbers",
                    found=f"{count} such rows of {raw.num_rows}",
                    expected="whole numbers",
                    do="Repair the file or download it again.",
                )
            if count:
                self.dropped[f"{name}: {column} cannot be read, taken as missing"] += count
        if key is not None:
            for column in identifiers:
                self._check_filled(name, column, table)
            self.check_key(name, key, table)
        return table

    def _check_filled(self, name: str, column: str, table: pa.Table) -> None:
        if table[column].null_count:
            raise UserError(
                f"{name}: rows without {column}",
                found=f"{table[column].null_count} of {len(table)}",
                expected="a value in every row",
                do="Repair the file or download it again.",
            )

    def check_key(self, name: str, key: str, table: pa.Table) -> None:
        """Refuse a table in which two rows have the same key."""
        column = table[key]
        repeated = len(column) - len(column.unique())
        if repeated:
            raise UserError(
                f"{name}: {key} is not unique",
                found=f"{repeated} rows repeat a {key} of another row",
                expected=f"one row for each {key}",
                do="Remove the duplicates: which of two rows is right cannot be told here.",
            )

    def query(self, sql: str, name: str) -> pa.Table:
        """Run SQL over raw files; a damaged file is a `UserError` that names the table only."""
        with reading(name), self.connection.cursor() as cursor:
            return cursor.sql(sql).to_arrow_table()


class reading:
    """Turns DuckDB's complaint about a damaged file into a `UserError` without the row."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, duckdb.Error):
            if any(text in str(error) for text in ("No space left", "quota exceeded", "too large")):
                raise OSError(errno.ENOSPC, "no space left for the temporary files") from None
            if isinstance(error, duckdb.OutOfMemoryException):
                raise UserError(
                    f"reading {self.name} ran out of memory or disk",
                    found=_first_line(error),
                    expected="room for what does not fit into memory, beside the result",
                    do="Free some memory or disk, or choose another place.",
                ) from None
            raise UserError(
                f"table {self.name} cannot be read to its end",
                found=_first_line(error),
                expected="a whole file",
                do="Download it again and compare its checksum.",
            ) from None


def _first_line(error: duckdb.Error) -> str:
    """What is wrong and in which file, without the contents of the row."""
    place = re.search(r"^  file = (.*)$", str(error), re.MULTILINE)
    line = str(error).splitlines()[0] if isinstance(error, _PLAIN) else type(error).__name__
    return f"{line}, {Path(place.group(1)).name}" if place else line


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _header(path: Path) -> list[str]:
    """Column names of a csv or csv.gz file."""
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        found = type(error).__name__ if isinstance(error, UnicodeDecodeError) else str(error)
        raise UserError(
            f"{path.name} cannot be read",
            found=found,
            expected="a whole csv or csv.gz file",
            do="Download it again and compare its checksum.",
        ) from error
    if not header:
        raise UserError(f"{path.name} is empty", expected="a line of column names, then rows")
    return header
