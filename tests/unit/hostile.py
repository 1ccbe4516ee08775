"""What a hostile guest sends: over its command port, on its console, and as output.

Each game has a name, what is sent for ever or once, and the error of labctl that it ends with.
"""

from __future__ import annotations

import gzip
import itertools
import struct
import time
import zlib
from collections.abc import Callable, Iterator

from labctl.errors import BadOutput, DeadlineExceeded, GuestError, GuestLost, GuestSplat
from labctl.transports import frames
from labctl.transports.frames import FrameType

ESCAPES = "\x1b]0;title\x07\x1b[2J\x9b2J\u202e"
BIG = b"x" * frames.PAYLOAD_BYTES

Play = Callable[[bytes], Iterator[bytes]]

# --- the command port ----------------------------------------------------------------------------


def frame(kind: FrameType, payload: bytes = b"") -> Play:
    return lambda request: iter([frames.encode(kind, request, payload)])


def for_ever(kind: FrameType, payload: bytes = b"") -> Play:
    return lambda request: itertools.repeat(frames.encode(kind, request, payload) * 8)


def raw(*pieces: bytes) -> Play:
    return lambda _: iter(pieces)


def raw_for_ever(piece: bytes) -> Play:
    return lambda _: itertools.repeat(piece)


def exiting(status: int = 0, stdout: int = 0, stderr: int = 0, nanoseconds: int = 1) -> bytes:
    return frames._EXIT.pack(status, stdout, stderr, nanoseconds)


def wrong_length(request: bytes) -> Iterator[bytes]:
    body = frames._HEADER.pack(b"o", request, 1 << 31) + b"abc"
    yield frames._END + body + struct.pack("<I", zlib.crc32(body)) + frames._END


def echo(request: bytes) -> Iterator[bytes]:
    kinds = (FrameType.HELLO, FrameType.RUN, FrameType.STREAM, FrameType.KILL)
    return itertools.cycle(frames.encode(kind, request, b"\4\0\0\0") for kind in kinds)


def trickle(_: bytes) -> Iterator[bytes]:
    while True:
        time.sleep(0.02)
        yield b"\xdb"


def sending(content: bytes, status: int = 0, errors: bytes = b"") -> Play:
    """Send a whole output of `get`, and its end."""

    def play(request: bytes) -> Iterator[bytes]:
        for start in range(0, len(content), len(BIG)):
            piece = content[start : start + len(BIG)]
            yield frames.encode(FrameType.STDOUT, request, piece)
        for start in range(0, len(errors), len(BIG)):
            yield frames.encode(FrameType.STDERR, request, errors[start : start + len(BIG)])
        end = exiting(status, len(content), len(errors))
        yield frames.encode(FrameType.EXIT, request, end)

    return play


def zeros() -> bytes:
    """Return 1 MiB of zeros, deflated; after a full flush, it can be repeated."""
    stream = zlib.compressobj(9, wbits=-15)
    return stream.compress(bytes(1 << 20)) + stream.flush(zlib.Z_FULL_FLUSH)


GZIP_HEADER = gzip.compress(b"")[:10]


def bomb(mebibytes: int) -> bytes:
    """Return a file of zeros, of which 1 MiB takes 1 KiB."""
    check = 0
    for _ in range(mebibytes):
        check = zlib.crc32(bytes(1 << 20), check)
    end = zlib.compressobj(wbits=-15).flush() + struct.pack("<II", check, mebibytes << 20)
    return GZIP_HEADER + zeros() * mebibytes + end


def endless_bomb(request: bytes) -> Iterator[bytes]:
    yield frames.encode(FrameType.STDOUT, request, GZIP_HEADER)
    yield from for_ever(FrameType.STDOUT, zeros())(request)


def stored_for_ever(request: bytes) -> Iterator[bytes]:
    stream = zlib.compressobj(0, wbits=31)
    while True:
        data = stream.compress(BIG)
        for start in range(0, len(data), len(BIG)):
            yield frames.encode(FrameType.STDOUT, request, data[start : start + len(BIG)])


def exits_with(output: bytes) -> Play:
    """Send the output of a command that succeeds."""

    def play(request: bytes) -> Iterator[bytes]:
        for start in range(0, len(output), len(BIG)):
            yield frames.encode(FrameType.STDOUT, request, output[start : start + len(BIG)])
        end = exiting(stdout=len(output), nanoseconds=10**9)
        yield frames.encode(FrameType.EXIT, request, end)

    return play


def after_its_end(request: bytes) -> Iterator[bytes]:
    yield frames.encode(FrameType.STDOUT, request, gzip.compress(b"x"))
    yield from for_ever(FrameType.STDOUT, BIG)(request)


