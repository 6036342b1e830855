"""Named sets of settings (SPEC 2), one TOML each."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from flexcare.config import read_toml
from flexcare.errors import unknown

PRESETS = ("corrected", "paper", "authors")


def read_preset(name: str) -> dict[str, Any]:
    """The tables of a preset: [preparation], [training] and perhaps a warning."""
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return read_toml(Path(str(files("flexcare.presets") / f"{name}.toml")))
