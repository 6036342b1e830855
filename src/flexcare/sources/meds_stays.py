"""Subjects, admissions and stays of a MEDS dataset, which has only codes, as DuckDB tables."""

from importlib.resources import files
from pathlib import Path

import duckdb

from flexcare.config import Section, check, read_toml
from flexcare.sources.events import LAST_SECOND

OWN_CODES = "flexcare_codes.toml"


class Codes(Section):
    """The entries of meds_codes.toml."""

    birth: str
    death: str
    sex: str
    stay: tuple[str, str]
    admission: tuple[str, str]
    died: str
    diagnosis: str
    numbered: tuple[str, ...]

    def structural(self) -> str:
        """SQL: the code says who the subject is, or where a stay begins or ends."""
        entries = (self.birth, self.death, self.sex, *self.stay, *self.admission, self.died)
        return "(" + " OR ".join(map(belongs, entries)) + ")"


def codes_of(path: Path) -> Codes:
    """The package's codes, and in place of them those that the dataset's folder names."""
    table = read_toml(Path(str(files("flexcare.sources") / "meds_codes.toml")))
    own = path / OWN_CODES
    if own.is_file():
        table |= read_toml(own)
    return check(Codes, table, OWN_CODES)


def belongs(entry: str, column: str = "code") -> str:
    """SQL: the code is the entry, or begins with it and "//"."""
    return f"({column} = {literal(entry)} OR starts_with({column}, {literal(entry + '//')}))"


def rest(entry: str, column: str = "code") -> str:
    """SQL: what follows the entry and "//" in a code; empty if nothing does."""
    return f"substr({column}, {len(entry) + 3})"


def literal(text: str) -> str:
    """A text as SQL."""
    return "'" + text.replace("'", "''") + "'"


# Numbers that depend on nothing but the subject and the beginning: more data renumber nobody.
_NUMBER = "(md5_number_lower('{what}' || subject_id || ' ' || start) >> 1)::BIGINT"

# The end of what begins is the next end, unless another one begins before it.
_PAIRS = """
SELECT begun.subject_id, start, first, CASE WHEN next IS NULL OR stop <= next THEN stop END AS stop,
    CASE WHEN next IS NULL OR stop <= next THEN last END AS last
FROM (SELECT *, lead(start) OVER (PARTITION BY subject_id ORDER BY start) AS next FROM
    (SELECT subject_id, time AS start, min(code) AS first FROM meds_facts
        WHERE {begins} AND time IS NOT NULL GROUP BY ALL)) AS begun
ASOF LEFT JOIN (SELECT subject_id, time AS stop, min(code) AS last FROM meds_facts
        WHERE {ends} AND time IS NOT NULL GROUP BY ALL) AS ended
    ON begun.subject_id = ended.subject_id AND begun.start < ended.stop
"""

# A record ends with the dataset: its own last event would tell how it goes on.
_RECORDS = f"""
SELECT subject_id, min(time) AS start, '' AS first, least(any_value(dataset_end),
    min(time) + INTERVAL {LAST_SECOND} SECOND) AS stop, '' AS last
FROM meds, (SELECT max(time) AS dataset_end FROM meds)
WHERE time IS NOT NULL AND subject_id IS NOT NULL AND NOT {{birth}} GROUP BY subject_id
"""

# The unit is that of the beginning: in which one a stay ends is not known while it lasts, and may
# not decide whether it is kept. Its admission is the one in which it begins, else one that it
# overlaps, else the stay itself is taken as one.
_STAYS = """
CREATE OR REPLACE TEMP TABLE meds_stays AS
WITH stays AS (SELECT *, {stay_number} AS stay_id, {unit} AS unit FROM ({stays})),
    admissions AS (SELECT *, {admission_number} AS hadm_id FROM ({admissions}))
SELECT stay_id, coalesce(hadm_id, stay_id) AS hadm_id, hadm_id IS NULL AS own, s.subject_id,
    s.start AS intime, s.stop AS outtime, epoch(s.stop - s.start) / 86400 AS los,
    unit AS first_unit, unit AS last_unit
FROM stays AS s LEFT JOIN admissions AS a ON a.subject_id = s.subject_id
    AND a.start <= coalesce(s.stop, s.start) AND coalesce(a.stop, s.start) >= s.start
QUALIFY row_number() OVER (PARTITION BY stay_id
    ORDER BY (a.start <= s.start) DESC, abs(epoch(a.start - s.start))) = 1
"""

