"""Append-only files with one JSON object per line.

A line survives a crash of labctl and of the host once `append` has returned. An
incomplete last line, left by a crash, is removed before the next line is written.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from labctl import flock
from labctl.files import sync_folder

_LAST_BYTES = 64 << 10  # of a file, in which its last lines are looked for
_LOCK_SECONDS = 60.0  # others hold it for one line's writing


def append(path: Path, line: bytes, checked_bytes: int = -1) -> int:
    """Append one line, sync it to disk, and return the new size of the file.

    The first `checked_bytes` of the file are known to be complete lines. Raises OSError
    if the disk is full or fails, or another process keeps the file locked; the file is
    then unchanged.
    """
    with _locked(path) as descriptor:
        return _append(descriptor, line, checked_bytes)


def whole_lines(file: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file, without an incomplete last line as defined by `_whole`."""
    last = b""
    for line in file:
        if last:
            yield last
        last = line
    if _whole(last):
        yield last


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    busy = TimeoutError(errno.ETIMEDOUT, "another process holds its lock", str(path))
    with flock.held(descriptor, timeout_seconds=_LOCK_SECONDS, busy=lambda: busy):
        if not os.fstat(descriptor).st_size:  # new, or of a labctl that was killed here
            sync_folder(path.parent)
        yield descriptor


def _append(descriptor: int, line: bytes, checked_bytes: int) -> int:
    """Remove an incomplete last line, append one line, and return the new size of the file."""
    end = os.fstat(descriptor).st_size
    if end != checked_bytes:
        start, content = _last_lines(descriptor, end)
        whole = _whole(content)
        if whole and content[whole - 1 : whole] != b"\n":
            raise OSError(errno.EBADMSG, "the last line is damaged")
        end = start + whole
        os.ftruncate(descriptor, end)
    try:
        if os.write(descriptor, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, end)
        raise
    return end + len(line)


def _last_lines(descriptor: int, size: int) -> tuple[int, bytes]:
    """Return the end of a file with at least one whole line, and where that begins."""
    length = _LAST_BYTES
    while True:
        start = max(0, size - length)
        content = os.pread(descriptor, size - start, start)
        if start == 0 or content.count(b"\n") > 1:
            return start, content
        length *= 4


def _whole(content: bytes) -> int:
    """Return the number of bytes of a file without an incomplete last line.

    Of a line that a crash interrupts, a part is missing at its end: the file ends before
    it, or has zeros. All else is damage, which its reader has to report.
    """
    end = content.rfind(b"\n") + 1
    rest = content[end:]
    if rest:
        has_other_end = b"\0" not in rest and _is_json(rest[:-1])
        return len(content) if has_other_end else end
    start = content.rfind(b"\n", 0, max(0, end - 1)) + 1
    return start if b"\0" in content[start:end] else end


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
