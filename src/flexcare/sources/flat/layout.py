"""What a folder of flat tables holds: tables, their columns, and what a cell may say."""

from dataclasses import dataclass

VARIABLES = "variables.toml"
TASKS = "tasks"  # the folder of task files
ENDINGS = (".csv", ".csv.gz", ".parquet")


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        cells: what its cells are, a key of CELLS.
        filled: a cell may not be empty.
        needed: the column must be there.
    """

    cells: str
    filled: bool = True
    needed: bool = True


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        columns: by name, in the order in which they are written.
        key: columns of which no two rows may say the same.
        refers: the tables whose keys a column repeats, by column.
        needed: the table must be there.
    """

    columns: dict[str, Column]
    key: tuple[str, ...] = ()
    refers: tuple[str, ...] = ()
    needed: bool = False


def _optional(cells: str) -> Column:
    return Column(cells, filled=False, needed=False)


_TIMES = {"time": Column("time"), "available_at": _optional("time")}
TABLES = {
    "subjects": Table(
        {
            "subject_id": Column("id"),
            "sex": _optional("text"),
            "birth_year": _optional("year"),
            "died_at": _optional("time"),
        },
        key=("subject_id",),
        needed=True,
    ),
    "stays": Table(
        {
            "stay_id": Column("id"),
            "subject_id": Column("id"),
            "start": Column("time"),
            "stop": Column("time"),
        },
        key=("stay_id",),
        refers=("subjects",),
        needed=True,
    ),
    "events": Table(
        {"stay_id": Column("id"), "variable": Column("text"), **_TIMES, "value": Column("text")},
        refers=("stays",),
    ),
    "codes": Table(
        {"stay_id": Column("id"), "variable": Column("text"), **_TIMES, "code": Column("text")},
        refers=("stays",),
    ),
    "embeddings": Table(
        {"stay_id": Column("id"), "variable": Column("text"), **_TIMES, "vector": Column("vector")},
        refers=("stays",),
    ),
    "waves": Table(
        {
            "stay_id": Column("id"),
            "variable": Column("text"),
            **_TIMES,
            "rate": Column("number"),
            "path": Column("text"),
        },
        refers=("stays",),
    ),
    "documents": Table(
        {
            "subject_id": Column("id"),
            **_TIMES,
            "kind": _optional("kind"),
            "text": Column("hidden"),
        },
        refers=("subjects",),
    ),
    "images": Table(
        {
            "image_id": Column("id"),
            "subject_id": Column("id"),
            **_TIMES,
            "path": Column("text"),
        },
        key=("image_id",),
        refers=("subjects",),
    ),
    "labels": Table(
        {
            "stay_id": Column("id"),
            "name": Column("text"),
            "hours": Column("number", filled=False),
            "value": Column("number", filled=False),
        },
        key=("stay_id", "name", "hours"),
        refers=("stays",),
    ),
}
# The table whose rows are of variables of each kind.
TABLE_OF_KIND = {
    "time_series": "events",
    "static": "events",
    "codes": "codes",
    "embedding": "embeddings",
    "wave": "waves",
}
_ZONE = r"'.*[0-9]:[0-9].*([zZ]|[+-][0-9]{2}(:?[0-9]{2})?)'"
_TIME = r"'[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,9})?)?)?'"
# By what a cell (`CELL` in SQL) is: where it is wrong, and what was expected instead; the first
# that holds counts.
CELLS: dict[str, tuple[tuple[str, str], ...]] = {
    "id": (
        (
            "NOT (regexp_full_match(CELL, '-?[0-9]+') AND TRY_CAST(CELL AS BIGINT) IS NOT NULL)",
            "a whole number",
        ),
    ),
    "year": (
        (
            "NOT (regexp_full_match(CELL, '[0-9]{4}') AND CELL BETWEEN '1800' AND '2200')",
            "a year from 1800 to 2200",
        ),
    ),
    "time": (
        (f"regexp_full_match(CELL, {_ZONE})", "the hospital's local time, without a zone"),
        (
            f"NOT (regexp_full_match(CELL, {_TIME}) AND TRY_CAST(CELL AS TIMESTAMP) IS NOT NULL)",
            "a date and time that exist, as 2031-12-24 or 2031-12-24 18:30 or 2031-12-24 18:30:05",
        ),
    ),
    "number": (
        ("regexp_full_match(CELL, '[+-]?[0-9.]*,[0-9]+')", "a number with a decimal point"),
        ("NOT coalesce(isfinite(TRY_CAST(CELL AS DOUBLE)), false)", "a number"),
    ),
    "vector": (),  # looked at where it is read
    "kind": (),  # looked up in check.py
    "text": (),
    "hidden": (),  # a patient's words: never shown
}