# A death at midnight is a date without a time.
_ADMISSIONS = """
CREATE OR REPLACE TEMP TABLE meds_admissions AS
WITH found AS (
    SELECT {number} AS hadm_id, subject_id, start, stop, {kind} AS admission_type, last
    FROM ({admissions})
    UNION ALL SELECT hadm_id, subject_id, intime, outtime, NULL, NULL FROM meds_stays WHERE own
), with_death AS (
    SELECT *, CASE WHEN death >= start AND death < stop + INTERVAL 1 DAY
        AND death <> date_trunc('day', death) THEN death END AS moment
    FROM found LEFT JOIN meds_subjects USING (subject_id)
), decided AS (SELECT *, coalesce({died}, false) AS died FROM with_death)
SELECT hadm_id, subject_id, start AS admittime, stop AS dischtime,
    CASE WHEN died THEN moment END AS deathtime, died, admission_type,
    NULL::VARCHAR AS insurance, NULL::VARCHAR AS race
FROM decided
"""


def find_stays(connection: duckdb.DuckDBPyConnection, codes: Codes) -> None:
    """From `meds` and `meds_facts` make tables meds_subjects, meds_stays and meds_admissions.

    Stays are those of the ICU, else hospital admissions, else a subject's whole record.
    """
    run = connection.execute
    run(
        "CREATE OR REPLACE TEMP TABLE meds_subjects AS WITH facts AS (SELECT subject_id,"
        f" min(time) FILTER ({belongs(codes.birth)}) AS birth,"
        f" min(time) FILTER ({belongs(codes.death)}) AS death,"
        f" min({rest(codes.sex)}) FILTER ({belongs(codes.sex)}) AS sex"
        " FROM meds_facts GROUP BY subject_id)"
        " SELECT * FROM (SELECT DISTINCT subject_id FROM meds WHERE subject_id IS NOT NULL)"
        " LEFT JOIN facts USING (subject_id)"
    )
    admissions, stays = _pairs(*codes.admission), _pairs(*codes.stay)
    choices = (
        (stays, rest(codes.stay[0], "first"), "stay"),
        (admissions, "'hospital'", "admission"),
        (_RECORDS.format(birth=belongs(codes.birth)), "'record'", "stay"),
    )
    there = (c for c in choices if run(f"SELECT 1 FROM ({c[0]}) LIMIT 1").fetchall())
    chosen, unit, what = next(there, choices[-1])
    numbers = {name: _NUMBER.format(what=name) for name in ("stay", "admission")}
    run(
        _STAYS.format(
            stays=chosen,
            admissions=admissions,
            stay_number=numbers[what],
            admission_number=numbers["admission"],
            unit=unit,
        )
    )
    said = run(f"SELECT 1 FROM meds_facts WHERE {belongs(codes.died)} LIMIT 1").fetchall()
    run(
        _ADMISSIONS.format(
            admissions=admissions,
            number=numbers["admission"],
            kind=f"split_part({rest(codes.admission[0], 'first')}, '//', 1)",
            died=belongs(codes.died, "last") if said else _IN_TIME,
        )
    )


# Where no code says so: death between admission and discharge, by its date if it has no time.
_IN_TIME = """
CASE WHEN death = date_trunc('day', death) THEN death::DATE BETWEEN start::DATE AND stop::DATE
    ELSE death BETWEEN start AND stop END
"""


def _pairs(begins: str, ends: str) -> str:
    """SQL: subject_id, start, stop and their codes, first and last."""
    return _PAIRS.format(begins=belongs(begins), ends=belongs(ends))
