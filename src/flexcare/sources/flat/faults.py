"""What is wrong with the tables of a folder: where, what was found, what was expected."""

from collections.abc import Iterable
from dataclasses import dataclass, field

SHOWN = 5  # faults of one kind that are listed; of the others the number
LONG = 40  # characters of a cell that are shown

Kind = tuple[str, str, str]  # file, column, expected


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        file: below the folder.
        row: as a spreadsheet counts, where the column names of a csv file are row 1; a Parquet
            file begins with its first row. None: no row in particular.
        column: "" where it is about the whole row or file.
    """

    file: str
    row: int | None
    column: str
    found: str
    expected: str

    def place(self) -> str:
        """Where it is, in words."""
        row = "" if self.row is None else f", row {self.row:,}"
        return f"{self.file}{row}" + (f", column {self.column}" if self.column else "")


@dataclass
class Faults:
    """All faults of a folder: the first of each kind, and how many there are of it."""

    shown: list[Fault] = field(default_factory=list)
    counts: dict[Kind, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(self.counts.values())

    def add(
        self, file: str, column: str, expected: str, found: str, row: int | None = None
    ) -> None:
        """One fault."""
        self.extend(file, column, expected, [(row, found)], 1)

    def extend(
        self,
        file: str,
        column: str,
        expected: str,
        rows: Iterable[tuple[int | None, str]],
        count: int,
    ) -> None:
        """Faults of one kind: the first ones as (row, what was found), and how many there are."""
        kind = file, column, expected
        before = self.counts.get(kind, 0)
        self.counts[kind] = before + count
        for row, found in list(rows)[: max(0, SHOWN - before)]:
            self.shown.append(Fault(file, row, column, found, expected))

    def lines(self) -> list[str]:
        """The report, kind by kind in the order of the files."""
        out = []
        for kind, count in self.counts.items():
            shown = [f for f in self.shown if (f.file, f.column, f.expected) == kind]
            out += [f"{f.place()}: found {f.found}, expected {f.expected}" for f in shown]
            if count > len(shown):
                out.append(f"  ... and {count - len(shown):,} more of this kind")
        return out


def shortened(cell: str) -> str:
    """The beginning of a long cell."""
    return cell if len(cell) <= LONG else cell[:LONG] + "..."
