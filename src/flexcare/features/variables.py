"""The variables of a time series: items, units, limits, categories, and the columns they become."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from flexcare.config import Section, check, read_toml
from flexcare.errors import UserError
from flexcare.files import read_json


class Conversion(Section):
    """value * scale + offset, for these items (all if none named) and this range of raw values."""

    items: tuple[int | str, ...] = ()
    above: float | None = None
    up_to: float | None = None
    scale: float = 1.0
    offset: float = 0.0


class Variable(Section):
    """One variable of a variables file.

    A categorical variable's value is the number of its category; `scores` are the numbers that a
    row without text may carry for each category (by default the category's own name as a number).
    """

    unit: str
    modality: str = "series"
    kind: Literal["time_series", "static", "codes", "embedding"] = "time_series"
    items: tuple[int | str, ...] = ()
    sum_of: tuple[str, ...] = ()  # derived: sum of the scores of these, at one charting time
    range: tuple[float, float] | None = None  # plausible, after conversion
    normal: float | str
    convert: tuple[Conversion, ...] = ()
    categories: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    texts: dict[str, str] = Field(default_factory=dict)  # text -> category
    not_testable: tuple[str, ...] = ()  # texts that count as their category and are counted

    def score_of_categories(self) -> tuple[float, ...]:
        """The number each category stands for."""
        return self.scores or tuple(float(name) for name in self.categories)

    def category_of_texts(self) -> dict[str, int]:
        """Category number of each known text, in lower case."""
        named = {name: name for name in self.categories} | self.texts
        return {text.lower(): self.categories.index(name) for text, name in named.items()}

    def normal_value(self) -> float:
        """The value assumed before any was charted: a number, or a category's number."""
        if self.categories:
            return float(self.categories.index(str(self.normal)))
        return float(self.normal)


@dataclass(frozen=True)
class VariableSet:
    """The variables of one store, in the order of its file."""

    variables: dict[str, Variable]

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
        """Names of all columns: values, then one observed mask a variable."""
        names = self.names
        values = [
            names[n] if c is None else f"{names[n]}={self.variables[names[n]].categories[c]}"
            for n, c in self.value_columns()
        ]
        return values + [f"{name} observed" for name in names]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able settings, from which `variable_set` makes the same set again."""
        return {
            name: variable.model_dump(mode="json", exclude_defaults=True)
            for name, variable in self.variables.items()
        }


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
        if variable.categories and str(variable.normal) not in variable.categories:
            raise UserError(
                f"{where}: the normal value of {name} is no category",
                found=str(variable.normal),
                expected=", ".join(variable.categories),
            )
    return VariableSet(variables)


def read_variables(path: Path) -> VariableSet:
    """Read a variables file: TOML, or JSON as a bundle has it."""
    tables = read_json(path, "a variables file") if path.suffix == ".json" else read_toml(path)
    return variable_set(tables, path.name)
