"""Write initramfs archives in the cpio "newc" format. Pure.

Owner, time and inode numbers are fixed, so that equal entries give equal bytes.
Device nodes can be written without root.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the archive: `mode` is file type and permissions, `numbers` major and minor."""

    name: str
    mode: int
    content: bytes = b""
    numbers: tuple[int, int] = (0, 0)

    @classmethod
    def file(cls, name: str, content: bytes, permissions: int) -> Entry:
        """Return a regular file."""
        return cls(name, stat.S_IFREG | permissions, content)

    @classmethod
    def folder(cls, name: str) -> Entry:
        """Return a folder."""
        return cls(name, stat.S_IFDIR | 0o755)

    @classmethod
    def link(cls, name: str, target: str) -> Entry:
        """Return a symbolic link."""
        return cls(name, stat.S_IFLNK | 0o777, target.encode())

    @classmethod
    def device(cls, name: str, major: int, minor: int) -> Entry:
        """Return a character device."""
        return cls(name, stat.S_IFCHR | 0o600, numbers=(major, minor))


def archive(entries: Sequence[Entry]) -> bytes:
    """Return the archive of `entries` in order.

    Of two entries with the same name, the later replaces the earlier in its place. A
    folder must come before its contents.
    """
    unique = {entry.name: entry for entry in entries}
    pieces = [_record(entry, number) for number, entry in enumerate(unique.values(), start=1)]
    pieces.append(_record(Entry(_TRAILER, 0), 0))
    return b"".join(pieces)


def _record(entry: Entry, inode: int) -> bytes:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        inode,
        entry.mode,
        0,  # owner
        0,  # group
        links,
        0,  # modification time
        len(entry.content),
        0,  # device of the file system
        0,
        *entry.numbers,
        len(name),
        0,  # checksum: unused in this format
    )
    header = _MAGIC + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(entry.content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
