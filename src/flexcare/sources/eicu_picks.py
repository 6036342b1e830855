"""The structured notes of eICU: picks from menus (path, value), each of which is a short text."""

from dataclasses import dataclass

from flexcare.sources.eicu_rows import entered_number, minutes, offset_number
from flexcare.sources.tables import RawFolder

# Picks that only steer the form they are made in, and say nothing of the patient.
FORMS = (
    "View and Save|View Options|Include Rx|Skip Screen Options|system unique note types"
    "|Obtain Options/(Not )?Performed"
)
# What every path of a kind begins with.
BEGINNINGS = (
    "^admission diagnosis[|](All Diagnosis[|])?"
    "|^(notes/)?(Progress Notes/)?(Physical Exam/Physical Exam/|Past History/Organ Systems/)?"
    "(Constitutional/)?(Vital Sign and Physiological Data/)?"
)


@dataclass(frozen=True)
class Pick:
    """A table of picks: its kind of text (features/notes.toml) and its columns."""

    kind: str
    key: str
    path: str
    value: str  # '' for none
    offset: str
    entered: str


PICKS = {
    "admissiondx": Pick(
        "admission_diagnosis", "admissiondxid", "admitdxpath", "admitdxname",
        "admitdxenteredoffset", "admitdxenteredoffset",
    ),
    "diagnosis": Pick(
        "charted_diagnosis", "diagnosisid", "diagnosisstring", "", "diagnosisoffset",
        "diagnosisoffset",
    ),
    "treatment": Pick(
        "treatment", "treatmentid", "treatmentstring", "", "treatmentoffset", "treatmentoffset"
    ),
    "pasthistory": Pick(
        "past_history", "pasthistoryid", "pasthistorypath", "pasthistoryvalue",
        "pasthistoryoffset", "pasthistoryenteredoffset",
    ),
    "note": Pick(
        "progress_note", "noteid", "notepath", "notevalue", "noteoffset", "noteenteredoffset"
    ),
    "physicalexam": Pick(
        "physical_exam", "physicalexamid", "physicalexampath", "physicalexamtext",
        "physicalexamoffset", "physicalexamoffset",
    ),
}  # fmt: skip

# A word that the next one repeats and goes on from is not said.
_TEXT = """
array_to_string(list_transform(list_filter(
    list_zip(words, words[2:]),
    lambda pair: pair[1] <> '' AND NOT coalesce(starts_with(lower(pair[2]), lower(pair[1])), false)
), lambda pair: pair[1]), ', ')
"""


def picks_sql(table: str, tables: RawFolder) -> str:
    """Picks of one table: kind, id, stay_id, hadm_id, subject_id, intime, path, value, time,
    available_at (null without a readable offset); all but those that only steer the form."""
    one = PICKS[table]
    wanted = (one.key, "patientunitstayid", one.path, one.value, one.offset, one.entered)
    raw = tables.text(table, tuple(dict.fromkeys(name for name in wanted if name)))
    offset, entered = offset_number(one.offset), entered_number(one.offset, one.entered)

    known = f"{offset} IS NOT NULL AND {entered} IS NOT NULL"
    later = f"CASE WHEN {known} THEN greatest({offset}, {entered}) END"
    return (
        f"SELECT '{one.kind}' AS kind, {one.key} AS id, TRY_CAST(patientunitstayid AS BIGINT)"
        f" AS stay_id, s.hadm_id, s.subject_id, intime, {one.path} AS path,"
        f" {one.value or 'NULL::VARCHAR'} AS value, intime + {minutes(offset)} AS time,"
        f" intime + {minutes(later)} AS available_at"
        f" FROM {raw} AS raw LEFT JOIN unit_stays AS s"
        " ON s.stay_id = TRY_CAST(patientunitstayid AS BIGINT)"
        f" WHERE NOT regexp_matches({one.path}, '{FORMS}')"
    )


def documents_sql() -> str:
    """The table `picks` as documents: every text of a hospital stay once, when it came first."""
    return f"""
        WITH split AS (
            SELECT *, list_transform(string_split_regex(
                regexp_replace(path, '{BEGINNINGS}', '') || coalesce('|' || value, ''), '[|/]'
            ), lambda word: trim(word)) AS words
            FROM picks WHERE available_at IS NOT NULL
        ), told AS (SELECT *, {_TEXT} AS text FROM split)
        SELECT kind || '/' || id AS document_id, subject_id, hadm_id, kind, time, available_at,
            text
        FROM told QUALIFY row_number() OVER (
            PARTITION BY hadm_id, kind, text ORDER BY available_at, time, id) = 1
    """
