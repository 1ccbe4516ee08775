"""Atomic writes and safe removal of files."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import re
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from labctl.errors import HostError, UserError

_LONGEST_JSON = 64 << 20
_GZIP = b"\x1f\x8b"


class Readable(Protocol):
    """A binary file."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes."""


def replace(path: Path, content: str | bytes, *, is_lasting: bool = True) -> None:
    """Write a file atomically: readers see the old or the new content.

    With `is_lasting` also after a crash of the host, for which it is synced to disk. A symlink
    at `path` is replaced; its target is unchanged.

    Raises:
        OSError: the disk is full or fails; the file is unchanged.
    """
    if is_lasting:
        make_folder(path.parent)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unfinished(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with naming(path), open(os.open(temporary, flags, 0o666), "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            if is_lasting:
                os.fsync(file.fileno())
        temporary.replace(path)
        if is_lasting:
            sync_folder(path.parent)
    except BaseException:
        unlink(temporary)
        raise


def unfinished(path: Path) -> Path:
    """Return a new name beside a path, for a file or folder that is not finished.

    The next labctl removes it if this one is killed: see `labctl.host.leftovers`.
    """
    return path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")


@contextlib.contextmanager
def replacing(path: Path, *, is_lasting: bool = True) -> Iterator[Path]:
    """Yield a path for a file that replaces `path` afterwards, unless there is an error.

    `is_lasting` is that of `replace`; the folder exists. Raises OSError.
    """
    partial = unfinished(path)
    try:
        yield partial
        if is_lasting:
            sync(partial)
        partial.replace(path)
        if is_lasting:
            sync_folder(path.parent)
    finally:
        unlink(partial)


def unlink(path: Path) -> None:
    """Remove a file that may be missing; the next labctl removes it if this one cannot.

    Raises:
        OSError: the file cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError:
        not_removed.set()
        raise


# Set if this process could not remove a file or folder: see `labctl.host.leftovers`.
not_removed = threading.Event()


def is_unfinished(path: Path) -> bool:
    """Return whether a path is of `unfinished`, or of a folder that `remove` did not finish."""
    return bool(_UNFINISHED.fullmatch(path.name))


def store(folder: Path, stem: str, content: bytes, suffix: str = "") -> Path:
    """Return the file of this content in a folder, written if missing or damaged.

    Its name is `stem`, the first digits of the content's SHA-256, and `suffix`.
    """
    path = folder / f"{stem}-{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
    if not path.is_file() or path.read_bytes() != content:
        replace(path, content)
    return path


def reading(path: Path) -> BinaryIO:
    """Open a file for reading. A FIFO without a writer is empty; opening it does not wait.

    Raises:
        OSError: the file does not exist or cannot be read.
    """
    return open(path, "rb", opener=_without_waiting)


def read_limited(path: Path, most_bytes: int, *, unpack: bool = False) -> bytes:
    """Return the content of a file; with `unpack`, a gzip file is decompressed.

    Raises:
        OSError: the file cannot be read.
        EOFError, zlib.error: it cannot be decompressed.
        UserError: it is larger than the limit.
    """
    with reading(path) as file:
        content = _limited(file, path, most_bytes, "file")
        if unpack and content.startswith(_GZIP):
            file.seek(0)
            with gzip.open(file) as packed:
                content = _limited(packed, path, most_bytes, "decompressed file")
    return content


def _limited(file: Readable, path: Path, most_bytes: int, noun: str) -> bytes:
    content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise UserError(f"{noun} is larger than {most_bytes >> 20} MiB", where=str(path))
    return content


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Set the file name of an OSError raised in the block: write(2) errors lack it."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def free_bytes(folder: Path) -> int:
    """Return the free space for this user on the file system of a folder."""
    info = os.statvfs(folder)
    return info.f_bavail * info.f_frsize


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to disk with fsync(2); raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents unless they exist, and sync their names to disk.

    Without this, a crash of the host may lose the folder with all synced files in it.
    Raises OSError.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync(path: Path) -> None:
    """Write the content of a file to disk with fsync(2); raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: object, *, is_lasting: bool = True) -> None:
    """Write a value as JSON; arguments and errors are those of `replace`."""
    replace(path, json.dumps(content, indent=1) + "\n", is_lasting=is_lasting)


def read_json(path: Path) -> dict[str, object]:
    """Return the JSON object in a file; {} if it is missing, damaged or not an object."""
    try:
        with reading(path) as file:
            content = json.loads(file.read(_LONGEST_JSON))  # a longer one is damaged
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def remove(path: Path) -> None:
    """Remove a file, or a folder and its contents. Symlinks are not followed.

    A folder is first renamed to `NAME.removed`: if labctl is killed during this, no
    incomplete folder is left under its name.

    Raises:
        HostError: the file or folder cannot be removed.
    """
    try:
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            return
        leaving = path
        if not path.name.endswith(REMOVED):
            leaving = path.with_name(path.name + REMOVED)
            remove(leaving)
            path.rename(leaving)
        shutil.rmtree(leaving)
    except FileNotFoundError:  # another process removed it
        return
    except OSError as error:
        not_removed.set()
        raise HostError(
            f"cannot be removed: {error.strerror or error}",
            where=str(error.filename or path),
            hint="remove it by hand; `ls -ld` shows its owner",
        ) from error


REMOVED = ".removed"
_UNFINISHED = re.compile(rf".+\.[0-9a-f]{{32}}\.tmp|.+{re.escape(REMOVED)}")
