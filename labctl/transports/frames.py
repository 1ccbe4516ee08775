"""The language of the command port, as guest/agent/frame.h describes it. Pure."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

ID_BYTES = 8
PAYLOAD_BYTES = 16384

_END = b"\xc0"
_ESCAPE = b"\xdb"
_ESCAPED_END = b"\xdb\xdc"
_ESCAPED_ESCAPE = b"\xdb\xdd"
_HEADER = struct.Struct(f"<c{ID_BYTES}sI")
_CHECKSUM = struct.Struct("<I")
_EXIT = struct.Struct("<iQQQ")
_TAKEN = struct.Struct("<Q")
# A frame of the largest payload, every byte escaped; more without an END is noise.
_LONGEST = 2 * (_HEADER.size + PAYLOAD_BYTES + _CHECKSUM.size)


class FrameType(Enum):
    """What a frame says: capital letters come from the host, small ones from the guest."""

    HELLO = b"H"
    RUN = b"R"
    STREAM = b"I"
    END_OF_STREAM = b"E"
    KILL = b"K"
    WELCOME = b"h"
    STARTED = b"s"
    STDOUT = b"o"
    STDERR = b"e"
    TAKEN = b"a"
    BEAT = b"b"
    EXIT = b"x"
    DAMAGED = b"n"


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame off the line whose length and checksum were right."""

    type: FrameType
    id: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class Exit:
    """The payload of an EXIT frame; the two totals prove that no frame was lost."""

    status: int
    stdout_bytes: int
    stderr_bytes: int
    nanoseconds: int


def encode(kind: FrameType, request: bytes, payload: bytes = b"") -> bytes:
    """Return a frame as it goes over the line."""
    raw = _HEADER.pack(kind.value, request, len(payload)) + payload
    raw += _CHECKSUM.pack(zlib.crc32(raw))
    return _END + raw.replace(_ESCAPE, _ESCAPED_ESCAPE).replace(_END, _ESCAPED_END) + _END


def decode(wire: bytes) -> Frame | None:
    """Return the frame between two ENDs, or None if it was damaged."""
    raw = wire.replace(_ESCAPED_END, _END).replace(_ESCAPED_ESCAPE, _ESCAPE)
    if len(raw) < _HEADER.size + _CHECKSUM.size:
        return None
    body = raw[: -_CHECKSUM.size]
    (checksum,) = _CHECKSUM.unpack(raw[-_CHECKSUM.size :])
    letter, request, length = _HEADER.unpack_from(body)
    payload = body[_HEADER.size :]
    if len(payload) != length or zlib.crc32(body) != checksum:
        return None
    try:
        return Frame(FrameType(letter), request, payload)
    except ValueError:
        return None


def exit_of(frame: Frame) -> Exit:
    """Read the payload of an EXIT frame."""
    return Exit(*_EXIT.unpack(frame.payload))


def taken_of(frame: Frame) -> int:
    """Read the payload of a TAKEN frame: bytes of the stream that the guest took so far."""
    (taken,) = _TAKEN.unpack(frame.payload)
    return int(taken)


class Reader:
    """Cuts a stream of bytes into frames; its cost grows with the bytes, however they are cut."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._waiting = 0

    def feed(self, data: bytes) -> Iterator[Frame | None]:
        """Yield the frames that `data` completes; None stands for a damaged one."""
        *ended, rest = data.split(_END)
        for piece in ended:
            wire = b"".join([*self._parts, piece])
            self._parts.clear()
            self._waiting = 0
            if wire:
                yield decode(wire)
        if rest:
            self._parts.append(rest)
            self._waiting += len(rest)
        if self._waiting > _LONGEST:
            self._parts = [b"\0"]  # still damaged when its END comes
            self._waiting = 1
