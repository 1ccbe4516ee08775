"""The frame protocol of the command port, described in guest/agent/frame.h. Pure."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from labctl.errors import GuestLost

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
# The longest frame, with every byte escaped; more bytes without an END are noise.
_LONGEST = 2 * (_HEADER.size + PAYLOAD_BYTES + _CHECKSUM.size)


class FrameType(Enum):
    """Frame types: capital letters are sent by the host, small letters by the guest."""

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
    """A received frame with valid length and checksum."""

    type: FrameType
    id: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class Exit:
    """The payload of an EXIT frame; the two totals show whether a frame was lost."""

    status: int
    stdout_bytes: int
    stderr_bytes: int
    nanoseconds: int


def encode(kind: FrameType, request: bytes, payload: bytes = b"") -> bytes:
    """Return the encoded bytes of a frame."""
    raw = _HEADER.pack(kind.value, request, len(payload)) + payload
    raw += _CHECKSUM.pack(zlib.crc32(raw))
    return _END + raw.replace(_ESCAPE, _ESCAPED_ESCAPE).replace(_END, _ESCAPED_END) + _END


def decode(wire: bytes) -> Frame | None:
    """Return the frame between two ENDs, None if it is damaged."""
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
    """Parse the payload of an EXIT frame; raises GuestLost if its length is invalid."""
    return Exit(*_unpacked(_EXIT, frame))


def taken_of(frame: Frame) -> int:
    """Parse the payload of a TAKEN frame: the bytes of stdin that the guest has consumed.

    Raises GuestLost if its length is invalid.
    """
    (taken,) = _unpacked(_TAKEN, frame)
    return int(taken)


def _unpacked(layout: struct.Struct, frame: Frame) -> tuple[Any, ...]:
    try:
        return layout.unpack(frame.payload)
    except struct.error as error:
        what = f"invalid {frame.type.name} frame from the guest's agent: {error}"
        raise GuestLost(what) from error


class Reader:
    """Splits a byte stream into frames, in time linear in the number of bytes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._waiting = 0

    def feed(self, data: bytes) -> Iterator[Frame | None]:
        """Yield the frames that `data` completes, None for a damaged frame."""
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
