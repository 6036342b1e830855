"""The eICU Collaborative Research Database: its tables, or its demo with the hourly grid.

Offsets are minutes from the admission to the unit. Of dates only the year of discharge is told,
and not which hospital stay of a patient came first; the stays of one hospital stay lie on one
time line here, those of different ones do not.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from flexcare.errors import UserError
from flexcare.features.variables import VariableSet
from flexcare.sources.eicu_picks import PICKS, documents_sql, picks_sql
from flexcare.sources.eicu_rows import AGE, GRID, events_sql, minutes
from flexcare.sources.events import tidy_events
from flexcare.sources.tables import FewTables, RawFolder, reading

DOCUMENT_BATCH = 2_000
ASKED = 24  # hours, of the answers about later diagnoses
# Answers of the hourly grid: the folder in which each lies.
HOURLY_ANSWERS = ("sepsis", "aki")
PATIENT = {
    "patientunitstayid": "BIGINT",
    "patienthealthsystemstayid": "BIGINT",
    "uniquepid": "VARCHAR",
    "gender": "VARCHAR",
    "age": "VARCHAR",
    "ethnicity": "VARCHAR",
    "hospitaladmittime24": "VARCHAR",
    "hospitaladmitoffset": "DOUBLE",
    "hospitaladmitsource": "VARCHAR",
    "hospitaldischargeyear": "INT",
    "hospitaldischargeoffset": "DOUBLE",
    "hospitaldischargestatus": "VARCHAR",
    "unittype": "VARCHAR",
    "unitdischargeoffset": "DOUBLE",
}
# The middle of the year: long stays, too, begin in the year by which the age is counted.
_STAYS = """
CREATE OR REPLACE TEMP TABLE unit_stays AS
WITH dated AS (
    SELECT *,
        TRY_CAST(hospitaldischargeyear || '-07-01 ' || hospitaladmittime24 AS TIMESTAMP)
            AS hospital,
        hospital - {before} AS intime
    FROM patient
)
SELECT patientunitstayid AS stay_id, patienthealthsystemstayid AS hadm_id,
    -- the digits before the dash have always the same number
    TRY_CAST(regexp_extract(uniquepid, '^([0-9]+)-([0-9]+)$', 1) AS BIGINT) * 1_000_000_000
        + TRY_CAST(regexp_extract(uniquepid, '^([0-9]+)-([0-9]{{1,9}})$', 2) AS BIGINT)
        AS subject_id,
    CASE gender WHEN 'Female' THEN 'F' WHEN 'Male' THEN 'M' END AS sex,
    {age} AS age, ethnicity, hospitaladmitsource AS source, hospital, intime,
    intime + {unit} AS outtime, unitdischargeoffset / 1440 AS los,
    intime + {discharge} AS dischtime, coalesce(unittype, 'unknown') AS unit,
    CASE hospitaldischargestatus WHEN 'Expired' THEN true WHEN 'Alive' THEN false END AS died
FROM dated
"""
_SUBJECTS = """
SELECT subject_id, first(sex ORDER BY sex IS NULL, stay_id) AS sex,
    first(age ORDER BY unsure, stay_id) AS anchor_age,
    first(year(intime)::INT ORDER BY unsure, stay_id) AS anchor_year, NULL::DATE AS death_date
FROM (SELECT *, age IS NULL OR intime IS NULL AS unsure FROM unit_stays)
GROUP BY subject_id ORDER BY subject_id
"""
_ADMISSIONS = """
SELECT hadm_id, subject_id, least(min(hospital), min(intime)) AS admittime,
    max(dischtime) AS dischtime, CASE WHEN bool_or(died) THEN max(dischtime) END AS deathtime,
    bool_or(died) AS died, first(source ORDER BY source IS NULL, stay_id) AS admission_type,
    NULL::VARCHAR AS insurance, first(ethnicity ORDER BY ethnicity IS NULL, stay_id) AS race