RUN: dict[str, tuple[Play, type[GuestError] | None]] = {
    "stdout for ever": (for_ever(FrameType.STDOUT, BIG), BadOutput),
    "stderr for ever": (for_ever(FrameType.STDERR, BIG), BadOutput),
    "stdout for ever in single bytes": (for_ever(FrameType.STDOUT, b"x"), GuestError),
    "empty output for ever": (for_ever(FrameType.STDOUT), DeadlineExceeded),
    "heartbeats for ever": (for_ever(FrameType.BEAT), DeadlineExceeded),
    "starts for ever": (for_ever(FrameType.STARTED), DeadlineExceeded),
    "welcomes for ever": (for_ever(FrameType.WELCOME, BIG), DeadlineExceeded),
    "noise without an end": (raw_for_ever(b"noise" * 5000), DeadlineExceeded),
    "ends of frames for ever": (raw_for_ever(b"\xc0" * 50_000), DeadlineExceeded),
    "zeros for ever": (raw_for_ever(bytes(50_000)), DeadlineExceeded),
    "one byte at a time": (trickle, DeadlineExceeded),
    "frames of another request": (
        lambda _: itertools.repeat(frames.encode(FrameType.STDOUT, b"another!", BIG)),
        DeadlineExceeded,
    ),
    "the host's own frames": (echo, DeadlineExceeded),
    "noise as a frame": (raw(b"\xc0" + b"noise" * 20 + b"\xc0"), GuestLost),
    "a frame of 1 MB": (raw(b"\xc0" + b"n" * 1_000_000 + b"\xc0"), GuestLost),
    "a length of 2 GiB": (wrong_length, GuestLost),
    "a frame that says it was damaged": (frame(FrameType.DAMAGED), GuestLost),
    "half a frame, then gone": (raw(b"\xc0o12345"), GuestLost),
    "an exit without content": (frame(FrameType.EXIT), GuestLost),
    "an exit of 16 KiB": (frame(FrameType.EXIT, BIG), GuestLost),
    "an exit before its output": (frame(FrameType.EXIT, exiting(stdout=1 << 63)), GuestLost),
    "an exit status of -2^31": (frame(FrameType.EXIT, exiting(-(1 << 31))), None),
    "an exit after 585 years": (frame(FrameType.EXIT, exiting(0, 0, 0, 2**64 - 1)), None),
    "input taken, without a number": (frame(FrameType.TAKEN, b"1"), GuestLost),
    "input taken that was not sent": (frame(FrameType.TAKEN, b"\xff" * 8), GuestLost),
}
GET: dict[str, tuple[Play, type[GuestError] | None]] = {
    "a gzip bomb": (endless_bomb, BadOutput),
    "a file without an end": (stored_for_ever, BadOutput),
    "half a file": (sending(gzip.compress(b"x" * 5000)[:-9]), GuestLost),
    "a wrong checksum": (sending(gzip.compress(b"x")[:-8] + bytes(8)), GuestLost),
    "no gzip": (sending(b"hello"), GuestLost),
    "nothing": (sending(b""), GuestLost),
    "more after the end": (after_its_end, GuestLost),
    "errors of 1 MiB": (sending(b"", 1, ESCAPES.encode() * 50_000), GuestError),
    "errors for ever": (for_ever(FrameType.STDERR, BIG), DeadlineExceeded),
}


QUIET: set[Play] = set()


def silence(_: bytes) -> Iterator[bytes]:
    return iter(())


QUIET.add(silence)
GREETINGS = {
    "heartbeats": for_ever(FrameType.BEAT),
    "output": for_ever(FrameType.STDOUT, BIG),
    "ends of frames": raw_for_ever(b"\xc0" * 50_000),
}

# --- the console

READY = b"[    1.0] labctl: ready boot=01234567-89ab-cdef-0123-456789abcdef\n"
CONSOLES: dict[str, tuple[bytes, int, type[GuestError] | None]] = {
    "a line without an end": (b"x" * 1000, 2000, None),
    "more than the limit": (b"[    2.0] hello\n", 200_000, GuestLost),
    "one line above the limit": (b"x" * 10_000, 500, GuestLost),
    "complaints for ever": (b"[    2.0] BUG: one\n", 100_000, GuestSplat),
    "empty lines": (b"\n", 500_000, None),
    "nodes for ever": (b"labctl: node 0 cpus=0 memory_kib=1 distances=10\n", 40_000, None),
    "escape sequences": (ESCAPES.encode() + b"\n", 60_000, None),
    "no UTF-8": (b"\xff\xfe\0\n", 400_000, None),
}

NODES = {
    name: f"labctl: node 0 cpus={cpus} memory_kib=1 distances={distances}"
    for name, cpus, distances in [
        ("a million CPUs", "0-999999", "10"),
        ("10^10 CPUs", "0-9999999999", "10"),
        ("a million distances", "0", "10*999999"),
        ("many ranges", "0-8191," * 400, "10"),
    ]
}

# --- programs

OUTPUTS = {
    "arrays": "[" * 1_000_000,
    "objects": '{"elapsed":' * 100_000,
    "digits in JSON": '{"elapsed": ' + "9" * 1_000_000 + "}",
    "digits": "elapsed: " + "9" * 1_000_000,
    "escape sequences": f"elapsed: 1 {ESCAPES}",
    "9 MB": "x" * 9_000_000,
    "infinity": '{"elapsed": 1e999}',
    "no number": '{"elapsed": NaN}',
    "the name again and again": "elapsed" * 1_000_000,
}
