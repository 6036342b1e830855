"""A few hand-made patients as rows of MIMIC-IV's own tables, written as it is downloaded.

Times are given in hours from midnight of 1 January 2150; a test reads as `hospital.chart(stay,
hours=2.5, item=HEART_RATE, value=80)`.
"""

import csv
import gzip
import io
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

START = datetime(2150, 1, 1)
HEART_RATE, PH_LAB, GCS_EYE, GCS_MOTOR, GCS_VERBAL = 220045, 50820, 220739, 223901, 223900
OXYGEN, WEIGHT_POUNDS, HEIGHT_INCHES, FAHRENHEIT, CELSIUS = 223835, 226531, 226707, 223761, 223762
SATURATION, GLUCOSE_LAB, GLUCOSE_CHART, REFILL = 220277, 50931, 220621, 223951
FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum",
    "Fracture", "Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other",
    "Pneumonia", "Pneumothorax", "Support Devices",
)  # fmt: skip
_NOTE = (
    "note_id",
    "subject_id",
    "hadm_id",
    "note_type",
    "note_seq",
    "charttime",
    "storetime",
    "text",
)
COLUMNS = {
    "hosp/patients": ("subject_id", "gender", "anchor_age", "anchor_year", "dod"),
    "hosp/admissions": (
        "subject_id", "hadm_id", "admittime", "dischtime", "deathtime", "admission_type",
        "insurance", "race", "hospital_expire_flag",
    ),
    "hosp/diagnoses_icd": ("subject_id", "hadm_id", "seq_num", "icd_code", "icd_version"),
    "hosp/drgcodes": ("subject_id", "hadm_id", "drg_type", "drg_code", "description"),
    "hosp/labevents": (
        "labevent_id", "subject_id", "hadm_id", "itemid", "charttime", "storetime", "value",
        "valuenum",
    ),
    "icu/icustays": (
        "subject_id", "hadm_id", "stay_id", "first_careunit", "last_careunit", "intime", "outtime",
        "los",
    ),
    "icu/chartevents": (
        "subject_id", "hadm_id", "stay_id", "charttime", "storetime", "itemid", "value", "valuenum",
    ),
    "cxr/mimic-cxr-2.0.0-metadata": (
        "dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "StudyTime",
    ),
    "cxr/mimic-cxr-2.0.0-chexpert": ("subject_id", "study_id", *FINDINGS),
    "note/discharge": _NOTE,
    "note/radiology": _NOTE,
    "ed/edstays": ("subject_id", "hadm_id", "stay_id", "intime", "outtime"),
    "ed/triage": ("subject_id", "stay_id", "chiefcomplaint"),
}  # fmt: skip
Row = dict[str, Any]


def at(hours: float | None) -> str:
    """The time this many hours after START, as MIMIC-IV writes it; blank for None."""
    if hours is None:
        return ""
    return (START + timedelta(hours=hours)).isoformat(" ", timespec="seconds")


