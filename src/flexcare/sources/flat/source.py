"""A hospital's own tables as tidy tables; see sources.tables.Source."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flexcare.errors import UserError
from flexcare.features.variables import VariableSet
from flexcare.sources.events import tidy_events
from flexcare.sources.flat.check import check
from flexcare.sources.flat.layout import TABLES, TASKS, VARIABLES
from flexcare.sources.tables import FewTables, reading

DOCUMENT_BATCH = 2_000
# Of the faults the error of `prepare` repeats so many lines, and of one kind so many.
FIRST, OF_A_KIND = 8, 5
_VISIBLE = "greatest(time::TIMESTAMP, available_at::TIMESTAMP)"  # greatest passes over nulls
# A death in the stay; of a date alone nobody knows the hour, and the day's last one is taken.
_DIED = """
    CASE WHEN length(died_at) = 10 AND died_at::DATE BETWEEN start::DATE AND stop::DATE
        THEN least(died_at::TIMESTAMP + INTERVAL 1 DAY, stop::TIMESTAMP)
        WHEN died_at::TIMESTAMP BETWEEN start::TIMESTAMP AND stop::TIMESTAMP
        THEN died_at::TIMESTAMP END
"""
# Where nobody has a time of death, the table has nothing to say about it.
_KNOWN = f"CASE WHEN (SELECT count(died_at) > 0 FROM flat_subjects) THEN ({_DIED}) IS NOT NULL END"
_ROWS = """
SELECT stay, items.*, facts.text, facts.number,
    epoch(time::TIMESTAMP) - epoch(intime) AS seconds, epoch({visible}) - epoch(intime) AS stored,
    length
FROM (SELECT *, {text}::VARCHAR AS text, {number}::VARCHAR AS number FROM flat_{table}) AS facts
    JOIN items ON items.itemid = facts.variable
    LEFT JOIN kept ON kept.stay_id = facts.stay_id::BIGINT
