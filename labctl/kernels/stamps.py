"""Stamps of files (size, times, mode, inode), to detect changes without reading the content.

A kernel has 80 000 files: `json` would take a second, and so would objects with attributes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import msgspec

from labctl import files

# Size, modification and change time in nanoseconds, mode, inode, device. A program can set
# the modification time, but not the change time.
Stamp: TypeAlias = tuple[int, int, int, int, int, int]
# File name to (stamp, hash of the content).
Stamped: TypeAlias = dict[str, tuple[Stamp, str]]

_UNKNOWN: tuple[Stamp, str] = ((0, 0, 0, 0, 0, 0), "")


def of(info: os.stat_result) -> Stamp:
    """Return a file's stamp, which changes with its content."""
    size, times = info.st_size, (info.st_mtime_ns, info.st_ctime_ns)
    return (size, *times, info.st_mode, info.st_ino, info.st_dev)


def read(path: Path) -> Stamped:
    """Return what `write` stored; nothing if the file is missing or invalid.

    From a file in the format of an older version only the names are returned.
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
    """Store stamps and hashes, except for names that are not UTF-8; raise OSError."""
    try:
        content = msgspec.json.encode(known)
    except UnicodeEncodeError:
        content = msgspec.json.encode({n: each for n, each in known.items() if _is_text(n)})
    files.replace(path, content)


def _is_text(name: str) -> bool:
    return not any("\ud800" <= sign <= "\udfff" for sign in name)


_DECODER = msgspec.json.Decoder(Stamped)
