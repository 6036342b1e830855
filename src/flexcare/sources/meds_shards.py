"""The shards of a MEDS dataset: where they are, whether they can be used, and how they are read."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from flexcare.errors import UserError, missing_column
from flexcare.sources.meds_stays import literal
from flexcare.sources.tables import reading

NUMBERS = ("numeric_value", "value")  # MEDS, and MEDS before version 0.3
DO = "Check the path; docs/data.md says what goes where."


def shards_of(path: Path) -> list[Path]:
    """The shards of data/, else of the folder itself, or the file that `path` is; checked.

    Raises:
        UserError: there are none, or one cannot be used.
    """
    data = path / "data"
    found = [path] if path.is_file() else sorted(path.glob("*.parquet"))
    if data.is_dir():
        found = sorted(file for file in data.rglob("*.parquet") if file.is_file())
    if not found:
        raise UserError(
            f"{path} is not a MEDS dataset",
            found="no Parquet file there" if path.exists() else "no such folder",
            expected="a folder with data/**/*.parquet",
            do=DO,
        )
    for shard in found:
        _check(shard)
    return found


def rows_of(shards: list[Path]) -> str:
    """SQL: subject_id, time, code, number (as text, which keeps 98.4 of a 32-bit float), text.

    A row's number is the first of NUMBERS that it has: shards of both versions may lie together.
    """
    names = {name for shard in shards for name in pq.read_schema(shard).names}
    found = [f'"{name}"::VARCHAR' for name in NUMBERS if name in names]
    number = f"coalesce({', '.join(found)})" if found else "NULL::VARCHAR"
    text = "text_value::VARCHAR" if "text_value" in names else "NULL::VARCHAR"
    paths = ", ".join(literal(str(shard)) for shard in shards)
    return (
        "SELECT subject_id::BIGINT AS subject_id, time::TIMESTAMP AS time, code::VARCHAR AS code,"
        f" {number} AS number, {text} AS text"
        f" FROM read_parquet([{paths}], union_by_name = true, hive_partitioning = false)"
    )


class reading_shards(reading):
    """`reading` of all shards, which names the first one that is damaged."""

    def __init__(self, shards: list[Path]) -> None:
        super().__init__("of the shards")
        self.shards = shards

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, duckdb.Error) and not isinstance(error, duckdb.OutOfMemoryException):
            damaged = (f"{s.parent.name}/{s.name}" for s in self.shards if not _whole(s))
            self.name = next(damaged, self.name)
        super().__exit__(kind, error, trace)


def _whole(shard: Path) -> bool:
    """Whether all rows can be read."""
    try:
        read = f"SELECT bit_xor(hash(rows)) FROM ({rows_of([shard])}) AS rows"
        duckdb.execute(read).fetchall()
    except duckdb.Error:
        return False
    return True


def _check(shard: Path) -> None:
    """Refuse a shard that is damaged, or whose columns are not those of MEDS."""
    try:
        schema = pq.read_schema(shard)
    except (OSError, pa.ArrowInvalid):
        raise UserError(
            f"{shard.name} cannot be read",
            found="no Parquet file, or a damaged one",
            expected="a shard of a MEDS dataset",
            do="Download it again and compare its checksum.",
        ) from None
    for name in ("subject_id", "time", "code"):
        if name not in schema.names:
            raise missing_column(shard.name, name, schema.names)
    subject, time = schema.field("subject_id").type, schema.field("time").type
    if not pa.types.is_integer(subject):
        raise _wrong_type(shard, "subject_id", subject, "int64 (MEDS)", "Number the subjects.")
    if not (pa.types.is_timestamp(time) or pa.types.is_date(time) or pa.types.is_null(time)):
        raise _wrong_type(shard, "time", time, "timestamp[us] (MEDS)", "Convert it.")
    if pa.types.is_timestamp(time) and time.tz is not None:
        do = "Convert it to the hospital's local time and drop the zone."
        raise _wrong_type(shard, "time", time, "timestamp[us] without a zone (MEDS)", do)
    for name in NUMBERS:
        kind = schema.field(name).type if name in schema.names else pa.null()
        if not any(is_kind(kind) for is_kind in _NUMERIC):
            raise _wrong_type(shard, name, kind, "float32 (MEDS)", "Put texts in text_value.")


_NUMERIC = (pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal, pa.types.is_null)


def _wrong_type(shard: Path, column: str, found: pa.DataType, expected: str, do: str) -> UserError:
    return UserError(
        f"{shard.name}: column {column} has the wrong type",
        found=str(found),
        expected=expected,
        do=do,
    )
