"""MIMIC-IV 2.x and 3.x as downloaded, with MIMIC-CXR-JPG, MIMIC-IV-Note and MIMIC-IV-ED."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flexcare.errors import UserError
from flexcare.features.variables import VariableSet
from flexcare.sources.events import SEED_SECONDS, tidy_events
from flexcare.sources.tables import ANSWERS, DRGS, IMAGES, RawFolder, possible_ages, reading, tidy

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)
CHARTED = {
    "chartevents": ("stay_id", "charttime", "storetime", "itemid", "value", "valuenum"),
    "outputevents": ("stay_id", "charttime", "storetime", "itemid", "value"),
}
# The tables of notes: what they hold, and when it is available. A summary is so at the discharge
# of its admission, which the cohort knows; a report is not while nobody stored it.
NOTES = {
    "discharge": ("discharge_summary", "NULL::TIMESTAMP"),
    "radiology": (
        "radiology_report",
        "CASE WHEN TRY_CAST(storetime AS TIMESTAMP) IS NOT NULL THEN"
        " greatest(TRY_CAST(storetime AS TIMESTAMP), TRY_CAST(charttime AS TIMESTAMP)) END",
    ),
}
DOCUMENT_BATCH = 2_000


@dataclass
class MimicIV:
    """The tables of MIMIC-IV as tidy tables; see sources.tables.Source.

    Args:
        path: folder with hosp/ and icu/.
        connection: DuckDB, for the streams.
        cxr, note, ed: folders of MIMIC-CXR-JPG, MIMIC-IV-Note, MIMIC-IV-ED.
    """

    path: Path
    connection: duckdb.DuckDBPyConnection
    cxr: Path | None = None
    note: Path | None = None
    ed: Path | None = None
    name: str = "mimic-iv"
    variables: str = "mimic_iv"
    finding_names: tuple[str, ...] = FINDINGS
    files: list[Path] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    held_out: frozenset[int] | None = None
    codes: dict[str, list[str]] = field(default_factory=dict)
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def _folder(self, path: Path, inside: str = "") -> RawFolder:
        folder = path / inside if inside and (path / inside).is_dir() else path
        if not folder.is_dir():
            raise UserError(
                f"no folder {folder}",
                expected="the downloaded data set",
                do="Check the path; docs/data.md says what goes where.",
            )
        return RawFolder(folder, self.connection, self.files, self.dropped)

    def _core(self) -> RawFolder:
        for part in ("hosp", "icu"):
            if not (self.path / part).is_dir():
                raise UserError(
                    f"{self.path} is not MIMIC-IV",
                    found=f"no folder {part}/ there",
                    expected="the folder that holds hosp/ and icu/",
                    do="Give the folder of the release; docs/data.md says what goes where.",
                )
        return self._folder(self.path)

    def subjects(self) -> pa.Table:
        columns = {
            "subject_id": "BIGINT",
            "gender": "VARCHAR",
            "anchor_age": "DOUBLE",
            "anchor_year": "INT",
            "dod": "DATE",
        }
        table = self._core().typed("hosp/patients", columns, key="subject_id")
        names = ["subject_id", "sex", "anchor_age", "anchor_year", "death_date"]
        return possible_ages(table.rename_columns(names), self.dropped)

    def admissions(self) -> pa.Table:
        columns = {
            "hadm_id": "BIGINT",
            "subject_id": "BIGINT",
            "admittime": "TIMESTAMP",
            "dischtime": "TIMESTAMP",
            "deathtime": "TIMESTAMP",
            "hospital_expire_flag": "BOOLEAN",
            "admission_type": "VARCHAR",
            "insurance": "VARCHAR",
            "race": "VARCHAR",
        }
        table = self._core().typed("hosp/admissions", columns, key="hadm_id")
        names = ["died" if n == "hospital_expire_flag" else n for n in table.column_names]
        return table.rename_columns(names)

    def stays(self) -> pa.Table:
        columns = {
            "stay_id": "BIGINT",
            "hadm_id": "BIGINT",
            "subject_id": "BIGINT",
            "intime": "TIMESTAMP",
            "outtime": "TIMESTAMP",
            "los": "DOUBLE",
            "first_careunit": "VARCHAR",
            "last_careunit": "VARCHAR",
        }
        table = self._core().typed("icu/icustays", columns, key="stay_id")
        return table.rename_columns([*list(columns)[:6], "first_unit", "last_unit"])

    def diagnoses(self) -> pa.Table:
        columns = {"hadm_id": "BIGINT", "icd_code": "VARCHAR", "icd_version": "INT"}
        table = self._core().typed("hosp/diagnoses_icd", columns).drop_null()
        return table.rename_columns(["hadm_id", "code", "version"])

    def drgs(self) -> pa.Table:
        """The HCFA (MS) DRG of each admission, its first by name; none without the table."""
        columns = {"hadm_id": "BIGINT", "drg_type": "VARCHAR", "drg_code": "VARCHAR"}
        core = self._core()
        if core.optional("hosp/drgcodes") is None:
            return tidy(DRGS)
        table = core.typed("hosp/drgcodes", columns)
        kept = table.filter(pc.equal(table["drg_type"], "HCFA"))
        kept = kept.select(["hadm_id", "drg_code"]).rename_columns(["hadm_id", "code"]).drop_null()
        return kept.sort_by([("hadm_id", "ascending"), ("code", "ascending")])

    def images(self) -> pa.Table:
        """AP films with their study's CheXpert labels (1, 0; uncertain and blank are null)."""
        if self.cxr is None:
            return tidy(IMAGES)
        folder = self._folder(self.cxr)
        columns = ("dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "StudyTime")
        metadata = folder.text("mimic-cxr-2.0.0-metadata", columns)
        labels = folder.text("mimic-cxr-2.0.0-chexpert", ("study_id", *FINDINGS))
        findings = ", ".join(
            f'CASE WHEN TRY_CAST("{name}" AS FLOAT) IN (0, 1) THEN TRY_CAST("{name}" AS FLOAT) END'
            for name in FINDINGS
        )
        # The time of a study lost its leading zeros: 93015.5 is 09:30:15.5.
        clock = "lpad(split_part(StudyTime, '.', 1), 6, '0')"
        part = "coalesce(nullif(split_part(StudyTime, '.', 2), ''), '0')"
        table = folder.query(
            f"""
            WITH films AS (SELECT * FROM {metadata} WHERE ViewPosition = 'AP'),
            labels AS (
                SELECT TRY_CAST(study_id AS BIGINT) AS study, [{findings}] AS f FROM {labels})
            SELECT dicom_id AS image_id, TRY_CAST(study_id AS BIGINT) AS study_id,
                TRY_CAST(subject_id AS BIGINT) AS subject_id,
                try_strptime(StudyDate || {clock} || '.' || {part}, '%Y%m%d%H%M%S.%f')
                    ::TIMESTAMP AS time,
                'files/p' || left(subject_id, 2) || '/p' || subject_id || '/s' || study_id
                    || '/' || dicom_id || '.jpg' AS path,
                labels.f AS findings
            FROM films LEFT JOIN labels ON labels.study = TRY_CAST(films.study_id AS BIGINT)
            ORDER BY subject_id, time, image_id
            """,
            "mimic-cxr-2.0.0-metadata",
        )
        folder.check_key("films and their labels", "image_id", table)
        known = pc.and_(pc.is_valid(table["study_id"]), pc.is_valid(table["subject_id"]))
        timed = table.filter(pc.and_(known, pc.is_valid(table["time"])))
        if len(timed) < len(table):
            reason = "films without a readable time, study or subject"
            self.dropped[reason] += len(table) - len(timed)
        return timed

    def documents(self) -> Iterator[pa.RecordBatch]:
        """Discharge summaries, radiology reports and chief complaints, as a stream."""
        for name, sql in self._document_queries():
            with reading(name), self.connection.cursor() as cursor:
                yield from cursor.sql(sql).to_arrow_reader(DOCUMENT_BATCH)

    def answers(self) -> pa.Table:
        return tidy(ANSWERS)

    def _document_queries(self) -> Iterator[tuple[str, str]]:
        ids = "TRY_CAST(subject_id AS BIGINT) AS subject_id, TRY_CAST(hadm_id AS BIGINT) AS hadm_id"
        columns = ("note_id", "subject_id", "hadm_id", "charttime", "storetime", "text")
        times = "TRY_CAST(charttime AS TIMESTAMP) AS time"
        if self.note is not None:
            folder = self._folder(self.note, "note")
            if not any(folder.optional(name) for name in NOTES):
                folder.find("discharge")
            for name, (kind, available) in NOTES.items():
                if folder.optional(name):
                    yield (
                        name,
                        f"SELECT note_id AS document_id, {ids}, '{kind}' AS kind, {times},"
                        f" {available} AS available_at, text FROM {folder.text(name, columns)}",
                    )
        if self.ed is not None:
            folder = self._folder(self.ed, "ed")
            stays = folder.text("edstays", ("subject_id", "hadm_id", "stay_id", "intime"))
            triage = folder.text("triage", ("stay_id", "chiefcomplaint"))
            yield (
                "triage",
                f"SELECT 'ED-' || stay_id AS document_id, {ids}, 'chief_complaint' AS kind,"
                " TRY_CAST(intime AS TIMESTAMP) AS time, TRY_CAST(intime AS TIMESTAMP) AS"
                " available_at, chiefcomplaint AS text"
                f" FROM {stays} JOIN {triage} USING (stay_id) WHERE chiefcomplaint <> ''",
            )

    def events(self, stays: pa.Table, variables: VariableSet, clock: str) -> Iterator[pa.Table]:
        """Values of the variables in these stays (columns stay_id, subject_id, intime, outtime,
        los); chart rows belong to their stay_id, laboratory rows to a stay by subject and time."""
        connection = self.connection
        rows = pa.array(range(len(stays)), pa.int32())
        connection.register("cohort_stays", stays.append_column("stay", rows))
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE kept AS SELECT stay,"
            " stay_id::VARCHAR AS stay_id, subject_id::VARCHAR AS subject_id, intime, outtime,"
            " round(los * 86400) AS length FROM cohort_stays"
        )
        wanted = {str(item) for v in variables.variables.values() for item in v.items}
        core = self._core()
        raw = [self._charted(core, name) for name in self._charted_tables(core, wanted)]
        raw.append(self._laboratory(core))
        with reading("chartevents or labevents"):
            yield from tidy_events(
                connection, " UNION ALL ".join(raw), variables, clock, self.dropped, self.codes
            )

    def _charted_tables(self, core: RawFolder, wanted: set[str]) -> list[str]:
        """The tables of icu/ that hold wanted items, by the dictionary where there is one."""
        if core.optional("icu/d_items") is None:
            return ["chartevents"]
        items = core.typed("icu/d_items", {"itemid": "BIGINT", "linksto": "VARCHAR"})
        linked = {
            table
            for item, table in zip(*(items[c].to_pylist() for c in items.column_names), strict=True)
            if str(item) in wanted
        }
        return ["chartevents", *sorted((linked & set(CHARTED)) - {"chartevents"})]

    def _charted(self, core: RawFolder, name: str) -> str:
        rows = core.text(f"icu/{name}", CHARTED[name])
        number = "valuenum" if "valuenum" in CHARTED[name] else "value"
        return (
            f"SELECT stay, items.*, value AS text, {number} AS number, {_since('charttime')} AS"
            f" seconds, {_since('storetime')} AS stored, length"
            f" FROM {rows} AS charted JOIN items USING (itemid) LEFT JOIN kept USING (stay_id)"
        )

    def _laboratory(self, core: RawFolder) -> str:
        columns = ("subject_id", "itemid", "charttime", "storetime", "value", "valuenum")
        rows = core.text("hosp/labevents", columns)
        return (
            f"SELECT stay, items.*, value AS text, valuenum AS number, {_since('charttime')} AS"
            f" seconds, {_since('storetime')} AS stored, length"
            f" FROM (SELECT *, TRY_CAST(charttime AS TIMESTAMP) AS charted FROM {rows}) AS labs"
            " JOIN items USING (itemid) LEFT JOIN kept"
            " ON labs.subject_id = kept.subject_id AND labs.charted <= kept.outtime"
            f" AND labs.charted >= kept.intime - INTERVAL {SEED_SECONDS} SECOND"
        )


def _since(column: str) -> str:
    """SQL: seconds of a text column since ICU admission."""
    return f"epoch(TRY_CAST({column} AS TIMESTAMP)) - epoch(intime)"
