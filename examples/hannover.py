"""Writes the COVID-19 Image Repository as flat tables: python hannover.py FOLDER OUT.

FOLDER holds data.csv and images/ID.jpg. All times there are whole days from a film. A film is dated
at noon; a value counts as known from the end of its day, and then the questions are asked, once a
day with a film. docs/hancock.md has a section about it.
"""

import csv
import math
import shutil
import sys
from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from flexcare.files import refuse_existing, whole

LABS = {  # the columns' beginning: our name
    "ldh": "lactate_dehydrogenase",
    "crp": "c_reactive_protein",
    "d-dimer": "d_dimer",
    "factor_xii": "factor_xiii",
    "lymphocytes": "lymphocytes",
    "neutrophils": "neutrophils",
    "po2": "po2",
    "pco2": "pco2",
}
ADMISSION = datetime(2000, 1, 1)  # of everybody: the files give no dates
NEVER = math.inf
Tables = dict[str, list[dict[str, Any]]]


def main(folder: Path, out: Path) -> None:
    """Write the tables, and copy variables.toml, tasks/ and the films beside them."""
    patients: dict[str, list[dict[str, str]]] = defaultdict(list)
    with (folder / "data.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            patients[row["patient_id"]].append(row)
    shutil.copytree(Path(__file__).with_suffix(""), out)
    shutil.copytree(folder / "images", out / "images")
    tables: Tables = defaultdict(list)
    for patient, films in patients.items():
        add_patient(tables, int(patient, 16), films)
    for name, rows in tables.items():
        with (out / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def add_patient(tables: Tables, patient: int, films: list[dict[str, str]]) -> None:
    """One patient with one stay, from the first thing known until the day of the last film."""
    days = [-int(film["admission_offset"]) for film in films]  # from admission
    icu = day_of(films[0], days[0], "icu_admission_offset")
    left = day_of(films[0], days[0], "icu_release_offset")
    death = day_of(films[0], days[0], "death_offset")
    values = {
        (name, day + int(float(film[f"{column}_offset"])), float(film[f"{column}_val"]))
        for film, day in zip(films, days, strict=True)
        for column, name in LABS.items()
        if film[f"{column}_val"]
    }
    start = int(min([0, icu, *days, *(day for _, day, _ in values)]))
    tables["subjects"].append(
        {"subject_id": patient, "sex": films[0]["sex"], "died_at": date(death)}
    )
    tables["stays"].append(
        {
            "stay_id": patient,
            "subject_id": patient,
            "start": at(start, 0),
            "stop": at(max(days), 24),
        }
    )
    add_event(tables, patient, "sex", at(start, 0), at(start, 0), films[0]["sex"])
    for name, day, value in sorted(values):
        if math.isfinite(value):  # beyond the limit of detection: no number is known
            add_event(tables, patient, name, at(day, 12), at(day, 24), value)
    for film, day in zip(films, days, strict=True):
        tables["images"].append(
            {
                "image_id": int(film["image_id"], 16),
                "subject_id": patient,
                "time": at(day, 12),
                "path": f"images/{film['image_id']}.jpg",
            }
        )
    for day in sorted(set(days)):
        hours = 24 * (day - start + 1)
        if death > day:
            add_label(tables, patient, "death_14d", hours, death - day <= 14)
        if icu <= day < left and death > day:
            add_label(tables, patient, "icu_7d", hours, death - day <= 7 or left - day > 7)


def day_of(film: dict[str, str], day: int, column: str) -> float:
    """The day from admission of what is so many days from a film; never, where nothing is said."""
    return day + float(film[column]) if film[column] else NEVER


def at(day: float, hour: int) -> str:
    return str(ADMISSION + timedelta(days=day, hours=hour))


def date(day: float) -> str:
    return "" if day == NEVER else at(day, 0)[:10]


def add_event(
    tables: Tables, stay: int, variable: str, time: str, available: str, value: object
) -> None:
    tables["events"].append(
        {
            "stay_id": stay,
            "variable": variable,
            "time": time,
            "available_at": available,
            "value": value,
        }
    )


def add_label(tables: Tables, stay: int, name: str, hours: int, value: bool) -> None:
    tables["labels"].append({"stay_id": stay, "name": name, "hours": hours, "value": int(value)})


if __name__ == "__main__":
    refuse_existing(Path(sys.argv[2]), "OUT")
    with whole(Path(sys.argv[2])) as new:
        main(Path(sys.argv[1]), new)
