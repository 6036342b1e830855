"""Random damage to everything that a hospital saw after a moment, in tables of MIMIC-IV's layout.

Each subject has a moment of its own, somewhere in one of its stays or admissions. Rows that were
available by then stay as they are. Of the later ones some are deleted, all others are changed,
and changed copies are added; also when later stays and admissions end, and how.
"""

import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb

from hospital import picture, put

AT = "TRY_CAST({} AS TIMESTAMP)"
CHARTED = "TRY_CAST(charttime AS TIMESTAMP)"
STORED = f"greatest({CHARTED}, TRY_CAST(storetime AS TIMESTAMP))"
AFTER = "(seen + INTERVAL (dice % 200) HOUR)"
NUMBER = "(30 + dice % 80)::VARCHAR"
# A value that is not stored before the moment may as well have been charted long before it.
EARLIER = (
    "CASE WHEN TRY_CAST(storetime AS TIMESTAMP) > moment"
    f" THEN ({CHARTED} - INTERVAL (dice % 20) HOUR)::VARCHAR ELSE charttime END AS charttime"
)


@dataclass(frozen=True)
class Table:
    """When its rows are available, and what changes in those that are later.

    Attributes:
        available: SQL, by clock where that matters.
        change: of later rows, SQL after REPLACE; dice is a random number of the row.
        extra: SQL tables joined to it; the tables' own rows are `t`.
        shares: how many of twelve later rows are deleted, and how many copied.
    """

    available: str | dict[str, str]
    change: str | dict[str, str]
    extra: str = ""
    shares: tuple[int, int] = (4, 4)


def _values(also: str = "") -> str:
    return f"{NUMBER} AS value, {NUMBER} AS valuenum" + also


DISCHARGED = "JOIN leaving USING (hadm_id)"
TABLES = {
    "icu/chartevents": Table(
        {"charttime": CHARTED, "storetime": STORED},
        {"charttime": _values(), "storetime": _values(f", {EARLIER}")},
    ),
    "hosp/labevents": Table(
        {"charttime": CHARTED, "storetime": STORED},
        {"charttime": _values(), "storetime": _values(f", {EARLIER}")},
    ),
    "note/radiology": Table(
        STORED, f"'IMPRESSION: other ' || dice AS text, note_id || dice AS note_id, {EARLIER}"
    ),
    "note/discharge": Table(
        "left_at",
        "'Past Medical History: other ' || dice || chr(10) || 'Brief Hospital Course: ' || dice"
        " AS text, note_id || dice AS note_id",
        DISCHARGED,
    ),
    "ed/triage": Table(
        "seen_at",
        "'other ' || dice AS chiefcomplaint",
        "JOIN (SELECT stay_id, TRY_CAST(intime AS TIMESTAMP) AS seen_at FROM visits)"
        " USING (stay_id)",
    ),
    "cxr/mimic-cxr-2.0.0-metadata": Table(
        "try_strptime(StudyDate || lpad(split_part(StudyTime, '.', 1), 6, '0'), '%Y%m%d%H%M%S')",
        "dicom_id || dice AS dicom_id",
    ),
    "hosp/drgcodes": Table("left_at", "'999' AS drg_code", DISCHARGED, (4, 0)),
    "hosp/diagnoses_icd": Table("left_at", "'4280' AS icd_code", DISCHARGED),
    "hosp/patients": Table(AT.format("dod"), f"{AFTER}::DATE::VARCHAR AS dod", "", (0, 0)),
    "hosp/admissions": Table(
        "left_at",
        f"{AFTER}::VARCHAR AS dischtime, (dice % 2)::VARCHAR AS hospital_expire_flag,"
        f" CASE WHEN dice % 3 = 0 THEN {AFTER}::VARCHAR END AS deathtime",
        DISCHARGED,
        (0, 0),
    ),
    "icu/icustays": Table(
        AT.format("outtime"),
        f"{AFTER}::VARCHAR AS outtime,"
        f" (epoch({AFTER}) - epoch({AT.format('intime')})) / 86400 AS los",
        "",
        (0, 0),
    ),
}


