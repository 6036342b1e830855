"""WHERE data come from: each source turns raw tables into the tidy ones of sources.tables."""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import duckdb

from flexcare.errors import UserError
from flexcare.sources.tables import Source


def _of(module: str, name: str) -> Callable[..., Any]:
    """What a module of this folder calls so, imported when it is first called."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(import_module(f"flexcare.sources.{module}"), name)(*args, **kwargs)

    return call


def _synthetic(path: Path, connection: duckdb.DuckDBPyConnection, **folders: Path | None) -> Source:
    """The invented hospital: MIMIC-IV's layout with its companions in folders of their own."""
    for name in ("cxr", "note", "ed"):
        if folders.get(name) is None and (path / name).is_dir():
            folders[name] = path / name
    return SOURCES["mimic-iv"](path, connection, name="synthetic", **folders)


SOURCES: dict[str, Callable[..., Source]] = {
    "mimic-iv": _of("mimic_iv", "MimicIV"),
    "flat": _of("flat", "Flat"),
    "synthetic": _synthetic,
    "physionet2012": _of("physionet2012", "Physionet2012"),
    "eicu": _of("eicu", "EICU"),
    "physionet2019": _of("physionet2019", "Physionet2019"),
    "meds": _of("meds", "Meds"),
}

WITH_COMPANIONS = ("mimic-iv", "synthetic")  # read folders of films, notes, emergency visits

# What a source wants otherwise than config.Preparation says.
DEFAULTS: dict[str, dict[str, Any]] = {
    "flat": {"one_stay": False, "min_age": 0},
    "synthetic": {"film_side": 112},
    "physionet2012": {"min_age": 0, "one_stay": False},
    # Rows have the offset at which they were entered. A patient's hospital stays have no order, so
    # none is evidence for another. Texts are short picks from menus.
    "eicu": {"clock": "storetime", "one_stay": False, "texts_of": "admission", "max_texts": 64},
    "physionet2019": {"min_age": 0, "one_stay": False},
    "meds": {"one_stay": False},
}

# What is asked where no tasks are named; tasks.STANDARD of a source that is not here.
DEFAULT_TASKS: dict[str, tuple[str, ...]] = {
    "physionet2012": ("p2012_death", "p2012_long_stay", "p2012_survival", "p2012_remaining"),
    "eicu": (
        "eicu_death",
        "eicu_stay_3d",
        "eicu_stay_7d",
        "eicu_remaining",
        "eicu_diagnosis_categories",
        "eicu_sepsis",
        "eicu_aki",
    ),
    "physionet2019": ("p2019_sepsis",),
    "meds": (
        "in_hospital_mortality",
        "decompensation",
        "length_of_stay",
        "phenotyping",
        "readmission",
    ),
}

# Sources whose folder holds task files.
OWN_TASKS: dict[str, Callable[[Path], list[str]]] = {"flat": _of("flat", "tasks_of")}


def asked_of(source: str, path: Path, tasks: str | Sequence[str] | None) -> Sequence[str] | None:
    """The tasks to load: those named, where a name may be that of a task file in the source's
    folder; else all such files, or the usual ones of the source (None: of the package).

    Raises:
        UserError: none are named, and a folder that should hold task files has none.
    """
    own = {Path(task).stem: task for task in OWN_TASKS[source](path)} if source in OWN_TASKS else {}
    if tasks is not None:
        names = tasks.split(",") if isinstance(tasks, str) else tasks
        return [own.get(name.strip(), name) for name in names]
    if source in OWN_TASKS and path.is_dir() and not own:
        raise UserError(
            "nothing is asked",
            found=f"no task file in {path / 'tasks'}",
            expected="a TOML file for each question",
            do="Write one, as docs/data.md shows, or name tasks with --tasks.",
        )
    return list(own.values()) or DEFAULT_TASKS.get(source)


def companions_of(source: str, given: dict[str, str | Path | None]) -> dict[str, Path]:
    """The folders of companions that were given, to a source that has some.

    Raises:
        UserError: one is not there, or the source reads none.
    """
    out = {name: Path(folder) for name, folder in given.items() if folder}
    if out and source not in WITH_COMPANIONS:
        raise UserError(
            f"source {source} has no companions",
            found=", ".join(f"--{name}" for name in out),
            expected="the folder of the source alone",
            do="Leave these out; only " + " and ".join(WITH_COMPANIONS) + " read them.",
        )
    for folder in out.values():  # before the long tables are read, not after
        if not folder.is_dir():
            raise UserError(
                f"no folder {folder}",
                expected="the downloaded data set",
                do="Check the path; docs/data.md says what goes where.",
            )
    return out
