"""WHERE data come from: each source turns raw tables into the tidy ones of sources.tables."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from flexcare.sources.meds import Meds
from flexcare.sources.mimic_iv import MimicIV
from flexcare.sources.physionet2012 import Physionet2012
from flexcare.sources.physionet2019 import Physionet2019
from flexcare.sources.tables import Source


def _synthetic(path: Path, connection: duckdb.DuckDBPyConnection, **folders: Path | None) -> Source:
    """The invented hospital: MIMIC-IV's layout with its companions in folders of their own."""
    for name in ("cxr", "note", "ed"):
        if folders.get(name) is None and (path / name).is_dir():
            folders[name] = path / name
    return MimicIV(path, connection, name="synthetic", **folders)  # type: ignore[arg-type]


SOURCES: dict[str, Callable[..., Source]] = {
    "mimic-iv": MimicIV,
    "synthetic": _synthetic,
    "physionet2012": Physionet2012,
    "physionet2019": Physionet2019,
    "meds": Meds,
}

# What a source wants otherwise than config.Preparation says.
DEFAULTS: dict[str, dict[str, Any]] = {
    "synthetic": {"film_side": 112},
    "physionet2012": {"min_age": 0, "one_stay": False},
    "physionet2019": {"min_age": 0, "one_stay": False},
    "meds": {"one_stay": False},
}

# What is asked where no tasks are named; tasks.STANDARD of a source that is not here.
DEFAULT_TASKS: dict[str, tuple[str, ...]] = {
    "physionet2012": ("p2012_death", "p2012_long_stay", "p2012_survival", "p2012_remaining"),
    "physionet2019": ("p2019_sepsis",),
    "meds": (
        "in_hospital_mortality",
        "decompensation",
        "length_of_stay",
        "phenotyping",
        "readmission",
    ),
}