FROM unit_stays GROUP BY hadm_id, subject_id ORDER BY hadm_id
"""
# Whether a diagnosis of a category is entered later than asked; unknown where one was visible.
_LATER = """
WITH entered AS (
    SELECT stay_id, hadm_id, available_at, available_at > intime + INTERVAL {asked} HOUR AS later,
        lower(trim(split_part(path, '|', 1))) AS category
    FROM ({picks}) WHERE available_at IS NOT NULL
), begun AS (
    SELECT hadm_id, category, min(available_at) AS since FROM entered GROUP BY ALL
), added AS (SELECT DISTINCT stay_id, category FROM entered WHERE later)
SELECT stay_id, 'later diagnosis: ' || category AS name, NULL::DOUBLE AS hours,
    CASE WHEN since <= intime + INTERVAL {asked} HOUR THEN NULL
        WHEN added.stay_id IS NULL THEN 0 ELSE 1 END::DOUBLE AS value
FROM (FROM unit_stays SEMI JOIN entered USING (stay_id)) AS asked
    CROSS JOIN (SELECT DISTINCT category FROM entered)
    LEFT JOIN begun USING (hadm_id, category) LEFT JOIN added USING (stay_id, category)
"""
# A row of the grid is about the hour that begins then, so it is known, and asked about, at its end.
_HOURLY = """
SELECT stay_id::BIGINT AS stay_id, '{name}' AS name, time / 3600 + 1 AS hours,
    label::DOUBLE AS value
FROM read_parquet('{path}') JOIN unit_stays USING (stay_id) WHERE hours {which} los * 24
"""


@dataclass
class _Tables(RawFolder):
    """Releases differ in the case of their files' names: vitalPeriodic, vitalperiodic."""

    @cached_property
    def _there(self) -> dict[str, Path]:
        return {path.name.lower(): path for path in sorted(self.path.iterdir())}

    def optional(self, name: str) -> Path | None:
        found = (self._there.get(name.lower() + ending) for ending in (".csv.gz", ".csv"))
        return next((path for path in found if path and path.is_file()), None)


