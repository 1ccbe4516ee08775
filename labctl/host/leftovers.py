"""Remove what killed labctl processes left in a state folder.

In the lock file of the folder, each labctl that works in it appends a byte at its start and
another at its end. If their numbers differ while no other holds the lock, one was killed, or
could not remove its files.
A crash of the host may lose these bytes: what is of an earlier boot counts as killed, too.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from labctl import files, flock
from labctl.errors import HostError

_DEPTH = 5
# Levels below some folders: guests of `up` may be running; trees are large, and each build
# cleans its own.
_DEPTHS = {"guests": None, "trees": 1}
_BEGUN, _ENDED = b"+", b"-"
_DISK = re.compile(r"(scratch\d+|swap)\.disk")  # of a guest whose QEMU was not ready


@contextlib.contextmanager
def marked(lock: int) -> Iterator[None]:
    """Record in an open lock file that this labctl works in its folder, and that it ended.

    The end is not recorded if a file could not be removed: the next labctl then does so.
    """
    files.not_removed.clear()
    with contextlib.suppress(OSError):  # the disk may be full
        os.write(lock, _BEGUN)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if not files.not_removed.is_set():
                os.write(lock, _ENDED)
            if flock.take(lock, timeout_seconds=0) and not _is_any_killed(lock):
                os.ftruncate(lock, 0)


def sweep(folder: Path, lock: int) -> None:
    """Remove temporary files and sockets if a labctl was killed and no other is running.

    The first labctl after a boot of the host does so in any case.

    `lock` is the open lock file of the state folder; it may be locked afterwards.
    """
    info = os.fstat(lock)
    is_old = is_of_earlier_boot(info)
    if not info.st_size and not is_old:
        return
    if not flock.take(lock, timeout_seconds=0):
        return
    is_left = False
    if is_old or _is_any_killed(lock):
        for path in _found(folder, _DEPTH):
            try:
                files.remove(path)
            except HostError:  # the folder may be read-only now: the next labctl tries again
                is_left = True
    with contextlib.suppress(OSError):
        os.ftruncate(lock, 0)
        if is_left:
            os.write(lock, _BEGUN)


def is_of_earlier_boot(info: os.stat_result) -> bool:
    """Return whether a file was last written before this host was booted."""
    return info.st_mtime < time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def _is_any_killed(lock: int) -> bool:
    content = os.pread(lock, os.fstat(lock).st_size, 0)
    return content.count(_BEGUN) != content.count(_ENDED)


def _found(folder: Path, depth: int) -> Iterator[Path]:
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except OSError:
        return
    for entry in entries:
        path = Path(entry.path)
        is_folder = entry.is_dir(follow_symlinks=False)
        if files.is_unfinished(path) or _is_of_guest(entry):
            yield path
        elif is_folder and depth:
            below = _DEPTHS.get(entry.name, depth - 1) if depth == _DEPTH else depth - 1
            if below is not None:
                yield from _found(path, below)


def _is_of_guest(entry: os.DirEntry[str]) -> bool:
    if _DISK.fullmatch(entry.name):
        return entry.is_file(follow_symlinks=False)
    with contextlib.suppress(OSError):
        return stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)
    return False