def damaged(folder: Path, out: Path, clock: str, seed: int) -> dict[int, datetime]:
    """Write the damaged tables of `folder` to `out`.

    Returns:
        each subject's moment: what was available later may differ.
    """
    shutil.copytree(folder, out)
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        for name in ("hosp/admissions", "icu/icustays"):
            connection.execute(f"CREATE VIEW {name.split('/')[1]} AS FROM {_read(folder, name)}")
        if (folder / "ed").is_dir():
            connection.execute(f"CREATE VIEW visits AS FROM {_read(folder, 'ed/edstays')}")
        connection.execute(_MOMENTS.format(seed=seed))
        for name, table in TABLES.items():
            if (folder / f"{name}.csv.gz").is_file():
                later = _rewrite(connection, folder, out, name, table, clock, seed)
                if name == "cxr/mimic-cxr-2.0.0-metadata":
                    _new_pictures(out, later)
        rows = connection.sql("SELECT subject_id::BIGINT, moment FROM moments").fetchall()
    return dict(rows)


_MOMENTS = f"""
CREATE TABLE leaving AS SELECT hadm_id, greatest({AT.format("dischtime")},
    coalesce({AT.format("deathtime")}, {AT.format("dischtime")})) AS left_at FROM admissions;
CREATE TABLE spans AS
    SELECT subject_id, {AT.format("intime")} AS start, {AT.format("outtime")} AS stop FROM icustays
    UNION ALL
    SELECT subject_id, {AT.format("admittime")}, {AT.format("dischtime")} FROM admissions;
CREATE TABLE moments AS
    SELECT subject_id, date_trunc('second', start + (hash(subject_id, {{seed}}) % 120 / 100)
        * (stop - start)) AS moment
    FROM spans WHERE stop > start
    QUALIFY row_number() OVER (PARTITION BY subject_id ORDER BY hash(start, stop, {{seed}})) = 1;
"""


def _read(folder: Path, name: str) -> str:
    return f"read_csv('{folder / name}.csv.gz', all_varchar = true, header = true)"


def _rewrite(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    out: Path,
    name: str,
    table: Table,
    clock: str,
    seed: int,
) -> list[dict[str, str]]:
    """Write one table with its later rows damaged; returns these as they now are."""
    available = table.available if isinstance(table.available, str) else table.available[clock]
    change = table.change if isinstance(table.change, str) else table.change[clock]
    deleted, copied = table.shares
    columns = connection.sql(f"FROM {_read(folder, name)}").columns
    change = _of_these(change, columns)
    listed = ", ".join(f'"{c}"' for c in columns)
    connection.execute(f"""
        CREATE OR REPLACE TABLE marked AS SELECT t.*, moment, hash(t, {seed}) % 100000007 AS dice,
            {available} AS seen, coalesce(seen > moment, false) AS later
        FROM {_read(folder, name)} t LEFT JOIN moments USING (subject_id) {table.extra};
        CREATE OR REPLACE TABLE changed AS SELECT * REPLACE ({change}) FROM (
            SELECT * FROM marked WHERE later AND dice % 12 >= {deleted}
            UNION ALL SELECT * REPLACE (dice + 1 AS dice) FROM marked
            WHERE later AND dice % 12 < {copied});
        COPY (SELECT {listed} FROM marked WHERE NOT later UNION ALL SELECT {listed} FROM changed)
        TO '{out / name}.csv.gz' (HEADER, COMPRESSION gzip);
    """)
    rows = connection.sql(f"SELECT {listed} FROM changed").fetchall()
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _of_these(change: str, columns: list[str]) -> str:
    """A change of `value` and `valuenum` where a table has the second."""
    return change if "valuenum" in columns else change.replace(f", {NUMBER} AS valuenum", "")


def _new_pictures(out: Path, films: list[dict[str, str]]) -> None:
    """A film file for every changed or added row."""
    for number, row in enumerate(films):
        subject = row["subject_id"]
        place = f"p{subject[:2]}/p{subject}/s{row['study_id']}/{row['dicom_id']}.jpg"
        put(out / "cxr" / "files" / place, picture(10 + number % 200), packed=False)
