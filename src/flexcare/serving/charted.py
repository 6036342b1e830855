"""Values of one patient as a person writes them -> events, as preparation would keep them."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flexcare.errors import UserError, unknown
from flexcare.features.series import HOUR, Events
from flexcare.features.variables import SERIES, Variable, VariableSet

SEED_HOURS = 24  # a value this long before admission may seed the series
SLACK = 1e-6  # seconds that the rounding of hours may cost
WHEN = Variable(unit="hours", normal=0)


@dataclass(frozen=True)
class Charted:
    """One value: when, of what, and in the variable's unit or as its category's number."""

    hours: float
    name: str
    value: float

    @property
    def seconds(self) -> int:
        """Whole seconds from ICU admission."""
        return math.floor(self.hours * HOUR + SLACK)


def charted_events(
    given: Iterable[Any], until: float, variables: VariableSet, left_out: list[str]
) -> Events:
    """The events up to the prediction time; what is not kept is added to `left_out`.

    Args:
        given: (hours, variable, value) triples; of equal times the last one given wins. Of static
            fields also {variable: value}, known from the stay's start on.
        until: the prediction time, hours from ICU admission.

    Raises:
        UserError: an entry that is no such triple, an unknown variable or category, a number that
            is not finite.
    """
    if variables.kind == "static" and isinstance(given, Mapping):
        given = [(0.0, name, value) for name, value in given.items()]
    if not isinstance(given, Iterable) or isinstance(given, str | Mapping):
        raise _no_triple("the series", given)
    kept = []
    for place, entry in enumerate(given):
        one = _read(place, entry, variables)
        reason = _fault(one, variables.variables[one.name], until)
        if reason:
            left_out.append(f"{one.name} at hour {one.hours:g}: {reason}")
        else:
            kept.append(one)
    kept += _sums(sorted(kept, key=lambda one: one.seconds), variables)
    kept.sort(key=lambda one: one.seconds)
    seconds = np.array([one.seconds for one in kept], np.int32)
    number = {name: place for place, name in enumerate(variables.names)}
    return Events(
        sample=np.zeros(len(kept), np.int64),
        seconds=seconds,
        available=seconds,
        variable=np.array([number[one.name] for one in kept], np.int16),
        value=np.array([one.value for one in kept], np.float32),
    )


def coded_events(
    given: Any,
    until: float,
    known: Mapping[str, list[str]],
    left_out: list[str],
) -> Events:
    """Codes known up to the prediction time, as numbers among all known ones.

    Args:
        given: codes, known from the stay's start on; or (hours, code) with the hours from which
            each was known; or (hours, variable, code). A code without a variable is every
            variable's that knows it.
        known: by variable, the codes that the model knows; others are added to `left_out`.

    Raises:
        UserError: an entry that is none of these, an unknown variable.
    """
    if not isinstance(given, Iterable) or isinstance(given, str | Mapping):
        raise _no_code("the codes", given)
    every = [(name, code) for name, codes in known.items() for code in codes]
    number = {key: place for place, key in enumerate(every)}
    seconds: list[int] = []
    numbers: list[int] = []
    for place, entry in enumerate(given):
        parts = (0.0, entry) if isinstance(entry, str) else entry
        if not isinstance(parts, list | tuple) or len(parts) not in (2, 3):
            raise _no_code(f"entry {place} of the codes", entry)
        if len(parts) == 3 and parts[1] not in known:
            raise unknown(f"variable in entry {place} of the codes:", str(parts[1])[:40], known)
        when = _number(f"the hours of entry {place} of the codes", WHEN, parts[0])
        code = str(parts[-1]).strip()
        names = parts[1:-1] or known
        found = [number[name, code] for name in names if (name, code) in number]
        if not found:
            left_out.append(f"{code[:40]}: a code that the model does not know")
        elif when * HOUR > until * HOUR + SLACK:
            left_out.append(f"{code[:40]} at hour {when:g}: after the prediction time")
        else:
            numbers += found
            seconds += [Charted(when, "", 0).seconds] * len(found)
    at = np.array(seconds, np.int32)
    nothing = np.zeros(len(at), np.int64)
    return Events(nothing, at, at, nothing.astype(np.int16), np.array(numbers, np.float32))


def _read(place: int, entry: Any, variables: VariableSet) -> Charted:
    try:
        hours, name, value = entry
    except (TypeError, ValueError):
        raise _no_triple(f"entry {place} of the series", entry) from None
    if not isinstance(name, str) or name not in variables.variables:
        raise unknown(f"variable in entry {place} of the series:", str(name)[:40], variables.names)
    variable = variables.variables[name]
    read = _category if variable.categories else _number
    when = _number(f"the hours of {name}", WHEN, hours)
    return Charted(when, name, read(f"{name} at hour {when:g}", variable, value))


def _number(what: str, variable: Variable, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        found = str(value) if isinstance(value, float) else f"a {type(value).__name__}"
        raise UserError(
            f"{what} is no number", found=found, expected=f"a finite number, {variable.unit}"
        )
    return number


def _category(what: str, variable: Variable, value: Any) -> float:
    """Number of a category from its name, a text that means it, or its score."""
    names = variable.category_of_texts()
    text = str(value).strip().lower()
    if text in names:
        return float(names[text])
    try:
        return float(variable.score_of_categories().index(float(text)))
    except ValueError:
        raise unknown(f"category of {what}:", str(value)[:40], names) from None


def _no_code(what: str, given: Any) -> UserError:
    return UserError(
        f"{what} cannot be read",
        found=f"a {type(given).__name__}",
        expected="codes as texts, or (hours, code), or (hours, variable, code)",
    )


def _no_triple(what: str, given: Any) -> UserError:
    return UserError(
        f"{what} cannot be read",
        found=f"a {type(given).__name__}",
        expected="(hours, variable, value) triples",
    )


def _fault(one: Charted, variable: Variable, until: float) -> str:
    """Why preparation would not keep it; "" if it would."""
    if one.hours * HOUR > until * HOUR + SLACK:
        return "after the prediction time"
    if variable.kind == SERIES and one.hours < -SEED_HOURS:
        return f"more than {SEED_HOURS} h before ICU admission"
    low, high = variable.range or (-math.inf, math.inf)
    if not variable.categories and not low <= one.value <= high:
        return f"{one.value:g} is outside the plausible range {low:g} to {high:g} {variable.unit}"
    return ""


def _sums(kept: list[Charted], variables: VariableSet) -> list[Charted]:
    """Derived variables, where all parts were charted in the same second."""
    out = []
    for name, variable in variables.variables.items():
        known: dict[int, dict[str, float]] = {}
        for one in kept if variable.sum_of else ():
            if one.name in variable.sum_of:
                scores = variables.variables[one.name].score_of_categories()
                if scores:
                    known.setdefault(one.seconds, {})[one.name] = scores[int(one.value)]
        for seconds, scores_of in known.items():
            if len(scores_of) == len(variable.sum_of):
                total = sum(scores_of.values())
                value = (
                    variable.score_of_categories().index(total) if variable.categories else total
                )
                out.append(Charted(seconds / HOUR, name, value))
    return out
