"""Parses the seven tables of preparation and does no more: python parse_tables.py FOLDER.

DuckDB, declared types, all columns kept in memory, two threads.
"""

import gzip
import sys
from pathlib import Path

import duckdb

TABLES = (
    "hosp/patients",
    "hosp/admissions",
    "hosp/diagnoses_icd",
    "hosp/drgcodes",
    "hosp/labevents",
    "icu/icustays",
    "icu/chartevents",
)
NUMBERS = ("anchor_age", "anchor_year", "icd_version", "seq_num", "hospital_expire_flag", "itemid")
TYPES = (
    dict.fromkeys(("subject_id", "hadm_id", "stay_id", "labevent_id", "specimen_id"), "BIGINT")
    | dict.fromkeys(NUMBERS, "INT")
    | dict.fromkeys(("los", "valuenum", "ref_range_lower", "ref_range_upper"), "DOUBLE")
    | dict.fromkeys(("admittime", "dischtime", "deathtime", "edregtime", "edouttime"), "TIMESTAMP")
    | dict.fromkeys(("intime", "outtime", "charttime", "storetime"), "TIMESTAMP")
    | {"dod": "DATE"}
)  # all others are texts


def parse(folder: Path) -> None:
    """Read the tables into memory."""
    connection = duckdb.connect(config={"threads": 2})
    for table in TABLES:
        path = folder / f"{table}.csv.gz"
        with gzip.open(path, "rt") as file:
            names = file.readline().strip().split(",")
        kinds = ", ".join(f"'{name}': '{TYPES.get(name, 'VARCHAR')}'" for name in names)
        connection.execute(
            f"CREATE TABLE {path.name.split('.')[0]} AS FROM read_csv('{path}',"
            f" auto_detect=false, header=true, delim=',', quote='\"', columns={{{kinds}}})"
        )


if __name__ == "__main__":
    parse(Path(sys.argv[1]))