"""
_NUMBER = "(row_number() OVER (PARTITION BY variable ORDER BY row) - 1)::VARCHAR"
# The text and the number of an event, by the table of its row; a vector or wave stands there by its
# row.
_VALUES = {
    "events": ("value", "value"),
    "codes": ("code", "NULL"),
    "embeddings": ("NULL", _NUMBER),
    "waves": ("NULL", _NUMBER),
}


@dataclass
class Flat(FewTables):
    """The tables of one folder. They are checked first.

    Args:
        path: the folder.
        connection: DuckDB, which holds the tables.

    Raises:
        UserError: something is wrong with the tables.
    """

    name: str = "flat"
    variables: str = ""
    waves: dict[str, list[Path]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        faults, files = check(self.path, self.connection, OF_A_KIND)
        if len(faults):
            lines = faults.lines()
            more = [f"... and {len(lines) - FIRST:,} more lines"] if len(lines) > FIRST else []
            raise UserError(
                f"{faults.number()} in the tables of {self.path}",
                found="\n            ".join([*lines[:FIRST], *more]),
                expected="tables without faults",
                do=f"Mend them; `flexcare check flat {self.path}` lists them all.",
            )
        self.files += [files[name] for name in TABLES if name in files]
        self.files.append(self.path / VARIABLES)
        self.variables = str(self.path / VARIABLES)
        self._leave_out_repeated()
        self.vectors, self.waves = self._vectors(), self._waves()

    def _leave_out_repeated(self) -> None:
        """Of rows of events that say the same, all but the first are left out and counted."""
        every = ", ".join(f'"{column}"' for column in TABLES["events"].columns)
        found = self.connection.execute(
            "DELETE FROM flat_events WHERE row IN (SELECT row FROM flat_events"
            f" QUALIFY row_number() OVER (PARTITION BY {every} ORDER BY row) > 1)"
        ).fetchone()
        if found and found[0]:
            self.dropped["events that repeat another row"] += found[0]

    @property
    def cxr(self) -> Path:
        """The folder from which the paths of images go on."""
        return self.path

    def _table(self, sql: str) -> pa.Table:
        with reading("of the folder"), self.connection.cursor() as cursor:
            return cursor.sql(sql).to_arrow_table()

    def subjects(self) -> pa.Table:
        """As of the year of birth, in which everybody is 0 years old."""
        return self._table(
            "SELECT subject_id::BIGINT AS subject_id, sex, CASE WHEN birth_year IS NOT NULL THEN"
            " 0::DOUBLE END AS anchor_age, birth_year::INT AS anchor_year,"
            " died_at::DATE AS death_date FROM flat_subjects ORDER BY subject_id"
        )

    def admissions(self) -> pa.Table:
        """One a stay."""
        return self._table(
            f"SELECT stay_id::BIGINT AS hadm_id, subject_id::BIGINT AS subject_id,"
            f" start::TIMESTAMP AS admittime, stop::TIMESTAMP AS dischtime, {_DIED} AS deathtime,"
            f" {_KNOWN} AS died, NULL::VARCHAR AS admission_type,"
            " NULL::VARCHAR AS insurance, NULL::VARCHAR AS race"
            f" FROM flat_stays JOIN (SELECT subject_id::BIGINT AS subject, died_at"
            " FROM flat_subjects) ON subject = subject_id::BIGINT ORDER BY hadm_id"
        )

    def stays(self) -> pa.Table:
        return self._table(
            "SELECT stay_id::BIGINT AS stay_id, stay_id::BIGINT AS hadm_id,"
            " subject_id::BIGINT AS subject_id, start::TIMESTAMP AS intime,"
            " stop::TIMESTAMP AS outtime,"
            " (epoch(stop::TIMESTAMP) - epoch(start::TIMESTAMP)) / 86400 AS los,"
            " 'stay' AS first_unit, 'stay' AS last_unit FROM flat_stays ORDER BY stay_id"
        )

    def images(self) -> pa.Table:
        """Each image is a study of its own, at the time from which it was there."""
        return self._table(
            "SELECT image_id, image_id::BIGINT AS study_id, subject_id::BIGINT AS subject_id,"
            f" {_VISIBLE} AS time, path, NULL::FLOAT[] AS findings FROM flat_images"
            " ORDER BY subject_id, time, study_id"
        )

    def documents(self) -> Iterator[pa.RecordBatch]:
        with reading("documents"), self.connection.cursor() as cursor:
            yield from cursor.sql(
                "SELECT 'row ' || row AS document_id, subject_id::BIGINT AS subject_id,"
                " NULL::BIGINT AS hadm_id, coalesce(kind, 'note') AS kind,"
                f" time::TIMESTAMP AS time, {_VISIBLE} AS available_at, text"
                " FROM flat_documents ORDER BY row"
            ).to_arrow_reader(DOCUMENT_BATCH)

    def answers(self) -> pa.Table:
        """What the labels say, and when it is asked."""
        return self._table(
            "SELECT stay_id::BIGINT AS stay_id, name, hours::DOUBLE AS hours,"
            " value::DOUBLE AS value FROM flat_labels ORDER BY stay_id, name, hours"
        )

    def _vectors(self) -> dict[str, NDArray[np.float32]]:
        """The vectors of each variable, in the order of their rows."""
        out = {}
        rows = self._table("SELECT variable, vector FROM flat_embeddings ORDER BY variable, row")
        for name in rows["variable"].unique().to_pylist():
            of_it = rows.filter(pc.equal(rows["variable"], name))["vector"].combine_chunks()
            values = of_it.flatten().to_numpy(zero_copy_only=False)
            out[name] = values.astype(np.float32).reshape(len(of_it), -1)
        return out

    def _waves(self) -> dict[str, list[Path]]:
        """The record of each row of each variable."""
        out: dict[str, list[Path]] = {}
        rows = self._table("SELECT variable, path FROM flat_waves ORDER BY variable, row")
        for row in rows.to_pylist():
            out.setdefault(row["variable"], []).append(self.path / row["path"])
        return out

    def events(self, stays: pa.Table, variables: VariableSet, clock: str) -> Iterator[pa.Table]:
        """What these stays have, each from when it was there on, whatever the clock."""
        rows = pa.array(range(len(stays)), pa.int32())
        self.connection.register("cohort_stays", stays.append_column("stay", rows))
        self.connection.execute(
            "CREATE OR REPLACE TEMP TABLE kept AS SELECT stay, stay_id, intime,"
            " round(los * 86400) AS length FROM cohort_stays"
        )
        raw = [
            _ROWS.format(table=name, text=text, number=number, visible=_VISIBLE)
            for name, (text, number) in _VALUES.items()
        ]
        with reading("events"):
            yield from tidy_events(
                self.connection,
                " UNION ALL ".join(raw),
                named(variables),
                "storetime",
                self.dropped,
                self.codes,
            )


def named(variables: VariableSet) -> VariableSet:
    """The variables with their own name as the only item: rows name variables."""
    return VariableSet(
        {
            name: variable.model_copy(update={"items": () if variable.sum_of else (name,)})
            for name, variable in variables.variables.items()
        }
    )


def tasks_of(path: Path) -> list[str]:
    """The task files of a folder."""
    return [str(task) for task in sorted((path / TASKS).glob("*.toml"))]
