"""A few invented patients as rows of eICU's own tables, in either layout.

Offsets are minutes from the admission to the unit.
"""

import csv
import io
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hospital import put

Row = dict[str, Any]
COLUMNS = {
    "patient": (
        "patientunitstayid", "patienthealthsystemstayid", "gender", "age", "ethnicity",
        "hospitalid", "apacheadmissiondx", "admissionheight", "hospitaladmittime24",
        "hospitaladmitoffset", "hospitaladmitsource", "hospitaldischargeyear",
        "hospitaldischargeoffset", "hospitaldischargelocation", "hospitaldischargestatus",
        "unittype", "unitadmittime24", "unitadmitsource", "unitvisitnumber", "unitstaytype",
        "admissionweight", "dischargeweight", "unitdischargeoffset", "unitdischargestatus",
        "uniquepid",
    ),
    "hospital": ("hospitalid", "numbedscategory", "teachingstatus", "region"),
    "vitalAperiodic": (
        "vitalaperiodicid", "patientunitstayid", "observationoffset", "noninvasivesystolic",
        "noninvasivediastolic", "noninvasivemean",
    ),
    "vitalPeriodic": (
        "vitalperiodicid", "patientunitstayid", "observationoffset", "temperature", "sao2",
        "heartrate", "respiration", "systemicsystolic", "systemicdiastolic", "systemicmean",
    ),
    "lab": (
        "labid", "patientunitstayid", "labresultoffset", "labname", "labresult",
        "labresultrevisedoffset",
    ),
    "nurseCharting": (
        "nursingchartid", "patientunitstayid", "nursingchartoffset", "nursingchartentryoffset",
        "nursingchartcelltypevalname", "nursingchartvalue",
    ),
    "respiratoryCharting": (
        "respchartid", "patientunitstayid", "respchartoffset", "respchartentryoffset",
        "respchartvaluelabel", "respchartvalue",
    ),
    "intakeOutput": (
        "intakeoutputid", "patientunitstayid", "intakeoutputoffset", "intakeoutputentryoffset",
        "cellpath", "cellvaluenumeric",
    ),
    "physicalExam": (
        "physicalexamid", "patientunitstayid", "physicalexamoffset", "physicalexampath",
        "physicalexamvalue", "physicalexamtext",
    ),
    "pastHistory": (
        "pasthistoryid", "patientunitstayid", "pasthistoryoffset", "pasthistoryenteredoffset",
        "pasthistorypath", "pasthistoryvalue",
    ),
    "note": (
        "noteid", "patientunitstayid", "noteoffset", "noteenteredoffset", "notepath", "notevalue",
    ),
    "admissionDx": (
        "admissiondxid", "patientunitstayid", "admitdxenteredoffset", "admitdxpath", "admitdxname",
    ),
    "diagnosis": ("diagnosisid", "patientunitstayid", "diagnosisoffset", "diagnosisstring"),
    "treatment": ("treatmentid", "patientunitstayid", "treatmentoffset", "treatmentstring"),
}  # fmt: skip
URINE = "flowsheet|Flowsheet Cell Labels|I&O|Output (ml)|Urine"
EXAM = "notes/Progress Notes/Physical Exam/Physical Exam/"