def picture(brightness: int, height: int = 40, width: int = 48) -> bytes:
    """A JPEG with a bright left edge on a ground of this brightness."""
    grey = np.full((height, width, 1), brightness, np.uint8)
    grey[:, : width // 4] = 250
    return bytes(simplejpeg.encode_jpeg(grey, quality=95, colorspace="GRAY"))


@dataclass
class Hospital:
    """Tables by name as rows, and films by path; change them, then write them."""

    tables: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    films: dict[str, bytes] = field(default_factory=dict)

    def add(self, table: str, **values: Any) -> Row:
        """One row; columns that are not given are blank."""
        row = dict.fromkeys(COLUMNS[table], "") | values
        self.tables[table].append(row)
        return row

    def subject(self, subject: int, *, age: float = 60, year: int = 2150, dod: str = "") -> Row:
        who = {"gender": "FM"[subject % 2], "anchor_age": age, "anchor_year": year, "dod": dod}
        return self.add("hosp/patients", subject_id=subject, **who)

    def admission(
        self,
        subject: int,
        hadm: int,
        start: float,
        stop: float,
        death: float | None = None,
        **more: Any,
    ) -> Row:
        flag = int(death is not None)
        times = {"admittime": at(start), "dischtime": at(stop), "deathtime": at(death)}
        values = {"admission_type": "URGENT", "insurance": "Other", "hospital_expire_flag": flag}
        return self.add(
            "hosp/admissions", subject_id=subject, hadm_id=hadm, **(times | values | more)
        )

    def stay(
        self, subject: int, hadm: int, stay: int, start: float, stop: float, **more: Any
    ) -> Row:
        units = {"first_careunit": "MICU", "last_careunit": "MICU"}
        times = {"intime": at(start), "outtime": at(stop), "los": (stop - start) / 24}
        return self.add(
            "icu/icustays", subject_id=subject, hadm_id=hadm, stay_id=stay, **(units | times | more)
        )

    def patient(
        self,
        subject: int,
        start: float = 0,
        days: float = 3,
        death: float | None = None,
        **who: Any,
    ) -> Row:
        """A subject with one admission (subject * 10) and one stay (subject * 100) in it, from
        2 h after admission to 10 h before discharge, or to death; returns the stay."""
        self.subject(subject, **who)
        stop = start + 24 * days if death is None else death
        self.admission(subject, subject * 10, start - 2, stop + (10 if death is None else 0), death)
        return self.stay(subject, subject * 10, subject * 100, start, stop)

    def chart(
        self, stay: Row, hours: float, item: int, value: Any, *, text: str = "", stored: Any = None
    ) -> Row:
        """A chart row, `hours` from START; stored at once unless told otherwise."""
        return self.add(
            "icu/chartevents", subject_id=stay["subject_id"], hadm_id=stay["hadm_id"],
            stay_id=stay["stay_id"], charttime=at(hours), itemid=item, valuenum=value,
            value=text or value, storetime=at(hours if stored is None else stored),
        )  # fmt: skip

    def lab(
        self,
        subject: int,
        hours: float,
        item: int,
        value: Any,
        *,
        stored: Any = None,
        hadm: Any = "",
    ) -> Row:
        return self.add(
            "hosp/labevents", labevent_id=len(self.tables["hosp/labevents"]), subject_id=subject,
            hadm_id=hadm, itemid=item, charttime=at(hours), value=value, valuenum=value,
            storetime=at(hours if stored is None else stored),
        )  # fmt: skip

    def film(
        self, subject: int, study: int, hours: float, dicom: str, *, view: str = "AP",
        brightness: int = 60, **labels: Any,
    ) -> Row:  # fmt: skip
        """A film with its file; labels are given for a study's first film only."""
        time = START + timedelta(hours=hours)
        clock = f"{time:%H%M%S}".lstrip("0") or "0"
        folder = f"files/p{str(subject)[:2]}/p{subject}/s{study}"
        self.films[f"{folder}/{dicom}.jpg"] = picture(brightness)
        if labels:
            findings = {name.replace("_", " "): value for name, value in labels.items()}
            table = "cxr/mimic-cxr-2.0.0-chexpert"
            self.add(table, subject_id=subject, study_id=study, **findings)
        return self.add("cxr/mimic-cxr-2.0.0-metadata", dicom_id=dicom, subject_id=subject,
                        study_id=study, ViewPosition=view, StudyDate=f"{time:%Y%m%d}",
                        StudyTime=f"{clock}.25")  # fmt: skip

    def summary(
        self, subject: int, hadm: int, history: str, course: str = "", hours: float = 0
    ) -> Row:
        """A discharge summary with these two sections."""
        text = (
            f"Chief Complaint:\nunwell\n\nPast Medical History:\n{history}\n\nSocial History:\n\n"
            f"Brief Hospital Course:\n{course}\n\nDischarge Condition:\nstable\n"
        )
        number = len(self.tables["note/discharge"])
        return self.add("note/discharge", note_id=f"{subject}-DS-{number}", subject_id=subject,
                        hadm_id=hadm, note_type="DS", charttime=at(hours), storetime=at(hours),
                        text=text)  # fmt: skip

    def report(
        self,
        subject: int,
        hours: float,
        impression: str,
        *,
        stored: float | None = None,
        hadm: Any = "",
    ) -> Row:
        """A radiology report, stored an hour after its time unless told otherwise."""
        number = len(self.tables["note/radiology"])
        return self.add("note/radiology", note_id=f"{subject}-RR-{number}", subject_id=subject,
                        hadm_id=hadm, note_type="RR", charttime=at(hours),
                        storetime=at(hours + 1 if stored is None else stored),
                        text=f"EXAMINATION: CHEST\nIMPRESSION:\n{impression}\n")  # fmt: skip

    def complaint(self, subject: int, stay: int, hours: float, text: str) -> Row:
        """An emergency visit with its triage complaint."""
        self.add(
            "ed/edstays", subject_id=subject, stay_id=stay, intime=at(hours), outtime=at(hours + 1)
        )
        return self.add("ed/triage", subject_id=subject, stay_id=stay, chiefcomplaint=text)

    def write(self, folder: Path, ending: str = ".csv.gz") -> Path:
        """Write every table and film under `folder`."""
        for name, rows in self.tables.items():
            text = io.StringIO()
            columns = COLUMNS.get(name) or list(rows[0])
            writer = csv.DictWriter(text, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            put(folder / (name + ending), text.getvalue().encode())
        for name, content in self.films.items():
            put(folder / "cxr" / name, content, packed=False)
        return folder


def put(path: Path, content: bytes, packed: bool = True) -> None:
    """Write a file, compressed if its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    gz = packed and path.suffix == ".gz"
    path.write_bytes(gzip.compress(content, 1, mtime=0) if gz else content)
