"""Stamps of files, by which their content is known without being read, and where they are kept.

A kernel has 80 000 files: `json` and attributes of objects would take a second each.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import msgspec

from labctl import files

# Size, modification and change time in nanoseconds, mode, inode, device: of the two
# times one can be set, the other cannot.
Stamp: TypeAlias = tuple[int, int, int, int, int, int]
# By a file's name: its stamp, and the hash of its content.
Stamped: TypeAlias = dict[str, tuple[Stamp, str]]

_UNKNOWN: tuple[Stamp, str] = ((0, 0, 0, 0, 0, 0), "")


def of(info: os.stat_result) -> Stamp:
    """Return what changes with a file's content."""
    size, times = info.st_size, (info.st_mtime_ns, info.st_ctime_ns)
    return (size, *times, info.st_mode, info.st_ino, info.st_dev)


def read(path: Path) -> Stamped:
    """Return what `write` kept; nothing if the file is missing, torn or holds something else.

    Of entries in another form, as an older labctl wrote them, only the names are kept.
    """
    try:
        content = path.read_bytes()
        try:
            return _DECODER.decode(content)
        except msgspec.ValidationError:
            return dict.fromkeys(msgspec.json.decode(content, type=dict[str, object]), _UNKNOWN)
    except (OSError, msgspec.MsgspecError, RecursionError):
        return {}


def write(path: Path, known: Mapping[str, tuple[Stamp, str]]) -> None:
    """Keep what is known of files, but for names that are not UTF-8; raises OSError."""
    try:
        content = msgspec.json.encode(known)
    except UnicodeEncodeError:
        content = msgspec.json.encode({n: each for n, each in known.items() if _is_text(n)})
    files.replace(path, content)


def _is_text(name: str) -> bool:
    return not any("\ud800" <= sign <= "\udfff" for sign in name)


_DECODER = msgspec.json.Decoder(Stamped)
