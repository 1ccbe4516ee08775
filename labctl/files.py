"""Files that are written whole and removed with care: the one place for both."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from labctl.errors import HostError


def replace(path: Path, content: str | bytes) -> None:
    """Write a file: a reader, or a crash, sees the old content or the new one, never a part.

    A symlink at `path` is replaced; what it points to stays as it is.

    Raises:
        OSError: the disk is full or fails; the file is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with naming(path), open(os.open(temporary, flags, 0o666), "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def reading(path: Path) -> BinaryIO:
    """Open a file to be read. A FIFO that nobody writes to is empty: it is not waited for.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    return open(path, "rb", opener=_without_waiting)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an OSError of the block name the file: that of a write does not say which it is."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def free_bytes(folder: Path) -> int:
    """Return the space that this user has left on a folder's disk."""
    info = os.statvfs(folder)
    return info.f_bavail * info.f_frsize


def sync_folder(folder: Path) -> None:
    """Make the names inside a folder survive a crash of the machine; raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: object) -> None:
    """Write a value as JSON; raises as `replace` does."""
    replace(path, json.dumps(content, indent=1) + "\n")


def read_json(path: Path) -> dict[str, object]:
    """Return a JSON object; an empty one if the file is missing, torn or holds something else."""
    try:
        with reading(path) as file:
            content = json.loads(file.read())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it. No symlink is followed.

    A folder disappears at once, before its content does: a kill leaves `NAME.removed`
    and never a half of it under its own name.

    Raises:
        HostError: it cannot be removed.
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
    except FileNotFoundError:  # somebody else was faster
        return
    except OSError as error:
        raise HostError(
            f"cannot be removed: {error.strerror or error}",
            where=str(error.filename or path),
            hint="remove it by hand; see who owns it with `ls -ld`",
        ) from error


REMOVED = ".removed"
