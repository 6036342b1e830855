"""Files and folders written whole or not at all."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flexcare.errors import UserError

# No room: on the disk, for this user, or for one file.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` only if the block succeeds.

    Works for a file and for a folder: the block creates whichever it wants at the given name.
    An existing file is replaced; an existing folder is moved aside first and then removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        if path.is_dir():
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old)
        else:
            temporary.replace(path)
    except BaseException as error:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise UserError(
                f"cannot write {path}",
                found="no space left on the disk",
                expected="room for the whole result",
                do="Free some space or choose another place.",
            ) from error
        raise


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """What one process at a time may do: others wait, and a process that dies lets go.

    Args:
        path: of an empty file to hold, which stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def refuse_existing(path: Path, option: str = "--out") -> None:
    """Stop before work begins if the place for the result is taken."""
    if path.exists():
        raise UserError(
            f"{path} exists already",
            found=f"a {'folder' if path.is_dir() else 'file'} at {option}",
            expected="a new name",
            do=f"Remove it or give another {option}.",
        )


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON, keys in the order given, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path, what: str) -> Any:
    """Read JSON; a missing or broken file is a `UserError` that calls it `what`."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is not {what}", found="no such file", expected=what) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is damaged", found=f"not JSON ({error})", expected=what, do="Make it again."
        ) from None


def sha256(path: Path) -> str:
    """Content hash of one file (hex)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Hashes:
    """Content hashes of files, made beside the other steps: hashing needs no interpreter."""

    def __init__(self) -> None:
        self.beside, self.found = ThreadPoolExecutor(2), dict[Path, Future[str]]()

    def __enter__(self) -> "Hashes":
        return self

    def __exit__(self, *_: object) -> None:
        self.beside.shutdown(cancel_futures=True)

    def start(self, paths: Iterable[Path]) -> None:
        for path in paths:
            if path not in self.found:
                self.found[path] = self.beside.submit(sha256, path)

    def of(self, path: Path) -> str:
        self.start([path])
        return self.found[path].result()


def unit_hash(*parts: object) -> float:
    """A number in [0, 1) that depends on `parts` alone: blake2b of their texts, 8 bytes.

    Used for splits and for random hours, so that adding data moves nobody (SPEC 4).
    """
    text = "\x1f".join(str(part) for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