class Unit:
    """Rows by table, and the hourly grid of the demo."""

    def __init__(self) -> None:
        self.tables: dict[str, list[Row]] = {name: [] for name in COLUMNS}
        self.grid: dict[str, list[Row]] = defaultdict(list)
        self.count = 0

    def add(self, table: str, **values: Any) -> Row:
        """A row; its first column numbers it unless told."""
        self.count += 1
        row = {COLUMNS[table][0]: self.count} | values
        self.tables[table].append(row)
        return row

    def stay(self, stay: int, hadm: int, pid: str = "002-1", **values: Any) -> Row:
        """A unit stay, by default of three days that begins an hour after the hospital's."""
        usual = {
            "gender": "Female", "age": "60", "ethnicity": "Asian", "hospitalid": 7,
            "hospitaladmittime24": "10:00:00", "hospitaladmitoffset": -60,
            "hospitaldischargeyear": 2014, "hospitaldischargeoffset": 6000,
            "hospitaldischargestatus": "Alive", "unittype": "MICU",
            "unitadmittime24": "11:00:00", "unitadmitsource": "Floor", "unitvisitnumber": 1,
            "unitstaytype": "admit", "unitdischargeoffset": 72 * 60, "admissionheight": 170,
            "admissionweight": 80,
        }  # fmt: skip
        return self.add("patient", patientunitstayid=stay, patienthealthsystemstayid=hadm,
                        uniquepid=pid, **usual | values)  # fmt: skip

    def lab(self, stay: int, offset: Any, name: str, value: Any, revised: Any = "") -> Row:
        return self.add("lab", patientunitstayid=stay, labresultoffset=offset, labname=name,
                        labresult=value, labresultrevisedoffset=revised)  # fmt: skip

    def note(self, stay: int, offset: Any, path: str, entered: Any = "") -> Row:
        return self.add("note", patientunitstayid=stay, noteoffset=offset, notepath=path,
                        noteenteredoffset=entered, notevalue=path.split("/")[-1])  # fmt: skip

    def diagnosis(self, stay: int, offset: Any, text: str) -> Row:
        return self.add("diagnosis", patientunitstayid=stay, diagnosisoffset=offset,
                        diagnosisstring=text)  # fmt: skip

    def write(self, folder: Path, demo: bool = False, ending: str = ".csv.gz") -> Path:
        """The tables that have rows, as the full data set, or as the demo, has them."""
        inside = folder / "tables" if demo else folder
        for name, rows in self.tables.items():
            if rows:
                text = io.StringIO()
                writer = csv.DictWriter(text, COLUMNS[name], lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
                put(inside / ((name.lower() if demo else name) + ending), text.getvalue().encode())
        for name, rows in self.grid.items():
            (folder / "hourly" / name).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows), folder / "hourly" / f"{name}.parquet")
        return folder

    def hour(self, stay: int, hour: int, **values: float | None) -> None:
        """A row of the grid: the hour that begins then."""
        self.grid["los/dyn"].append({"stay_id": stay, "time": 3600 * hour} | values)

    def answer(self, name: str, stay: int, hour: int, label: bool) -> None:
        row = {"stay_id": stay, "time": 3600 * hour, "label": label}
        self.grid[f"{name}/outc"].append(row)


def everything(stays: int = 12) -> Unit:
    """Patients with values, picks and answers all stay long, every third one with a second unit
    stay of the same hospital stay and every fourth one with another hospital stay."""
    unit = Unit()
    for number in range(1, stays + 1):
        end = (30 + 9 * (number % 5)) * 60
        pid = f"00{number % 9}-{number}"
        died = "Expired" if number % 5 == 0 else "Alive"
        unit.stay(number, 100 + number, pid, unitdischargeoffset=end,
                  hospitaldischargestatus=died, hospitaldischargeoffset=end + 5000,
                  age="> 89" if number % 7 == 0 else 40 + number)  # fmt: skip
        _chart(unit, number, end // 60)
        if number % 3 == 0:
            unit.stay(50 + number, 100 + number, pid, unitdischargeoffset=1800, unitvisitnumber=2,
                      hospitaladmitoffset=-60 - end - 700, hospitaldischargeoffset=4300,
                      hospitaldischargestatus=died)  # fmt: skip
            _chart(unit, 50 + number, 30)
        if number % 4 == 0:
            unit.stay(80 + number, 200 + number, pid, unitdischargeoffset=2400)
            _chart(unit, 80 + number, 40)
    unit.add("hospital", hospitalid=7, numbedscategory="<100", teachingstatus="t", region="West")
    return unit


def _chart(unit: Unit, stay: int, hours: int) -> None:
    for hour in range(hours):
        unit.hour(stay, hour, hr=80.0 + hour % 7, crea=1.0 + hour / 50 if hour % 5 == 0 else None)
        unit.answer("sepsis", stay, hour, hour > 30)
        at = 60 * hour
        if hour % 4 == 1:
            unit.add("intakeOutput", patientunitstayid=stay, intakeoutputoffset=at,
                     intakeoutputentryoffset=at + 60 * (hour % 3), cellpath=URINE,
                     cellvaluenumeric=10 * hour)  # fmt: skip
            unit.add("vitalAperiodic", patientunitstayid=stay, observationoffset=at + 20,
                     noninvasivesystolic=100 + hour)  # fmt: skip
            unit.diagnosis(stay, at, f"renal|number {hour}")
            unit.note(stay, at, f"notes/Progress Notes/Finding/{hour}", at + 45 * (hour % 5))
            unit.add("physicalExam", patientunitstayid=stay, physicalexamoffset=at + 7,
                     physicalexampath=f"{EXAM}Neurologic/GCS/Motor Score/{1 + hour % 6}",
                     physicalexamvalue=1 + hour % 6, physicalexamtext=1 + hour % 6)  # fmt: skip
