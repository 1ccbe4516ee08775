"""A hostile guest sends anything, for ever: labctl answers in time, and in little memory.

The games are played without QEMU: over a unix socket as the command port, and in files as
the console. Each ends as the table says, within its deadline.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import itertools
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from portserver import serving
from samples import sample

from labctl import files
from labctl.cli import ending
from labctl.errors import (
    BadOutput,
    DeadlineExceeded,
    GuestError,
    GuestHung,
    GuestLost,
    GuestSplat,
    UserError,
)
from labctl.experiments import output, parse
from labctl.guests import shape
from labctl.guests.watchdog import Watchdog
from labctl.lab.topology import Topology
from labctl.observers import OBSERVERS
from labctl.reports.export import to_csv
from labctl.transports import exchange, frames
from labctl.transports.console import Console
from labctl.transports.frames import Frame, FrameType
from labctl.transports.serial import SerialTransport
from labctl.transports.shell import Reply, Request

MEMORY_BYTES = 300 << 20
GAME_SECONDS = 120.0  # of the test; the deadlines of labctl are fractions of a second here
SECONDS = 0.4
OUTPUT_BYTES = 4 << 20
CONSOLE_BYTES = 2 << 20
ESCAPES = "\x1b]0;title\x07\x1b[2J\x9b2J\u202e"
BIG = b"x" * frames.PAYLOAD_BYTES
NODES = Topology(nodes=2, memory_per_node=256 << 20)

Play = Callable[[bytes], Iterator[bytes]]


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch):
    monkeypatch.setattr("labctl.transports.serial._KILL_SECONDS", SECONDS)
    monkeypatch.setattr("labctl.transports.serial._GREETING_SECONDS", SECONDS)
    monkeypatch.setattr("labctl.transports.command._COPY_SECONDS", 3 * SECONDS)


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """Check the peak of this process; writing 5 resets it, proc(5)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = peak_bytes()
    yield
    assert peak_bytes() - before < MEMORY_BYTES


def peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


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


def sent(content: bytes, status: int = 0, errors: bytes = b"") -> Play:
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


def bomb(mebibytes: int = 1024) -> bytes:
    """1 GiB of zeros in 1 MB."""
    stream = zlib.compressobj(9, wbits=31)
    return b"".join(stream.compress(bytes(1 << 20)) for _ in range(mebibytes)) + stream.flush()


def stored_for_ever(request: bytes) -> Iterator[bytes]:
    stream = zlib.compressobj(0, wbits=31)
    while True:
        data = stream.compress(BIG)
        for start in range(0, len(data), len(BIG)):
            yield frames.encode(FrameType.STDOUT, request, data[start : start + len(BIG)])


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
    "a gzip bomb": (sent(bomb()), BadOutput),
    "a file without an end": (stored_for_ever, BadOutput),
    "half a file": (sent(gzip.compress(b"x" * 5000)[:-9]), GuestLost),
    "a wrong checksum": (sent(gzip.compress(b"x")[:-8] + bytes(8)), GuestLost),
    "no gzip": (sent(b"hello"), GuestLost),
    "nothing": (sent(b""), GuestLost),
    "more after the end": (after_its_end, GuestLost),
    "errors of 1 MiB": (sent(b"", 1, ESCAPES.encode() * 50_000), GuestError),
    "errors for ever": (for_ever(FrameType.STDERR, BIG), DeadlineExceeded),
}


def guest(path: Path, play: Play, greet: bool = True) -> AbstractContextManager[None]:
    """Serve the command port: greet, then play for the request, then hang up."""

    def answers(frame: Frame) -> Iterator[bytes | None]:
        if frame.type is FrameType.HELLO and greet:
            yield frames.encode(FrameType.WELCOME, frame.id)
        elif frame.type is FrameType.RUN or not greet:
            yield from play(frame.id)
            if play not in QUIET:
                yield None

    return serving(path, answers, end_seconds=GAME_SECONDS)


QUIET: set[Play] = set()


def silence(_: bytes) -> Iterator[bytes]:
    return iter(())


QUIET.add(silence)


@contextlib.contextmanager
def little_disk(folder: Path) -> Iterator[None]:
    """Check that labctl writes no more than the limit, and leaves no unfinished file."""
    before = bytes_in(folder)
    yield
    assert bytes_in(folder) - before <= OUTPUT_BYTES
    assert [path for path in folder.rglob("*") if files.is_unfinished(path)] == []


def bytes_in(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))


@contextlib.contextmanager
def ends_with(expected: type[Exception] | None, folder: Path | None = None) -> Iterator[None]:
    with little_memory(), contextlib.ExitStack() as stack:
        if folder is not None:
            stack.enter_context(little_disk(folder))
        if expected is not None:
            stack.enter_context(pytest.raises(expected))
        yield


