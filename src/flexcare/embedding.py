"""Embeds every different text once. What a cancelled preparation has done, the next one takes up.

Vectors are written block by block into a folder beside the store to be, each block's text hashes
and lengths only after its vectors are on the disk. Blocks follow an order that the texts alone
determine, so the next run goes on where the last whole text ends.
"""

import fcntl
import shutil
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from flexcare.errors import UserError
from flexcare.features.text import Half, TextEncoder, to_8_bits
from flexcare.reuse import Vectors, link
from flexcare.store import EMBEDDING_ARRAYS, GrowingArray

BLOCK = 256  # texts; of nearly one length, so that the encoder finds equal ones among them


def embed(
    texts: dict[str, str],
    encoder: TextEncoder,
    bits: int,
    unfinished: Path,
    folder: Path,
    known: Vectors | None = None,
) -> tuple[dict[str, tuple[int, int]], int]:
    """Write the vectors of all texts into a folder of a store.

    Args:
        texts: by hash.
        bits: 16 or 8, of a number.
        unfinished: folder beside the store, which survives a cancelled run.
        known: vectors of an earlier store, which are copied.

    Returns:
        the range of pieces of each hash, and how many texts an earlier run had embedded.
    """
    order = sorted(texts, key=lambda key: (len(texts[key]), key))
    with _Unfinished(unfinished / f"{encoder.fingerprint}-{bits}", encoder, bits, order) as done:
        before = len(done.sizes)
        for first in range(before, len(order), BLOCK):
            keys = order[first : first + BLOCK]
            old = {key: known.of(key) for key in keys if known and key in known.spans}
            new = encoder.embed([texts[key] for key in keys if key not in old])
            done.append(keys, [old[key] if key in old else _kept(next(new), bits) for key in keys])
    done.link_into(folder)
    stop = np.cumsum(done.sizes).tolist()
    return dict(zip(order, zip([0, *stop[:-1]], stop, strict=True), strict=True)), before


def _kept(vectors: Half, bits: int) -> tuple[NDArray[Any], ...]:
    """The rows of EMBEDDING_ARRAYS of one text."""
    return (vectors,) if bits == 16 else to_8_bits(vectors)


class _Unfinished:
    """The arrays of a folder that may hold the beginning of the work already."""

    def __init__(self, folder: Path, encoder: TextEncoder, bits: int, order: list[str]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.index = _locked(folder / "index.txt")
        self.rows = {
            name: (dtype, (encoder.width,) if name == "tokens" else ())
            for name, dtype in EMBEDDING_ARRAYS[bits].items()
        }
        self.sizes = self._whole(order)
        self.open = ExitStack()

    def _whole(self, order: list[str]) -> list[int]:
        """Pieces of the texts at the start of `order` that lie here; what follows them is cut."""
        lines = self.index.read().split("\n")[:-1]  # the last one has no end, or is empty
        sizes: list[int] = []
        for key, line in zip(order, lines, strict=False):
            found, _, size = line.partition(" ")
            if found != key:
                break
            sizes.append(int(size))
        paths = [self.folder / f"{name}.npy" for name in self.rows]
        held = all(
            GrowingArray.holds(path, *row, sum(sizes))
            for path, row in zip(paths, self.rows.values(), strict=True)
        )
        if not held or (len(sizes) < len(order) and paths[0].stat().st_nlink > 1):
            # Unlinked and begun anew: under another name they may belong to a finished store.
            sizes = []
            for path in paths:
                path.unlink(missing_ok=True)
        self.index.seek(0)
        self.index.truncate()
        self._note(order[: len(sizes)], sizes)
        return sizes

    def __enter__(self) -> "_Unfinished":
        count = sum(self.sizes)
        self.arrays = {
            name: self.open.enter_context(
                GrowingArray(self.folder / f"{name}.npy", dtype, row, count)
            )
            for name, (dtype, row) in self.rows.items()
        }
        return self

    def append(self, keys: list[str], rows: list[tuple[NDArray[Any], ...]]) -> None:
        """Add the rows of some texts."""
        for array, parts in zip(self.arrays.values(), zip(*rows, strict=True), strict=True):
            array.append(np.concatenate(parts))
            array.settle()
        sizes = [len(row[0]) for row in rows]
        self._note(keys, sizes)
        self.sizes += sizes

    def _note(self, keys: list[str], sizes: list[int]) -> None:
        lines = (f"{key} {size}\n" for key, size in zip(keys, sizes, strict=True))
        self.index.write("".join(lines))
        self.index.flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.open.close()
        self.index.close()
        if error is not None and not self.sizes:
            shutil.rmtree(self.folder)
            with suppress(OSError):  # what another encoder began stays
                self.folder.parent.rmdir()

    def link_into(self, folder: Path) -> None:
        """Give the finished arrays a second name, or a copy, in the store."""
        for name in self.rows:
            link(self.folder / f"{name}.npy", folder / f"{name}.npy")


def _locked(path: Path) -> IO[str]:
    """Open a text file for reading and writing, which one process at a time may."""
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UserError(
            "another preparation writes the same store",
            found=f"{path} in use",
            expected="one at a time",
            do="Wait for it to end, or give another --out.",
        ) from None
    file.seek(0)
    return file
