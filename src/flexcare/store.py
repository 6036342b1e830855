"""THE ONE DOOR between raw data and models: a folder of Arrow tables and memory-mapped arrays.

manifest.json            what, from what, how, how many, hashes
samples.parquet          one row a sample (schema.SAMPLES), what it has, and its subgroups
events/*.npy             every kept stay's events once: seconds, available, variable, value; for
                         reuse spans and first_seen of each stay
codes.json               where there are codes: by variable the code of each number
vectors/VARIABLE.npy     of an embedding: (vectors, width) float32
waves/VARIABLE.npy       of a wave: (records, channels, samples) float32, NaN where missing
films.npy                (films, side, side) uint8; for reuse films.parquet, the file of each
texts.parquet            one row a text: kind, section, hash, text
embeddings/ENCODER/      tokens.npy (pieces, width) float16, spans.npy (texts, 2)
                         or tokens.npy int8 with scales.npy (pieces,)
"""

import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flexcare.errors import UserError, unknown
from flexcare.files import read_json
from flexcare.schema import SAMPLES, SPLITS, STORE_VERSION, ModalityInfo, TaskInfo, check_version

# Columns of samples.parquet after schema.SAMPLES.
EVIDENCE = pa.schema(
    [
        ("series_first", pa.int64()),  # row range of the stay's events, of every modality
        ("series_stop", pa.int64()),
        ("series_hours", pa.float64()),  # only events up to here count
        ("film_row", pa.int32()),  # of films.npy; -1: none
        ("text_rows", pa.list_(pa.int32())),  # of texts.parquet, the first is read first
    ]
)
CODES, VECTORS, WAVES = "codes.json", "vectors", "waves"
HAS = "has_"  # prefix of the columns that say which modalities a sample has
GROUP = "group:"  # prefix of the subgroup columns
EVENT_ARRAYS = {
    "seconds": np.int32,
    "available": np.int32,
    "variable": np.int16,
    "value": np.float32,
}
EMBEDDING_ARRAYS: dict[int, dict[str, Any]] = {  # by bits of a number
    16: {"tokens": np.float16},
    8: {"tokens": np.int8, "scales": np.float32},
}
_HEADER = 128  # bytes reserved for the header of a growing .npy file


class GrowingArray:
    """Writes a .npy file whose number of rows is known only at the end.

    Args:
        row: shape of a row; () for a plain vector.
        count: rows that lie there already and stay.
    """

    def __init__(self, path: Path, dtype: Any, row: tuple[int, ...] = (), count: int = 0) -> None:
        self.dtype, self.row, self.count = np.dtype(dtype), row, count
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("r+b" if count else "wb")
        self.file.truncate(_end(dtype, row, count))
        self.file.seek(0, os.SEEK_END)

    @staticmethod
    def holds(path: Path, dtype: Any, row: tuple[int, ...], count: int) -> bool:
        """Whether a file has room for the header and that many rows."""
        return path.is_file() and path.stat().st_size >= _end(dtype, row, count)

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows of shape (n, *row)."""
        self.file.write(np.ascontiguousarray(rows, self.dtype).tobytes())
        self.count += len(rows)

    def settle(self) -> None:
        """Wait until all rows lie on the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def __enter__(self) -> "GrowingArray":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shape = (self.count, *self.row)
        text = f"{{'descr': {self.dtype.str!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
        magic = b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little")
        self.file.seek(0)
        self.file.write(magic + text.encode().ljust(_HEADER - 11) + b"\n")
        self.file.close()


def _end(dtype: Any, row: tuple[int, ...], count: int) -> int:
    """Bytes of a file of that many rows."""
    size: int = np.dtype(dtype).itemsize
    return _HEADER + count * math.prod(row) * size


@dataclass(frozen=True)
class Scaled:
    """Vectors kept in 8 bits, which read like an array of float32.

    Attributes:
        tokens: (n, width) int8; scales: (n,) what each vector is multiplied by.
    """

    tokens: NDArray[np.int8]
    scales: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tokens.shape

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        return self.tokens[rows] * self.scales[rows][:, None]


