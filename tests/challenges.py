"""Invented records in the layouts of the PhysioNet Challenges of 2012 and 2019."""

import io
import lzma
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from flexcare.features.variables import VariableSet
from flexcare.preparation import prepare
from flexcare.sources import SOURCES
from flexcare.sources.physionet2019 import COLUMNS
from flexcare.store import Store
from prepared import quiet

Files = dict[str, str]


def pack(path: Path, files: Files) -> None:
    """Write files by their name below the archive's folder, as its ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name.partition(".")[0]
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as packed:
            for file, text in files.items():
                packed.writestr(f"{name}/{file}", text)
    elif not path.suffix:
        path.mkdir()
        for file, text in files.items():
            (path / file).write_text(text)
    else:
        mode: Any = "w:" + path.suffix[1:].replace("tar", "")
        with tarfile.open(path, mode) as archive:
            for file, text in files.items():
                member = tarfile.TarInfo(f"{name}/{file}")
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))


def record2012(number: int, *rows: tuple[str, str, Any], **descriptors: Any) -> str:
    """A file of the Challenge 2012: descriptors, then what was charted."""
    known = {"RecordID": number, "Age": 60, "Gender": 1, "Height": -1, "ICUType": 3, "Weight": 80}
    first = [("00:00", name, value) for name, value in (known | descriptors).items()]
    lines = [",".join(map(str, row)) for row in [*first, *rows] if row[2] is not None]
    return "\n".join(["Time,Parameter,Value", *lines]) + "\n"


def outcomes2012(*rows: tuple[int, int, int, int]) -> str:
    """RecordID, Length_of_stay, Survival, In-hospital_death."""
    lines = [f"{number},6,1,{days},{survival},{dead}" for number, days, survival, dead in rows]
    return "\n".join(["RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death", *lines])


def write2012(folder: Path, sets: dict[str, Files], outcomes: dict[str, str],
              ending: str = ".tar.gz") -> Path:  # fmt: skip
    for name, files in sets.items():
        pack(folder / f"set-{name}{ending}", files)
    for name, text in outcomes.items():
        (folder / f"Outcomes-{name}.txt").write_text(text)
    return folder


def some2012(folder: Path, ending: str = ".tar.gz") -> Path:
    """Twelve records in set a, three in set b, with values in every other hour."""
    sets: dict[str, Files] = {"a": {}, "b": {}}
    rows: dict[str, list[tuple[int, int, int, int]]] = {"a": [], "b": []}
    for number in range(1, 16):
        name = "a" if number <= 12 else "b"
        charted = [(f"{h:02}:15", p, 60 + number + h) for h in range(0, 48, 2) for p in ("HR", "K")]
        charted = [(t, p, v if p == "HR" else round(v / 30, 2)) for t, p, v in charted]
        weight = [("00:00", "Weight", 81), ("30:00", "Weight", 82)]
        sets[name][f"{number}.txt"] = record2012(number, *weight, *charted, Age=40 + number)
        rows[name].append((number, number, -1 if number % 3 else number, int(number % 3 == 0)))
    return write2012(folder, sets, {n: outcomes2012(*rows[n]) for n in sets}, ending)


def record2019(hours: list[dict[str, Any]], first: int = 1, **known: Any) -> str:
    """A psv file: one row an hour, whose ICULOS begins with `first`."""
    start = {"Age": 61.5, "Gender": 0, "Unit1": 0, "Unit2": 1, "HospAdmTime": -3.5} | known
    lines = ["|".join(COLUMNS)]
    for number, hour in enumerate(hours):
        row = {"SepsisLabel": 0} | start | {"ICULOS": first + number} | hour
        lines.append("|".join(str(row.get(column, "NaN")) for column in COLUMNS))
    return "\n".join(lines) + "\n"


def hours2019(number: int, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Invented rows; the last third is septic for every third record."""
    draw = np.random.default_rng([seed, number])
    septic = number % 3 == 0
    return [
        {"HR": draw.integers(50, 150), "SepsisLabel": int(septic and hour >= count * 2 / 3)}
        | ({"Lactate": round(draw.uniform(0.5, 9), 1)} if draw.random() < 0.3 else {})
        for hour in range(count)
    ]


def some2019(folder: Path, ending: str = ".tar.xz") -> Path:
    """Ten records of 8 to 17 hours."""
    files = {f"p{n:06}.psv": record2019(hours2019(n, 7 + n), n) for n in range(1, 11)}
    pack(folder / f"training_setA{ending}", files)
    return folder


def truncate(path: Path, by: int = 9) -> None:
    path.write_bytes(path.read_bytes()[:-by])


def with_xz(folder: Path) -> bytes:
    """The bytes of the tar inside training_setA.tar.xz."""
    return lzma.decompress((folder / "training_setA.tar.xz").read_bytes())


def ready(source: str, folder: Path, out: Path, tasks: str | None = None, **settings: Any) -> Store:
    prepare(source, folder, out, tasks=tasks, settings=settings, say=quiet)
    return Store(out)


def events_of(source: str, folder: Path, variables: VariableSet) -> Iterator[tuple[Any, ...]]:
    """(stay_id, variable's name, seconds, available, value) of every event."""
    reader = SOURCES[source](folder, duckdb.connect())
    stays = reader.stays()
    ids = stays["stay_id"].to_pylist()
    for table in reader.events(stays, variables, "charttime"):
        for row in table.to_pylist():
            name = variables.names[row["variable"]]
            yield ids[row["stay"]], name, row["seconds"], row["available"], row["value"]
