"""Read the header of an ELF file (elf(5)): architecture, interpreter, kind."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from labctl.arch import ARCHITECTURES

_SHARED = 3  # ET_DYN: a shared library or a position-independent program
_INTERPRETER = 3  # PT_INTERP
_HEADER = struct.Struct("<4sBB10xHH4x8xQ8x4x2xHH")
_SEGMENT = struct.Struct("<I4xQ16xQ")
_LARGEST_HEADERS = 64 * 1024


@dataclass(frozen=True, slots=True)
class Elf:
    """A 64-bit little-endian ELF file; `interpreter` is the path of its loader, if any."""

    machine: int
    interpreter: str | None
    is_shared: bool

    @property
    def arch(self) -> str:
        """The architecture's name, or the number of the ELF machine."""
        names = (a.name for a in ARCHITECTURES.values() if a.elf_machine == self.machine)
        return next(names, f"ELF machine {self.machine}")


def read(path: Path) -> Elf | None:
    """Return the header of an ELF file, None for a file of another format.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(_LARGEST_HEADERS)
        if len(start) < _HEADER.size or not start.startswith(b"\x7fELF\x02\x01"):
            return None
        fields = _HEADER.unpack_from(start)
        kind, machine, offset, size, count = fields[3:8]
        interpreter = None
        for number in range(count):
            place = offset + number * size
            if place + _SEGMENT.size > len(start):
                break
            segment, position, length = _SEGMENT.unpack_from(start, place)
            if segment == _INTERPRETER:
                file.seek(position)
                interpreter = file.read(min(length, 4096)).rstrip(b"\0").decode(errors="replace")
    return Elf(machine, interpreter, kind == _SHARED)
