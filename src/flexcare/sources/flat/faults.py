"""What is wrong with the tables of a folder: where, what was found, what was expected."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

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
    """All faults of a folder.

    Attributes:
        most: faults of one kind that are kept to be shown; None: all.
        shown: those kept; counts: how many there are of each kind.
    """

    most: int | None = None
    shown: list[Fault] = field(default_factory=list)
    counts: dict[Kind, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(self.counts.values())

    def number(self) -> str:
        """How many there are, in words."""
        count = f"{len(self):,}" if len(self) else "no"
        return f"{count} fault{'' if len(self) == 1 else 's'}"

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
        room = None if self.most is None else max(0, self.most - before)
        self.shown += [
            Fault(file, row, column, found, expected) for row, found in islice(rows, room)
        ]

    def lines(self) -> list[str]:
        """The report, kind by kind in the order of the files."""
        out, of_kind = [], dict[Kind, list[Fault]]()
        for fault in self.shown:
            of_kind.setdefault((fault.file, fault.column, fault.expected), []).append(fault)
        for kind, count in self.counts.items():
            shown = of_kind.get(kind, [])
            out += [f"{f.place()}: found {f.found}, expected {f.expected}" for f in shown]
            if count > len(shown):
                out.append(f"  ... and {count - len(shown):,} more of this kind")
        return out


def shortened(cell: str) -> str:
    """The beginning of a long cell."""
    return cell if len(cell) <= LONG else cell[:LONG] + "..."
