"""The one error a user sees: what is wrong, what was found, what was expected, what to do."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input, explained to the person who gave it; the command line prints it without traceback.

    Args:
        what: the thing that is wrong, named so that it can be found (file, option, column).
        found: what is there.
        expected: what should be there.
        do: the next step for the reader.
    """

    def __init__(self, what: str, *, found: str = "", expected: str = "", do: str = "") -> None:
        self.what, self.found, self.expected, self.do = what, found, expected, do
        parts = [what]
        if found:
            parts.append(f"  found:    {found}")
        if expected:
            parts.append(f"  expected: {expected}")
        if do:
            parts.append(f"  do:       {do}")
        super().__init__("\n".join(parts))


class Diverged(UserError):
    """A training that led nowhere, whose settings are at fault."""


def unknown(kind: str, name: str, known: Iterable[str], do: str = "") -> UserError:
    """The error for a name that is not in a table, with the nearest name suggested."""
    names = sorted(known)
    hint = _nearest(name, names)
    return UserError(
        f"unknown {kind} {name!r}",
        found=name,
        expected="one of " + ", ".join(names),
        do=(hint + do).strip(),
    )


def missing_column(where: str, column: str, header: Iterable[str]) -> UserError:
    """The error for a table that lacks a column, with the nearest one that it has."""
    names = sorted(header)
    return UserError(
        f"{where} has no column {column}",
        found=", ".join(names),
        expected=column,
        do=(_nearest(column, names) + "Check that the file is of the expected release.").strip(),
    )


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}? " if near else ""
