"""The variables of a source: items, units, limits, categories, modality, and their columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from flexcare.config import Section, check, read_toml
from flexcare.errors import UserError
from flexcare.files import read_json

EventKind = Literal["time_series", "static", "codes", "embedding", "wave"]
SERIES: EventKind = "time_series"
WAVE: EventKind = "wave"
OTHERS = ("film", "note")  # names of the modalities that do not consist of events


class Conversion(Section):
    """value * scale + offset, for these items (all if none named) and this range of raw values."""

    items: tuple[int | str, ...] = ()
    above: float | None = None
    up_to: float | None = None
    scale: float = 1.0
    offset: float = 0.0


class Variable(Section):
    """One variable of a variables file.

    What an event's value means depends on the kind of its modality: time_series and static: the
    number, or the category's number; codes: the number of the code among the source's; embedding,
    wave: the row of the source's vectors or waves.
    A categorical variable's value is the number of its category; `scores` are the numbers that a
    row without text may carry for each category (by default the category's own name as a number).
    """

    unit: str
    modality: str = "series"
    kind: EventKind = SERIES  # of the modality
    items: tuple[int | str, ...] = ()
    sum_of: tuple[str, ...] = ()  # derived: sum of the scores of these, at one charting time
    range: tuple[float, float] | None = None  # plausible, after conversion
    normal: float | str | None = None  # a time series needs it
    convert: tuple[Conversion, ...] = ()
    categories: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    texts: dict[str, str] = Field(default_factory=dict)  # text -> category
    not_testable: tuple[str, ...] = ()  # texts that count as their category and are counted
    channels: tuple[str, ...] = ()  # of a wave, in order
    rate: float = Field(0, ge=0)  # of a wave: samples a second
    samples: int = Field(0, ge=0)  # of a wave, in each channel

    def score_of_categories(self) -> tuple[float, ...]:
        """The number each category stands for: its place, where its name is no number."""
        if self.scores:
            return self.scores
        numbers = all(_is_number(name) for name in self.categories)
        return tuple(
            float(name) if numbers else float(place) for place, name in enumerate(self.categories)
        )

    def category_of_texts(self) -> dict[str, int]:
        """Category number of each known text, in lower case."""
        named = {name: name for name in self.categories} | self.texts
        return {text.lower(): self.categories.index(name) for text, name in named.items()}

    def normal_value(self) -> float:
        """The value assumed before any was charted: a number, or a category's number."""
        if self.normal is None:
            return 0.0
        if self.categories:
            return float(self.categories.index(str(self.normal)))
        return float(self.normal)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class VariableSet:
    """The variables of one store, or of one of its modalities, in the order of the file."""

    variables: dict[str, Variable]

    @property
    def kind(self) -> EventKind:
        """Of the modality, if these are one modality's."""
        return next(iter(self.variables.values())).kind

    @cached_property
    def modalities(self) -> dict[str, "VariableSet"]:
        """The variables of each modality, which are numbered anew (see `own_numbers`)."""
        out: dict[str, dict[str, Variable]] = {}
        for name, variable in self.variables.items():
            out.setdefault(variable.modality, {})[name] = variable
        return {name: VariableSet(variables) for name, variables in out.items()}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.variables)

    def value_columns(self) -> list[tuple[int, int | None]]:
        """(variable number, category number or None) of each value column, in order."""
        out: list[tuple[int, int | None]] = []
        for number, variable in enumerate(self.variables.values()):
            if variable.categories:
                out += [(number, category) for category in range(len(variable.categories))]
            else:
                out.append((number, None))
        return out

    def columns(self) -> list[str]:
        """Names of all columns: values; of a time series then one observed mask a variable.

        Codes, embeddings and waves have a column a variable, which stands for its tokens.
        """
        names = self.names
        values = [
            names[n] if c is None else f"{names[n]}={self.variables[names[n]].categories[c]}"
            for n, c in self.value_columns()
        ]
        return values + [f"{name} observed" for name in names if self.kind == SERIES]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able settings, from which `variable_set` makes the same set again."""
        return {
            name: variable.model_dump(mode="json", exclude_defaults=True)
            for name, variable in self.variables.items()
        }


def own_numbers(own: VariableSet, names: Sequence[str]) -> NDArray[np.int64] | None:
    """For each variable of a store its number within one modality, -1 where it is of another.

    Args:
        names: of all variables of the store, in the order of their numbers.

    Returns:
        (len(names),); None if the numbers are the same, as with one modality.
    """
    if list(own.names) == list(names):
        return None
    place = {name: number for number, name in enumerate(own.names)}
    return np.array([place.get(name, -1) for name in names], np.int64)


def variable_set(tables: dict[str, Any], where: str) -> VariableSet:
    """Check the tables of a variables file (or of a manifest) and make the set."""
    variables = {name: check(Variable, table, f"{where}, {name}") for name, table in tables.items()}
    if not variables:
        raise UserError(f"{where} has no variables", expected="a table for each variable")
    for name, variable in variables.items():
        unknown_parts = set(variable.sum_of) - set(variables)
        if unknown_parts:
            raise UserError(
                f"{where}: {name} is a sum of variables that are not there",
                found=", ".join(sorted(unknown_parts)),
                expected="names of variables of the same file",
            )
        if variable.kind == WAVE and not (variable.channels and variable.rate and variable.samples):
            raise UserError(
                f"{where}: {name} does not say what its waves are",
                expected="channels (names), rate (samples a second) and samples (in a channel)",
            )
        if variable.kind != SERIES:
            continue
        if variable.normal is None:
            raise UserError(
                f"{where}: {name} has no normal value",
                expected="the value to assume before any was charted, as every time series needs",
            )
        if variable.categories and str(variable.normal) not in variable.categories:
            raise UserError(
                f"{where}: the normal value of {name} is no category",
                found=str(variable.normal),
                expected=", ".join(variable.categories),
            )
    out = VariableSet(variables)
    for name, own in out.modalities.items():
        _check_modality(name, own, where)
    return out


def _check_modality(name: str, own: VariableSet, where: str) -> None:
    kinds = sorted({variable.kind for variable in own.variables.values()})
    if len(kinds) > 1:
        raise UserError(
            f"{where}: variables of modality {name} are of several kinds",
            found=", ".join(kinds),
            expected="one kind a modality",
        )
    shapes = {(v.channels, v.rate, v.samples) for v in own.variables.values()}
    if len(shapes) > 1:
        raise UserError(
            f"{where}: waves of modality {name} differ in channels, rate or samples",
            expected="the same ones, or a modality for each variable",
        )
    if name in OTHERS:
        raise UserError(
            f"{where}: a modality of variables is called {name}",
            expected=f"another name than {' and '.join(OTHERS)}",
        )


def read_variables(path: Path) -> VariableSet:
    """Read a variables file: TOML, or JSON as a bundle has it."""
    tables = read_json(path, "a variables file") if path.suffix == ".json" else read_toml(path)
    return variable_set(tables, path.name)