def transport_to(path: Path, silence_seconds: float = 1.5) -> SerialTransport:
    line = SerialTransport(path, alive=lambda: None, silence_seconds=silence_seconds)
    line.output_bytes = line.file_bytes = OUTPUT_BYTES
    return line


@pytest.mark.parametrize("game", RUN)
def test_a_command_ends(tmp_path: Path, game: str) -> None:
    play, expected = RUN[game]
    with guest(tmp_path / "port", play):
        line = transport_to(tmp_path / "port")
        with ends_with(expected, tmp_path), contextlib.closing(line):
            outcome = line.run("true", 2 * SECONDS, b"input" * 100_000)
            assert outcome.stdout == b""


@pytest.mark.parametrize("game", GET)
def test_a_copy_ends(tmp_path: Path, game: str) -> None:
    play, expected = GET[game]
    with guest(tmp_path / "port", play):
        line = transport_to(tmp_path / "port")
        with ends_with(expected, tmp_path), contextlib.closing(line):
            line.get("/file")


@pytest.mark.parametrize("game", GET)
def test_a_copy_to_disk_ends(tmp_path: Path, game: str) -> None:
    play, expected = GET[game]
    (tmp_path / "copy").write_bytes(b"as before")
    with guest(tmp_path / "port", play):
        line = transport_to(tmp_path / "port")
        with ends_with(expected, tmp_path), contextlib.closing(line):
            line.get_file("/file", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"as before"


def test_a_copy_to_disk_takes_no_memory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("labctl.transports.command._COPY_SECONDS", GAME_SECONDS)
    size = 200 << 20
    with guest(tmp_path / "port", sent(bomb(size >> 20))):
        line = transport_to(tmp_path / "port")
        line.file_bytes = size
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        before = peak_bytes()
        with contextlib.closing(line):
            line.get_file("/file", tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_size == size
    assert peak_bytes() - before < size / 4
    (tmp_path / "copy").unlink()


def test_an_error_of_a_copy_is_short(tmp_path: Path) -> None:
    with guest(tmp_path / "port", GET["errors of 1 MiB"][0]):
        line = transport_to(tmp_path / "port")
        with pytest.raises(GuestError) as caught, contextlib.closing(line):
            line.get("/file")
    assert len(str(caught.value)) < 5000
    assert "\x1b" not in ending._shown(caught.value)


GREETINGS = {
    "heartbeats": for_ever(FrameType.BEAT),
    "output": for_ever(FrameType.STDOUT, BIG),
    "ends of frames": raw_for_ever(b"\xc0" * 50_000),
}


@pytest.mark.parametrize("game", GREETINGS)
def test_a_guest_that_never_greets_hangs(tmp_path: Path, game: str) -> None:
    with guest(tmp_path / "port", GREETINGS[game], greet=False):
        line = transport_to(tmp_path / "port")
        with ends_with(GuestHung, tmp_path), contextlib.closing(line):
            line.run("true", 60.0)


def test_a_silent_guest_hangs(tmp_path: Path) -> None:
    with guest(tmp_path / "port", silence):
        line = transport_to(tmp_path / "port", SECONDS)
        with ends_with(GuestHung), contextlib.closing(line):
            line.run("true", 60.0)


# --- the shell of SSH ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "data", "streams", "expected"),
    [
        pytest.param(2, BIG, False, GuestLost, id="errors before the start"),
        pytest.param(2, b"mark 12\nmark " + BIG, True, BadOutput, id="a forged end"),
        pytest.param(1, BIG, False, BadOutput, id="output for ever"),
    ],
)
def test_a_shell_ends(number: int, data: bytes, streams: bool, expected: type[GuestError]) -> None:
    reply = Reply(
        Request("true", b"mark", b""),
        output=(lambda *_: None) if streams else None,
        most_bytes=OUTPUT_BYTES,
    )
    with ends_with(expected):
        for _ in range(100_000):
            reply.take(number, data)


# --- the console ---------------------------------------------------------------------------------


class Running:
    """A QEMU that runs."""

    pid = 1

    def poll(self) -> int | None:
        return None

    def end(self) -> int:
        return 0


def watchdog_of(folder: Path, text: bytes, times: int) -> Watchdog:
    with (folder / "console.log").open("wb") as file:
        for _ in range(times):
            file.write(text)
    found = Watchdog("stock", folder, CONSOLE_BYTES)
    found.machine = Running()
    return found


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


@pytest.mark.parametrize("game", CONSOLES)
def test_a_console_is_followed(tmp_path: Path, game: str) -> None:
    text, times, expected = CONSOLES[game]
    watchdog = watchdog_of(tmp_path, text, times)
    with ends_with(expected, tmp_path):
        watchdog.check()
    with little_memory():
        tail = watchdog.console.tail(10_000_000)
    assert len(watchdog.console.nodes) <= 1100
    shown = ending._shown(GuestLost("x", console_tail=tail[-100:]))
    assert all(char.isprintable() or char in "\n\t" for char in shown)


@pytest.mark.parametrize(
    ("cpus", "distances"),
    [("0-999999", "10"), ("0-9999999999", "10"), ("0", "10*999999"), ("0-8191," * 400, "10")],
    ids=["a million CPUs", "10^10 CPUs", "a million distances", "many ranges"],
)
def test_a_node_of_any_size_is_refused(tmp_path: Path, cpus: str, distances: str) -> None:
    text = f"cpus={cpus} memory_kib=1 distances={distances}"
    console = Console(tmp_path / "console.log")
    console.path.write_text(f"labctl: node 0 {text}\n" * 2000)
    console.poll()
    with ends_with(UserError):
        shape.check(NODES, console.nodes, kernel="stock", where="console.log")


# --- what programs print -------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["(a+)+b", "((?:a|aa)+)$", "((?:a*)*)*b"])
def test_a_pattern_that_backtracks_ends(monkeypatch, pattern: str) -> None:
    monkeypatch.setattr(parse, "_MATCH_SECONDS", SECONDS)
    with ends_with(BadOutput):
        parse.parsed("a" * 4000 + "!", "rate", pattern)


def in_a_thread(text: str, pattern: str, unit: str | None = None) -> float:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(parse.parsed, text, "rate", pattern, unit).result(GAME_SECONDS).value


def test_a_pattern_that_backtracks_in_a_thread_ends(monkeypatch) -> None:
    monkeypatch.setattr(parse, "_MATCH_SECONDS", SECONDS)
    with ends_with(BadOutput):
        in_a_thread("a" * 4000 + "!", "(a+)+b")


def test_a_pattern_finds_in_a_thread_what_it_finds_elsewhere() -> None:
    text = "rate: 1.5 é\nrate: 2.5\n"
    expected = parse.parsed(text, "rate", "rate: ([0-9.]+)", "us")
    assert in_a_thread(text, "rate: ([0-9.]+)", "us") == expected.value
    with pytest.raises(BadOutput) as here:
        parse.parsed(text, "rate", "none: (.*)")
    with pytest.raises(BadOutput) as there:
        in_a_thread(text, "none: (.*)")
    assert there.value.what == here.value.what


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


@pytest.mark.parametrize("game", OUTPUTS)
def test_an_output_is_measured_or_refused(game: str) -> None:
    with little_memory(), pytest.raises(BadOutput) as caught:
        output.measure(OUTPUTS[game], "elapsed", took_seconds=1.0)
    assert len(str(caught.value)) < 1000
    assert "\x1b" not in ending._shown(caught.value)


def test_files_of_a_guest_are_read_or_refused() -> None:
    from labctl.transports import Outcome

    with little_memory():
        for text in (b"\0/a", b"\0" * 5_000_000, b"\0/a\0b\0" * 500_000):
            with contextlib.suppress(BadOutput):
                exchange.answer(Outcome("x", 0, text, b"", 1.0), "guest")


def test_counters_of_a_guest_are_limited_and_printable() -> None:
    vmstat = OBSERVERS["vmstat"]
    text = f"nr_{ESCAPES} 5\n"
    (name,) = vmstat.difference({"/proc/vmstat": text}, {"/proc/vmstat": text})
    assert name.isprintable()
    for many in ("".join(f"a{n} 1\n" for n in range(100_000)), "x" * (9 << 20)):
        with little_memory(), pytest.raises(BadOutput, match="vmstat"):
            vmstat.difference({}, {"/proc/vmstat": many})


def test_no_escape_sequence_is_exported() -> None:
    hostile = sample(
        status="bad-output", value=None, message=ESCAPES, counters={f"vmstat.{ESCAPES}": 1},
        measurements={ESCAPES: ESCAPES}, read_back={"a": ESCAPES},
    )  # fmt: skip
    text = to_csv(None, [hostile])  # type: ignore[arg-type]
    assert all(char.isprintable() or char in "\n\t" for char in text)
    assert len(list(csv.reader(io.StringIO(text)))) == 2


def test_there_are_forty_games() -> None:
    assert len(RUN) + len(GET) + len(CONSOLES) >= 40
    assert os.sysconf("SC_PAGE_SIZE")
