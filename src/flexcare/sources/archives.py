"""Data sets of one small text file a record, packed in an archive: one pass, one table."""

import gzip
import lzma
import re
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
from numpy.typing import NDArray

from flexcare.errors import UserError, missing_column

PARSED = 32 * 2**20  # bytes parsed at once, so that the texts are never all in memory
DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile)
_OPEN: dict[str, Callable[[Path], Any]] = {
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.xz": lzma.open,
    ".tar": lambda path: path.open("rb"),
}


@dataclass(frozen=True)
class Records:
    """The rows of all records of an archive.

    Attributes:
        ids: (records,) the number in each file's name, in the order of the archive.
        record: (rows,) row of `ids` to which each row belongs, ascending.
        table: the columns of the files, in the order of each file's rows.
    """

    ids: NDArray[np.int64]
    record: NDArray[np.int32]
    table: pa.Table


def locate(folder: Path, *names: str) -> Path | None:
    """The first archive or unpacked folder of one of these names (paths below `folder`)."""
    for name in names:
        for ending in (*_OPEN, ".zip"):
            if (folder / (name + ending)).is_file():
                return folder / (name + ending)
        if (folder / name).is_dir():
            return folder / name
    return None


def files_of(path: Path, ending: str) -> list[Path]:
    """The files that are read: the archive, or those in the folder."""
    return sorted(path.rglob(f"*{ending}")) if path.is_dir() else [path]


def read_records(
    path: Path,
    ending: str,
    delimiter: str,
    kinds: dict[str, pa.DataType],
    dropped: Counter[str],
) -> Records:
    """Read every file of an archive or folder whose name ends so.

    Args:
        kinds: the columns wanted, with their types; files may have more.
        dropped: lines with another number of fields are left out and counted.

    Raises:
        UserError: the archive is damaged or holds no such file, a file has other columns than the
            first, a name has no number, two have the same, or a value is not of its type.
    """
    ids: list[int] = []
    counts: list[int] = []
    tables: list[pa.Table] = []
    waiting, size, header = list[tuple[str, bytes]](), 0, b""
    for name, content in _members(path, ending):
        ids.append(_number(path, name, ending))
        first, _, body = content.replace(b"\r\n", b"\n").partition(b"\n")
        header = header or first
        if first != header:
            raise _other_columns(path, ending, header, first, delimiter)
        rows, broken = _whole_lines(body, delimiter.encode(), header.count(delimiter.encode()))
        if broken:
            dropped[f"{path.name}: lines with another number of fields"] += broken
        waiting.append((name, rows))
        counts.append(rows.count(b"\n"))
        size += len(rows)
        if size > PARSED:
            tables.append(_parsed(path, waiting, header, delimiter, kinds))
            waiting, size = [], 0
    if not ids:
        raise UserError(
            f"{path.name} holds no record",
            expected=f"files that end in {ending}",
            do="Check the path; docs/data.md says what goes where.",
        )
    tables.append(_parsed(path, waiting, header, delimiter, kinds))
    unique = len(set(ids))
    if unique < len(ids):
        raise UserError(
            f"{path.name}: records are not unique",
            found=f"{len(ids) - unique} files have the number of another",
            expected="one file a record",
            do="Remove the duplicates: which of two is right cannot be told here.",
        )
    record = np.repeat(np.arange(len(ids), dtype=np.int32), counts)
    return Records(np.array(ids, np.int64), record, pa.concat_tables(tables))


