"""Numbers drawn as marks in a row of a table: a dot on its interval, a shade in a cell."""

import math
from collections.abc import Iterable
from typing import Any

from flexcare.report.content import Value

Domain = tuple[float, float]


def domain(values: Iterable[Value], *others: float | None) -> Domain:
    """A scale that holds all values and their intervals, ended at whole tenths."""
    known = [v[key] for v in values for key in ("value", "low", "high") if v.get(key) is not None]
    known += [other for other in others if other is not None]
    if not known:
        return 0.0, 1.0
    low, high = math.floor(min(known) * 10 + 1e-9) / 10, math.ceil(max(known) * 10 - 1e-9) / 10
    return low, max(high, low + 0.1)


def place(number: float | None, scale: Domain) -> float | None:
    """Where on the scale, in percent from the left."""
    if number is None:
        return None
    return round(100 * min(1.0, max(0.0, (number - scale[0]) / (scale[1] - scale[0]))), 2)


def mark(value: Value, scale: Domain, order: int = 0) -> dict[str, Any]:
    """Dot and interval of one model (`order` gives its colour)."""
    low, high = place(value.get("low"), scale), place(value.get("high"), scale)
    return {
        "order": order,
        "dot": place(value.get("value"), scale),
        "left": low,
        "width": None if low is None or high is None else round(high - low, 2),
    }


def ends(scale: Domain) -> tuple[str, str]:
    """The numbers at the ends of a scale."""
    texts = [f"{end:.1f}".replace("-", "−") for end in scale]
    return texts[0], texts[1]


def shares(row: list[float]) -> list[float]:
    """The row divided by its sum; zeros where there is nothing."""
    total = sum(row)
    return [number / total if total else 0.0 for number in row]


def heat(names: list[str], columns: list[str], rows: list[list[float]]) -> dict[str, Any]:
    """A table of shares, each row's cells shaded by their share of the largest in the table."""
    top = max((cell for row in rows for cell in row), default=0.0) or 1.0
    return {
        "columns": columns,
        "rows": [
            {
                "name": name,
                "cells": [{"text": _cell(cell), "shade": round(cell / top, 3)} for cell in row],
            }
            for name, row in zip(names, rows, strict=True)
        ],
    }


def _cell(share: float) -> str:
    return "·" if share < 0.005 else f"{100 * share:.0f}"
