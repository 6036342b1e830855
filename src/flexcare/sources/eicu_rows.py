"""The measurements of eICU as raw rows for sources.events: SQL, table by table."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flexcare.errors import UserError
from flexcare.sources.tables import RawFolder

GRID = "hourly"  # folder of the demo's grid, and the beginning of its items
ABSENT = ("lab", "vitalperiodic")  # the grid stands for these where they are not there
LAST_OF_HOUR = 3599  # a row of the grid is about the hour that begins at its time


@dataclass(frozen=True)
class Long:
    """A table with a row a value: columns of its offset, of when it was entered, of the item's
    label (SQL) and of the value."""

    offset: str
    entered: str
    label: str
    value: str
    columns: tuple[str, ...] = ()  # that the label is made of, if it is not a column


LONG = {
    "lab": Long("labresultoffset", "labresultrevisedoffset", "labname", "labresult"),
    "nursecharting": Long(
        "nursingchartoffset",
        "nursingchartentryoffset",
        "nursingchartcelltypevalname",
        "nursingchartvalue",
    ),
    "respiratorycharting": Long(
        "respchartoffset", "respchartentryoffset", "respchartvaluelabel", "respchartvalue"
    ),
    "intakeoutput": Long(
        "intakeoutputoffset", "intakeoutputentryoffset", "cellpath", "cellvaluenumeric"
    ),
    "physicalexam": Long(
        "physicalexamoffset",
        "physicalexamoffset",
        "regexp_extract(physicalexampath, '([^/]+/[^/]+)/[^/]*$', 1)",
        "physicalexamvalue",
        ("physicalexampath",),
    ),
}
# Tables with a column a quantity and their offset; of the monitor's, which has a row every five
# minutes, the last value of each hour, as the bins take it.
WIDE = {"vitalaperiodic": "observationoffset", "vitalperiodic": "observationoffset"}
THINNED = ("vitalperiodic",)


def offset_number(column: str) -> str:
    """SQL: the minutes of a text column, null where it is no number."""
    return f"TRY_CAST({column} AS DECIMAL(12, 3))::DOUBLE"


def entered_number(offset: str, entered: str) -> str:
    """SQL: the minutes at which a row was entered; its own where that is blank."""
    return (
        f"CASE WHEN {entered} IS NULL THEN {offset_number(offset)}"
        f" ELSE {offset_number(entered)} END"
    )


def minutes(number: str) -> str:
    """SQL: so many minutes as an interval; null where it can be no offset (20 years)."""
    return f"to_seconds(CASE WHEN abs({number}) < 1e7 THEN 60 * ({number}) END)"


# What stands in no column of its own.
AGE = (
    "CASE WHEN replace(age, ' ', '') = '>89' THEN 90"
    " WHEN TRY_CAST(age AS DECIMAL(9, 3)) BETWEEN 0 AND 120 THEN TRY_CAST(age AS DOUBLE) END"
)
MADE = {
    "age": AGE,
    "hours_in_hospital": f"greatest(0, -{offset_number('hospitaladmitoffset')} / 60)",
    "hour_of_day": "CASE TRY_CAST(left(unitadmittime24, 2) AS INT) // 6"
    " WHEN 0 THEN '0-5' WHEN 1 THEN '6-11' WHEN 2 THEN '12-17' WHEN 3 THEN '18-23' END",
}
STATIC = {
    "patient": ("patientunitstayid", "hospitalid", "age", "hospitaladmitoffset", "unitadmittime24"),
    "hospital": ("hospitalid",),
}


def events_sql(items: Sequence[str], tables: RawFolder, grid: Path | None) -> str:
    """Raw rows of all items whose table is there, as sources.events wants them."""
    of: dict[str, list[str]] = defaultdict(list)
    for item in items:
        table, _, name = item.partition(".")
        of[table].append(name)
    parts = []
    for table, names in of.items():
        if table in LONG and tables.optional(table):
            parts.append(_long(table, tables))
        elif table in WIDE and tables.optional(table):
            parts.append(_wide(table, names, tables))
        elif table == GRID and grid and not any(tables.optional(name) for name in ABSENT):
            parts.append(_grid(grid, names))
        elif table in STATIC and (table == "patient" or tables.optional(table)):
            parts.append(_static(table, names, tables))
        elif table not in {*LONG, *WIDE, *STATIC, GRID}:
            raise UserError(
                "the variables file names a table that is not read",
                found=table,
                expected=", ".join(sorted({*LONG, *WIDE, *STATIC, GRID})),
            )
    return (
        "SELECT stay, items.*, value AS text, value AS number, seconds, stored, length FROM ("
        + " UNION ALL ".join(parts)
        + ") AS rows JOIN items USING (itemid) LEFT JOIN kept USING (stay_id)"
    )


def _long(table: str, tables: RawFolder) -> str:
    one = LONG[table]
    named = one.columns or (one.label,)
    wanted = dict.fromkeys(("patientunitstayid", one.offset, one.entered, *named, one.value))
    return (
        f"SELECT patientunitstayid AS stay_id, '{table}.' || {one.label} AS itemid,"
        f" {one.value} AS value, 60 * {offset_number(one.offset)} AS seconds,"
        f" 60 * {entered_number(one.offset, one.entered)} AS stored"
        f" FROM {tables.text(table, tuple(wanted))}"
    )


def _wide(table: str, names: Sequence[str], tables: RawFolder) -> str:
    offset = WIDE[table]
    raw = tables.text(table, ("patientunitstayid", offset, *names))
    rows = (
        f"SELECT stay_id, itemid, value, seconds, seconds AS stored FROM (SELECT"
        f" patientunitstayid AS stay_id, {_unnested(table, dict.fromkeys(names, ''))},"
        f" 60 * {offset_number(offset)} AS seconds FROM {raw}) WHERE value IS NOT NULL"
    )
    if table not in THINNED:
        return rows
    return (
        "SELECT stay_id, itemid, arg_max(value, seconds) AS value, max(seconds) AS seconds,"
        f" max(stored) AS stored FROM ({rows}) GROUP BY stay_id, itemid, floor(seconds / 3600)"
    )


def _unnested(table: str, columns: dict[str, str]) -> str:
    """SQL: columns (name -> SQL, or '' for itself) as rows of itemid and value."""
    items = ", ".join(f"'{table}.{name}'" for name in columns)
    values = ", ".join(f"({sql or name})::VARCHAR" for name, sql in columns.items())
    return f"unnest([{items}]) AS itemid, unnest([{values}]) AS value"


def _grid(path: Path, names: Sequence[str]) -> str:
    """Values of the grid, known when their hour is over."""
    try:
        there = set(pq.read_schema(path).names)
    except (OSError, pa.ArrowInvalid):
        raise UserError(
            f"{path.name} of the hourly grid cannot be read",
            found="no Parquet file, or a damaged one",
            expected="the file as downloaded",
            do="Download it again and compare its checksum.",
        ) from None
    columns = {name: "" for name in names if name in there}
    quoted = str(path).replace("'", "''")
    return (
        "SELECT stay_id, itemid, value, seconds, seconds AS stored FROM (SELECT"
        f" stay_id::VARCHAR AS stay_id, {_unnested(GRID, columns)},"
        f" (time + {LAST_OF_HOUR})::DOUBLE AS seconds FROM read_parquet('{quoted}'))"
        " WHERE value IS NOT NULL"
    )


def _static(table: str, names: Sequence[str], tables: RawFolder) -> str:
    """What is known at the unit's door, of the patient or of the hospital."""
    made = {name: MADE.get(name, "") for name in names}
    asked = {table: tuple(name for name, sql in made.items() if not sql)}
    rows = {
        name: tables.text(name, tuple(dict.fromkeys((*STATIC[name], *asked.get(name, ())))))
        for name in dict.fromkeys(("patient", table))
    }
    joined = rows["patient"]
    if table == "hospital":
        joined += f" JOIN {rows['hospital']} USING (hospitalid)"
    return (
        "SELECT stay_id, itemid, value, 0::DOUBLE AS seconds, 0::DOUBLE AS stored FROM ("
        f"SELECT patientunitstayid AS stay_id, {_unnested(table, made)} FROM {joined})"
        " WHERE value IS NOT NULL"
    )
