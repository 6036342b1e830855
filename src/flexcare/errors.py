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


def unknown(kind: str, name: str, known: Iterable[str], do: str = "") -> UserError:
    """The error for a name that is not in a table, with the nearest name suggested."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return UserError(
        f"unknown {kind} {name!r}",
        found=name,
        expected="one of " + ", ".join(names),
        do=(hint + do).strip(),
    )