class Store:
    """A prepared data set, opened for reading.

    Args:
        path: the folder that `flexcare prepare` wrote.

    Raises:
        UserError: no store, damaged, or of another schema version.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        manifest = read_json(self.path / "manifest.json", "a store that `flexcare prepare` wrote")
        if not isinstance(manifest, dict) or manifest.get("artefact") != "store":
            raise UserError(
                f"{path} is not a store",
                found=f"a folder of kind {manifest.get('artefact', 'unknown')!r}"
                if isinstance(manifest, dict)
                else "something else",
                expected="a folder that `flexcare prepare` wrote",
            )
        check_version(manifest.get("schema_version"), STORE_VERSION, f"store {path}")
        self.manifest: dict[str, Any] = manifest

    @cached_property
    def tasks(self) -> dict[str, TaskInfo]:
        """What can be asked here."""
        return {
            name: TaskInfo(name=name, **(values | {"classes": tuple(values["classes"])}))
            for name, values in self.manifest["tasks"].items()
        }

    @cached_property
    def modalities(self) -> dict[str, ModalityInfo]:
        """What patients may have here."""
        return {
            name: ModalityInfo(name=name, **values)
            for name, values in self.manifest["modalities"].items()
        }

    @cached_property
    def samples(self) -> pa.Table:
        """All samples; a row's number is its sample row."""
        return self._table("samples.parquet")

    @cached_property
    def texts(self) -> pa.Table:
        """All texts."""
        return self._table("texts.parquet")

    def rows(self, task: str, split: str) -> NDArray[np.int64]:
        """Sample rows of a task in a split, in the order of the table."""
        if task not in self.tasks:
            raise unknown("task", task, self.tasks, f"Store {self.path} has these.")
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        chosen = pc.and_(
            pc.equal(self.samples["task"], task), pc.equal(self.samples["split"], split)
        )
        out: NDArray[np.int64] = np.flatnonzero(chosen.to_numpy(zero_copy_only=False))
        return out

    @cached_property
    def events(self) -> dict[str, NDArray[Any]]:
        """The event arrays by name, memory-mapped."""
        return {name: self._array(f"events/{name}.npy") for name in EVENT_ARRAYS}

    @cached_property
    def variables(self) -> list[str]:
        """Names of the variables of events, in the order of their numbers."""
        found: list[str] = self.manifest["variables"]
        return found

    @cached_property
    def codes(self) -> dict[str, list[str]]:
        """By variable of codes, the code of each number."""
        found: dict[str, list[str]] = read_json(self.path / CODES, "the codes of a store")
        return found

    def vectors(self, variable: str) -> NDArray[np.float32]:
        """(vectors, width) of a variable of embeddings, memory-mapped."""
        return self._array(f"{VECTORS}/{variable}.npy")

    def waves(self, variable: str) -> NDArray[np.float32]:
        """(records, channels, samples) of a variable of waves, memory-mapped."""
        return self._array(f"{WAVES}/{variable}.npy")

    @cached_property
    def films(self) -> NDArray[np.uint8]:
        """(films, side, side), memory-mapped."""
        return self._array("films.npy")

    @cached_property
    def embeddings(self) -> tuple[NDArray[np.float16] | Scaled, NDArray[np.int64]]:
        """Vectors of all word pieces (memory-mapped), and each text's range of them."""
        folder = f"embeddings/{self.modalities['note'].settings['encoder']}"
        tokens, spans = (self._array(f"{folder}/{name}.npy") for name in ("tokens", "spans"))
        if tokens.dtype == np.int8:
            return Scaled(tokens, self._array(f"{folder}/scales.npy")), spans
        return tokens, spans

    def subgroups(self, rows: NDArray[np.int64]) -> list[dict[str, str]]:
        """The subgroups of each sample: {"sex": "F", ...}, without unknown ones."""
        names = [n for n in self.samples.column_names if n.startswith(GROUP)]
        if not names:
            return [{} for _ in rows]
        values = [self.samples[n].take(pa.array(rows)).to_pylist() for n in names]
        short = [n.removeprefix(GROUP) for n in names]
        each = zip(*values, strict=True) if names else [()] * len(rows)
        return [{n: v for n, v in zip(short, row, strict=True) if v is not None} for row in each]

    def _table(self, name: str) -> pa.Table:
        try:
            return pq.read_table(self.path / name, memory_map=True)
        except (OSError, pa.ArrowInvalid) as error:
            raise self._damaged(name, error) from error

    def _array(self, name: str) -> NDArray[Any]:
        try:
            out: NDArray[Any] = np.load(self.path / name, mmap_mode="r", allow_pickle=False)
        except (OSError, EOFError, ValueError) as error:
            raise self._damaged(name, error) from error
        return out

    def _damaged(self, name: str, error: Exception) -> UserError:
        return UserError(
            f"{name} of store {self.path} cannot be read",
            found=str(error).splitlines()[0],
            expected="the file that `flexcare prepare` wrote",
            do="Prepare the store again.",
        )


def task_table(tasks: dict[str, TaskInfo]) -> dict[str, Any]:
    """Tasks as they stand in a manifest."""
    return {n: {k: v for k, v in asdict(t).items() if k != "name"} for n, t in tasks.items()}


def modality_table(modalities: dict[str, ModalityInfo]) -> dict[str, Any]:
    """Modalities as they stand in a manifest."""
    return {n: {k: v for k, v in asdict(m).items() if k != "name"} for n, m in modalities.items()}


def samples_schema(groups: list[str], events: Iterable[str] = ("series",)) -> pa.Schema:
    """All columns of samples.parquet, with these subgroups and modalities of events."""
    has = [pa.field(HAS + name, pa.bool_()) for name in (*events, "film", "note")]
    return pa.schema(
        [*SAMPLES, *EVIDENCE, *has, *(pa.field(GROUP + name, pa.string()) for name in groups)]
    )


def narrow(schema: pa.Schema) -> pa.Schema:
    """The same with each text that repeats kept once, to write it fast; read back, it is plain."""
    names = pa.dictionary(pa.int32(), pa.string())
    repeats = [f.type == pa.string() and f.name != "sample_id" for f in schema]
    return pa.schema([f.with_type(names) if r else f for f, r in zip(schema, repeats, strict=True)])
