"""Reads the tables of a folder as texts into DuckDB, with the row of each, and notes what is wrong.

Cells that are empty are null. What cannot be read as a table is a fault; reading goes on
as far as it can, so that one report names them all.
"""

import csv
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import duckdb
import pyarrow as pa

from flexcare.errors import UserError
from flexcare.sources.flat.faults import Faults
from flexcare.sources.flat.layout import ENDINGS, TABLES, Table

BATCH = 50_000  # rows of a csv file turned into columns at once
LONGEST = 2**31 - 1  # characters of a cell
SEPARATORS = ";\t|"  # that a csv file may have in place of commas
_TEXT = "nullif(trim(\"{c}\"::VARCHAR), '')"
_VECTOR = {
    "csv": "TRY_CAST(string_split(trim(\"{c}\"), ' ') AS FLOAT[])",
    "parquet": 'TRY_CAST("{c}" AS FLOAT[])',
}


def find_tables(folder: Path, faults: Faults) -> dict[str, Path]:
    """The file of each table that is there.

    Raises:
        UserError: no such folder.
    """
    if not folder.is_dir():
        raise UserError(
            f"no folder {folder}",
            expected="a folder of flat tables",
            do="Check the path; `flexcare template flat DIR` writes an example.",
        )
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        ending = next((e for e in reversed(ENDINGS) if path.name.endswith(e)), None)
        if ending is None or not path.is_file():
            continue
        name = path.name.removesuffix(ending)
        if name not in TABLES:
            faults.add(path.name, "", "one of the tables " + ", ".join(TABLES), "another name")
        elif name in found:
            faults.add(path.name, "", "each table once", f"{found[name].name} beside it")
        else:
            found[name] = path
    for name, table in TABLES.items():
        if table.needed and name not in found:
            faults.add(f"{name}.csv", "", "this table, as " + " or ".join(ENDINGS), "no such file")
    return found


def read_table(
    connection: duckdb.DuckDBPyConnection, name: str, path: Path | None, faults: Faults
) -> set[str]:
    """Make the table flat_NAME: row, and every column of the layout.

    Returns:
        the columns that the file has.
    """
    table = TABLES[name]
    kinds = {c: "FLOAT[]" if v.cells == "vector" else "VARCHAR" for c, v in table.columns.items()}
    columns = ", ".join(f'"{column}" {kind}' for column, kind in kinds.items())
    connection.execute(f"CREATE OR REPLACE TABLE flat_{name} (row BIGINT, {columns})")
    if path is None:
        return set()
    read = _read_parquet if path.suffix == ".parquet" else _read_csv
    try:
        return read(connection, name, path, faults)
    except (OSError, EOFError, zlib.error, csv.Error, duckdb.Error, UnicodeError) as error:
        found = type(error).__name__ if isinstance(error, duckdb.Error) else str(error)
        faults.add(path.name, "", "a whole file that can be read to its end", found or "an end")
        return set()


def _read_csv(
    connection: duckdb.DuckDBPyConnection, name: str, path: Path, faults: Faults
) -> set[str]:
    csv.field_size_limit(LONGEST)
    with _opened(path) as file:
        first = file.readline()
        comma = _separator(first, path.name, faults)
        header = next(csv.reader([first], delimiter=comma), [])
        file.seek(0)
        reader = csv.reader(file, delimiter=comma)
        next(reader, None)
        there = _check_header(header, TABLES[name], path.name, faults)
        for batch in _batches(reader, header, path.name, faults):
            _insert(connection, name, batch, there, "csv")
    return there


def _opened(path: Path) -> IO[str]:
    """A csv file as text, a byte-order mark passed over; what is not UTF-8 becomes U+FFFD."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="replace", newline="")
    return path.open(encoding="utf-8-sig", errors="replace", newline="")


def _separator(first: str, file: str, faults: Faults) -> str:
    """The separator of a csv file by its line of column names; all but the comma are faults."""
    found = max(SEPARATORS, key=first.count)
    if "," in first or not first.count(found):
        return ","
    names = {";": "semicolons", "\t": "tabs", "|": "bars"}
    faults.add(file, "", "commas between the cells", names[found], row=1)
    return found


def _check_header(header: list[str], table: Table, file: str, faults: Faults) -> set[str]:
    """The known columns of a header; faults of what is missing, unknown, or there twice."""
    there = set()
    for column in header:
        if column not in table.columns:
            expected = "one of the columns " + ", ".join(table.columns)
            faults.add(file, "", expected, f"a column {column!r}", row=1)
        elif column in there:
            faults.add(file, column, "each column once", "it twice", row=1)
        there.add(column)
    for column, about in table.columns.items():
        if about.needed and column not in there:
            faults.add(file, column, "this column", "no column of this name", row=1)
    return there & set(table.columns)


def _batches(
    reader: Iterator[list[str]], header: list[str], file: str, faults: Faults
) -> Iterator[pa.Table]:
    """Rows as columns of text, with their row numbers; rows of another width are left out."""
    rows: list[list[str]] = []
    numbers: list[int] = []
    expected = f"{len(header)} cells; one that holds a comma stands between quotes"
    for number, cells in enumerate(reader, start=2):
        if len(cells) == len(header):
            rows.append(cells)
            numbers.append(number)
        elif cells:
            faults.add(file, "", expected, f"{len(cells)} cells", row=number)
        if len(rows) == BATCH:
            yield _columns(rows, numbers, header)
            rows, numbers = [], []
    if rows:
        yield _columns(rows, numbers, header)


def _columns(rows: list[list[str]], numbers: list[int], header: list[str]) -> pa.Table:
    columns = dict(zip(header, map(list, zip(*rows, strict=True)), strict=False))
    return pa.table({"row": numbers} | {n: pa.array(v, pa.string()) for n, v in columns.items()})


def _insert(
    connection: duckdb.DuckDBPyConnection, name: str, batch: pa.Table, there: set[str], form: str
) -> None:
    """Add rows of a registered or given table to flat_NAME."""
    connection.register("batch", batch)
    connection.execute(
        f"INSERT INTO flat_{name} SELECT row, {_cells(name, there, form)} FROM batch"
    )
    connection.unregister("batch")


def _cells(name: str, there: set[str], form: str) -> str:
    """SQL of all columns of a table, null where the file has none."""
    out = []
    for column, about in TABLES[name].columns.items():
        sql = _VECTOR[form] if about.cells == "vector" else _TEXT
        out.append(sql.format(c=column) if column in there else "NULL")
    return ", ".join(out)


def _read_parquet(
    connection: duckdb.DuckDBPyConnection, name: str, path: Path, faults: Faults
) -> set[str]:
    quoted = str(path).replace("'", "''")
    source = f"read_parquet('{quoted}', file_row_number = true)"
    header = [row[0] for row in connection.execute(f"DESCRIBE FROM {source}").fetchall()]
    header.remove("file_row_number")
    there = _check_header(header, TABLES[name], path.name, faults)
    connection.execute(
        f"INSERT INTO flat_{name} SELECT file_row_number + 1, {_cells(name, there, 'parquet')}"
        f" FROM {source}"
    )
    return there