@dataclass
class EICU(FewTables):
    """The tables of eICU-CRD as tidy tables; see sources.tables.Source.

    Args:
        path: folder of the tables (full data set), or of tables/ and hourly/ (demo).
    """

    name: str = "eicu"
    variables: str = "eicu"

    @cached_property
    def _tables(self) -> _Tables:
        folder = self.path / "tables"
        folder = folder if folder.is_dir() else self.path
        if not folder.is_dir():
            raise UserError(
                f"no folder {folder}",
                expected="the downloaded data set",
                do="Check the path; docs/data.md says what goes where.",
            )
        return _Tables(folder, self.connection, self.files, self.dropped)

    @cached_property
    def _patients(self) -> None:
        """Makes the table unit_stays, once."""
        tables = self._tables
        # Counted among the files when the events read it, which a later --reuse then compares.
        once = _Tables(tables.path, self.connection, [], self.dropped)
        raw = once.typed("patient", PATIENT, key="patientunitstayid")
        self.connection.register("patient", raw)
        self.connection.execute(
            _STAYS.format(
                before=minutes("hospitaladmitoffset"),
                unit=minutes("unitdischargeoffset"),
                discharge=minutes("hospitaldischargeoffset"),
                age=AGE,
            )
        )
        self.connection.unregister("patient")
        counts = "count(*) FILTER (subject_id IS NULL), count(*) FILTER (age IS NULL)"
        nobody, ageless = self._all(f"SELECT {counts} FROM unit_stays")[0]
        if nobody:
            raise UserError(
                "patient: column uniquepid cannot be read",
                found=f"{nobody} such rows of {raw.num_rows}",
                expected="digits, a dash, at most nine digits",
                do="Repair the file or download it again.",
            )
        ages = raw.num_rows - raw["age"].null_count
        if unread := ageless - (raw.num_rows - ages):
            self.dropped["patient: age cannot be read, taken as missing"] += unread

    def _all(self, sql: str) -> list[tuple[int, ...]]:
        return self.connection.execute(sql).fetchall()

    def _arrow(self, sql: str, name: str) -> pa.Table:
        """The result of SQL over the table unit_stays."""
        self._patients  # noqa: B018
        with reading(name):
            return self.connection.sql(sql).to_arrow_table()

    def subjects(self) -> pa.Table:
        return self._arrow(_SUBJECTS, "patient")

    def admissions(self) -> pa.Table:
        table = self._arrow(_ADMISSIONS, "patient")
        self._tables.check_key("patient", "hadm_id", table)
        return table

    def stays(self) -> pa.Table:
        columns = "stay_id, hadm_id, subject_id, intime, outtime, los"
        return self._arrow(
            f"SELECT {columns}, unit AS first_unit, unit AS last_unit FROM unit_stays", "patient"
        )

    def documents(self) -> Iterator[pa.RecordBatch]:
        """Picks of the structured notes, each once a hospital stay, from when it was entered."""
        self._patients  # noqa: B018
        tables = [name for name in PICKS if self._tables.optional(name)]
        if not tables:
            return
        with reading("the tables of " + ", ".join(tables)):
            parts = [picks_sql(name, self._tables) for name in tables]
            self.connection.execute(
                f"CREATE OR REPLACE TEMP TABLE picks AS {' UNION ALL '.join(parts)}"
            )
            timeless, strange = self._all(
                "SELECT count(*) FILTER (available_at IS NULL),"
                " count(*) FILTER (intime IS NULL) FROM picks"
            )[0]
            for count, reason in (
                (timeless - strange, "picks without a readable offset"),
                (strange, "picks of no known stay"),
            ):
                if count:
                    self.dropped[reason] += count
            yield from self.connection.sql(documents_sql()).to_arrow_reader(DOCUMENT_BATCH)
            self.connection.execute("DROP TABLE picks")

    def events(self, stays: pa.Table, variables: VariableSet, clock: str) -> Iterator[pa.Table]:
        """Values of the variables in these stays (columns stay_id, los)."""
        connection = self.connection
        rows = pa.array(range(len(stays)), pa.int32())
        connection.register("cohort_stays", stays.append_column("stay", rows))
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE kept AS SELECT stay, stay_id::VARCHAR AS stay_id,"
            " round(los * 86400) AS length FROM cohort_stays"
        )
        items = [str(item) for v in variables.variables.values() for item in v.items]
        raw = events_sql(items, self._tables, self._grid("los/dyn"))
        with reading("the tables of measurements"):
            yield from tidy_events(connection, raw, variables, clock, self.dropped)

    def _grid(self, name: str) -> Path | None:
        """A file of the demo's hourly grid."""
        path = self.path / GRID / f"{name}.parquet"
        if not path.is_file():
            return None
        if path not in self.files:
            self.files.append(path)
        return path

    def answers(self) -> pa.Table:
        """hospital_death (of the stay); sepsis and aki (hourly); "later diagnosis: CATEGORY"."""
        parts = [
            "SELECT stay_id, 'hospital_death' AS name, NULL::DOUBLE AS hours,"
            " died::DOUBLE AS value FROM unit_stays"
        ]
        if self._tables.optional("diagnosis"):
            picks = picks_sql("diagnosis", self._tables)
            parts.append(f"FROM ({_LATER.format(picks=picks, asked=ASKED)})")
        for name in HOURLY_ANSWERS:
            if path := self._grid(f"{name}/outc"):
                place = str(path).replace("'", "''")
                parts.append(_HOURLY.format(name=name, path=place, which="<="))
                late = self._arrow(_HOURLY.format(name=name, path=place, which=">"), path.name)
                self.dropped[f"{name}: hours not over when the stay ends"] += len(late)
        question = " UNION ALL ".join(parts) + " ORDER BY ALL"
        return self._arrow(question, "diagnosis, or of the hourly grid")