def _members(path: Path, ending: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file that ends so; hidden ones are passed over."""
    read = _unpacked if path.is_dir() else _unzipped if path.suffix == ".zip" else _untarred
    try:
        yield from read(path, ending)
    except DAMAGE as error:
        raise UserError(
            f"{path.name} cannot be read to its end",
            found=str(error) or type(error).__name__,
            expected="the whole archive",
            do="Download it again and compare its checksum.",
        ) from None


def _wanted(name: str, ending: str) -> bool:
    last = name.rsplit("/", 1)[-1]
    return last.endswith(ending) and not last.startswith(".")


def _unpacked(path: Path, ending: str) -> Iterator[tuple[str, bytes]]:
    for file in files_of(path, ending):
        if _wanted(file.name, ending):
            yield file.name, file.read_bytes()


def _unzipped(path: Path, ending: str) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if _wanted(name, ending):
                yield name, archive.read(name)


def _untarred(path: Path, ending: str) -> Iterator[tuple[str, bytes]]:
    opened = next(opened for suffix, opened in _OPEN.items() if path.name.endswith(suffix))
    with opened(path) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                found = archive.extractfile(member) if _wanted(member.name, ending) else None
                if found is not None:
                    yield member.name, found.read()
        # What follows the last file holds the checksum, which tells a truncated archive.
        while stream.read(2**20):
            pass


def _number(path: Path, name: str, ending: str) -> int:
    """The number in a file's name: 132539.txt, p000001.psv."""
    found = re.fullmatch(r"[a-z]?(\d{1,15})", name.rsplit("/", 1)[-1].removesuffix(ending))
    if found is None:
        raise UserError(
            f"{path.name}: the name of a file is no record number",
            found=name,
            expected=f"a number, with a letter before it perhaps, and {ending}",
        )
    return int(found.group(1))


def _other_columns(
    path: Path, ending: str, header: bytes, found: bytes, delimiter: str
) -> UserError:
    return UserError(
        f"{path.name}: a file has other columns than the first",
        found=f"{found.count(delimiter.encode()) + 1} columns in its first line",
        expected=f"the {header.count(delimiter.encode()) + 1} of the others, in their order",
        do=f"Download it again; every {ending} file begins with the same line.",
    )


def _whole_lines(body: bytes, delimiter: bytes, count: int) -> tuple[bytes, int]:
    """The lines with so many delimiters, each ended, and how many others there were."""
    ended = body.endswith(b"\n") and b"\r" not in body
    if ended and body.count(delimiter) == count * body.count(b"\n"):
        return body, 0
    lines = [line for line in body.splitlines() if line.strip()]
    whole = [line + b"\n" for line in lines if line.count(delimiter) == count]
    return b"".join(whole), len(lines) - len(whole)


def _parsed(
    path: Path,
    bodies: Sequence[tuple[str, bytes]],
    header: bytes,
    delimiter: str,
    kinds: dict[str, pa.DataType],
) -> pa.Table:
    """The wanted columns of some files' lines, given with the name of each file."""
    names = header.decode("utf-8-sig", "replace").strip().split(delimiter)
    for name in kinds:
        if name not in names:
            raise missing_column(path.name, name, names)
    text = b"".join(body for _, body in bodies)
    if not text:
        return pa.schema(list(kinds.items())).empty_table()

    def read(text: bytes, kinds: dict[str, pa.DataType]) -> pa.Table:
        return csv.read_csv(
            pa.BufferReader(text),
            read_options=csv.ReadOptions(column_names=names),
            parse_options=csv.ParseOptions(delimiter=delimiter, quote_char=False),
            convert_options=csv.ConvertOptions(
                column_types=kinds, include_columns=list(kinds), null_values=["NaN", ""]
            ),
        )

    try:
        return read(text, kinds)
    except pa.ArrowInvalid:
        raise UserError(
            f"{path.name}: values that cannot be read{_first_wrong(read, bodies, kinds)}",
            found="texts where numbers should be, or broken lines",
            expected="the files as downloaded",
            do="Download it again and compare its checksum.",
        ) from None


def _first_wrong(
    read: Callable[[bytes, dict[str, pa.DataType]], pa.Table],
    bodies: Sequence[tuple[str, bytes]],
    kinds: dict[str, pa.DataType],
) -> str:
    """The first file and column that cannot be read, in words."""
    for name, body in bodies:
        for column, kind in kinds.items() if body else ():
            try:
                read(body, {column: kind})
            except pa.ArrowInvalid:
                return f", the first in {name.rsplit('/', 1)[-1]}, column {column}"
    return ""
