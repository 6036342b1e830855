"""Takes the unchanged parts of an earlier store, so that an addition costs only its own part.

What a part was made of stands in the manifest or beside it: of the events the files, the stays, the
variables and the clock; of a film its file's size and time; of a vector its text and encoder.
Nothing is taken from a file that no longer has the hash in the earlier store's manifest.
"""

import hashlib
import importlib.metadata
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flexcare.cohort.stays import column
from flexcare.errors import UserError
from flexcare.features.films import Film
from flexcare.features.variables import VariableSet
from flexcare.files import sha256
from flexcare.sources.tables import Source
from flexcare.store import CODES, EMBEDDING_ARRAYS, EVENT_ARRAYS, VECTORS, WAVES, Scaled, Store

STAYS_OF_EVENTS = ("spans", "first_seen")  # kept beside the event arrays
FILMS = "films.parquet"  # of each film the file it was, with its size and time
HashOf = Callable[[Path], str]


class Stamp(NamedTuple):
    """What tells a film's file from another: path below the source, bytes, time of change."""

    path: str
    bytes: int
    time: int

    @classmethod
    def of(cls, root: Path, path: str) -> "Stamp":
        found = (root / path).stat()
        return cls(path, found.st_size, found.st_mtime_ns)


class Vectors(NamedTuple):
    """Arrays of embeddings, and each text hash's range of them."""

    arrays: tuple[NDArray[Any], ...]
    spans: dict[str, tuple[int, int]]

    def of(self, key: str) -> tuple[NDArray[Any], ...]:
        """The rows of one text."""
        return tuple(array[slice(*self.spans[key])] for array in self.arrays)


def recipe(
    stays: pa.Table, variables: VariableSet, clock: str, records: dict[str, list[Path]]
) -> str:
    """Hash of what the events are made of, besides the tables.

    Args:
        records: by variable of waves, the file of each.
    """
    out = hashlib.sha256(json.dumps([variables.to_dict(), clock]).encode())
    for name in ("stay_id", "subject_id", "intime", "outtime", "los"):
        out.update(column(stays, name).tobytes())
    for path in chain.from_iterable(records.values()):
        out.update(sha256(path).encode())
    return out.hexdigest()


def of_events(
    made_of: str, source: Source, files: list[Path], dropped: Counter[str], hash_of: HashOf
) -> dict[str, Any]:
    """What the manifest says of events that were read from these files."""
    return {
        "recipe": made_of,
        "files": {str(path.relative_to(source.path)): hash_of(path) for path in sorted(files)},
        "beside": _beside(files),
        "dropped": dict(sorted(dropped.items())),
    }


def _beside(files: list[Path]) -> list[str]:
    """Names of all files in the folders of these: another one might be read as well."""
    return sorted({path.name for file in files for path in file.parent.iterdir()})


def link(source: Path, target: Path) -> None:
    """A second name for a file, or a copy where that cannot be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def earlier_store(path: Path | None, say: Callable[[str], None]) -> "Earlier | None":
    """The store to take from; None if there is none, or another version of flexcare wrote it.

    Raises:
        UserError: no store.
    """
    if path is None:
        return None
    store, version = Store(path), importlib.metadata.version("flexcare")
    if store.manifest["flexcare"] != version or "parts" not in store.manifest:
        say(f"nothing is taken from {path.name}: flexcare {store.manifest['flexcare']} wrote it")
        return None
    return Earlier(path.name, store)


class Earlier:
    """A store whose parts are taken where they would become the same."""

    def __init__(self, name: str, store: Store) -> None:
        self.name, self.store = name, store

    def sound(self, name: str) -> Path:
        """A file of the earlier store, which must be what its manifest says it is."""
        path, manifest = self.store.path / name, self.store.manifest
        hashes = manifest["content"] | manifest["parts"]["films"]
        if not path.is_file() or sha256(path) != hashes.get(name):
            raise UserError(
                f"{name} of store {self.name} is damaged",
                found="other bytes than its manifest says",
                expected="the file that `flexcare prepare` wrote",
                do="Prepare without --reuse.",
            )
        return path

    def link(self, name: str, folder: Path) -> None:
        """Give a file of the earlier store to the new one in `folder`."""
        link(self.sound(name), folder / name)

    def events(
        self, made_of: str, source: Source, folder: Path, hash_of: HashOf
    ) -> dict[str, Any] | None:
        """Link the event arrays and give what the manifest says of them; None: they changed."""
        part: dict[str, Any] | None = self.store.manifest.get("parts", {}).get("events")
        if part is None or part["recipe"] != made_of:
            return None
        files = [source.path / name for name in part["files"]]
        if not all(path.is_file() for path in files) or part["beside"] != _beside(files):
            return None
        if [hash_of(path) for path in files] != list(part["files"].values()):
            return None
        names = [f"events/{name}.npy" for name in (*EVENT_ARRAYS, *STAYS_OF_EVENTS)]
        content = self.store.manifest["content"]
        meanings = (CODES, f"{VECTORS}/", f"{WAVES}/")
        for name in [*names, *(n for n in content if n.startswith(meanings))]:
            self.link(name, folder)
        source.files += [path for path in files if path not in source.files]
        source.dropped.update(part["dropped"])
        return part

    def films(self, side: int) -> dict[Stamp, Film]:
        """The earlier films by their file; none if they are of another side."""
        if self.store.films.shape[1] != side:
            return {}
        self.sound("films.npy")
        table = pq.read_table(self.sound(FILMS))
        rows = zip(*(table[name].to_pylist() for name in Stamp._fields), strict=True)
        return {
            Stamp(*row): film for row, film in zip(rows, np.asarray(self.store.films), strict=True)
        }

    def vectors(self, encoder: str, bits: int) -> Vectors | None:
        """The embeddings of the earlier store; None if another encoder or other bits made them."""
        note = self.store.modalities.get("note")
        if note is None or note.settings["encoder"] != encoder:
            return None
        tokens, spans = self.store.embeddings
        arrays = (tokens.tokens, tokens.scales) if isinstance(tokens, Scaled) else (tokens,)
        if len(arrays) != len(EMBEDDING_ARRAYS[bits]):
            return None
        for name in ("spans", *EMBEDDING_ARRAYS[bits]):
            self.sound(f"embeddings/{encoder}/{name}.npy")
        self.sound("texts.parquet")
        hashes = self.store.texts["text_hash"].to_pylist()
        return Vectors(arrays, dict(zip(hashes, map(tuple, spans.tolist()), strict=True)))
