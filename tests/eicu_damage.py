"""Random damage to everything that eICU saw after a moment, in the demo's layout.

As in tests/damage.py: of the later rows some are deleted, all others changed, and copies added.
"""

import shutil
from datetime import datetime
from pathlib import Path

import duckdb

# Of each table: offset, offset of entry ('' for none), and what changes in later rows (`dice` is a
# random number of the row). What is entered later may as well have been charted long before.
FUTURE = {
    "vitalaperiodic": ("observationoffset", "", "noninvasivesystolic = 70 + dice % 90"),
    "respiratorycharting": (
        "respchartoffset", "respchartentryoffset",
        "respchartvalue = 20 + dice % 80, respchartoffset = respchartoffset::INT - dice % 900",
    ),
    "intakeoutput": (
        "intakeoutputoffset", "intakeoutputentryoffset",
        "cellvaluenumeric = dice % 500, intakeoutputoffset = intakeoutputoffset::INT - dice % 900",
    ),
    "physicalexam": ("physicalexamoffset", "", "physicalexamtext = dice, physicalexamvalue = dice"),
    "pasthistory": (
        "pasthistoryoffset", "pasthistoryenteredoffset",
        "pasthistoryvalue = dice, pasthistoryoffset = pasthistoryoffset::INT - dice % 900",
    ),
    "note": (
        "noteoffset", "noteenteredoffset",
        "notevalue = dice, noteoffset = noteoffset::INT - dice % 900",
    ),
    "admissiondx": ("admitdxenteredoffset", "", "admitdxname = dice"),
    "diagnosis": ("diagnosisoffset", "", "diagnosisstring = 'pulmonary|' || dice"),
    "treatment": ("treatmentoffset", "", "treatmentstring = 'other|' || dice"),
}  # fmt: skip
_MOMENTS = """
CREATE TABLE stays AS SELECT patientunitstayid AS stay, uniquepid AS pid,
    (hospitaldischargeyear || '-07-01 ' || hospitaladmittime24)::TIMESTAMP
        - to_seconds(60 * hospitaladmitoffset::DOUBLE) AS start,
    start + to_seconds(60 * unitdischargeoffset::DOUBLE) AS stop
FROM read_csv('{patient}', all_varchar = true);
CREATE TABLE moments AS SELECT pid, start + (hash(pid, {seed}) % 110 / 100) * (stop - start)
    AS moment FROM stays
    QUALIFY row_number() OVER (PARTITION BY pid ORDER BY hash(stay, {seed})) = 1;
CREATE TABLE until AS SELECT stay, (epoch(moment) - epoch(start)) / 60 AS minutes
    FROM stays JOIN moments USING (pid);
"""
_DAMAGE = """
CREATE OR REPLACE TABLE marked AS SELECT t.*, minutes, hash(t, {seed}) % 100000007 AS dice,
    coalesce({available} > minutes, false) AS later
    FROM t LEFT JOIN until ON until.stay = t.{key}::VARCHAR;
INSERT INTO marked SELECT * REPLACE (dice + 7 AS dice) FROM marked WHERE later AND dice % 3 = 0;
DELETE FROM marked WHERE later AND dice % 4 = 0;
UPDATE marked SET {change} WHERE later;
COPY (SELECT {columns} FROM marked) TO '{path}' ({how});
"""
GZIP = "HEADER, COMPRESSION gzip"


def damaged(folder: Path, out: Path, seed: int) -> dict[int, datetime]:
    """Write the demo-like `folder` to `out` with everything changed that came after a moment of
    each patient, which is returned by subject_id."""
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        (out / "tables").mkdir(parents=True)
        patient = folder / "tables" / "patient.csv.gz"
        connection.execute(_MOMENTS.format(patient=patient, seed=seed))
        for path in sorted((folder / "tables").iterdir()):
            name, target = path.name.removesuffix(".csv.gz"), out / "tables" / path.name
            offset, entered, change = FUTURE.get(name, ("", "", ""))
            available = f"greatest({offset}::DOUBLE, {entered or offset}::DOUBLE)"
            if name == "patient":
                available, change = "unitdischargeoffset::DOUBLE", (
                    "unitdischargeoffset = minutes::INT + 1 + dice % 9000,"
                    " hospitaldischargeoffset = minutes::INT + 1 + dice % 9000,"
                    " hospitaldischargestatus = 'Expired', dischargeweight = dice"
                )  # fmt: skip
            elif not offset:
                shutil.copyfile(path, target)
                continue
            raw, key = f"read_csv('{path}', all_varchar = true)", "patientunitstayid"
            _write(connection, raw, target, GZIP, seed, available, change, key, name != "patient")
        for path in sorted((folder / "hourly").rglob("*.parquet")):
            answer, target = path.stem == "outc", out / path.relative_to(folder)
            change = "label = NOT label" if answer else "hr = 200 - hr, crea = 3"
            _write(connection, f"read_parquet('{path}')", target, "FORMAT parquet", seed,
                   "time / 60 + 60", change, "stay_id", not answer)  # fmt: skip
        rows = connection.sql("FROM moments").fetchall()
    return {int(p.split("-")[0]) * 10**9 + int(p.split("-")[1]): at for p, at in rows}


def _write(
    connection: duckdb.DuckDBPyConnection,
    raw: str,
    path: Path,
    how: str,
    seed: int,
    available: str,
    change: str,
    key: str,
    thinned: bool = True,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection.execute(f"CREATE OR REPLACE TEMP VIEW t AS FROM {raw}")
    columns = ", ".join(f'"{name}"' for name in connection.sql("FROM t").columns)
    script = _DAMAGE if thinned else _DAMAGE.replace("INSERT", "--").replace("DELETE", "--")
    connection.execute(
        script.format(seed=seed, available=available, change=change, key=key, columns=columns,
                      path=path, how=how)
    )  # fmt: skip
