"""A hostile guest sends anything, for ever: labctl answers in time, and in little memory.

The games are played without QEMU: over a unix socket as the command port, and in files as
the console. Each ends as the table says, within its deadline.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from held import peak_bytes
from hostile import (
    BIG,
    CONSOLES,
    ESCAPES,
    GET,
    GREETINGS,
    NODES,
    OUTPUTS,
    QUIET,
    RUN,
    Play,
    bomb,
    sending,
    silence,
)
from portserver import serving
from samples import sample

from labctl import files
from labctl.cli import ending
from labctl.errors import (
    BadOutput,
    GuestError,
    GuestHung,
    GuestLost,
    GuestPanic,
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
TWO_NODES = Topology(nodes=2, memory_per_node=256 << 20)


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


# --- the command port ----------------------------------------------------------------------------


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
    with guest(tmp_path / "port", sending(bomb(size >> 20))):
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
    """A QEMU that runs until it gets a status."""

    pid = 1
    status: int | None = None

    def poll(self) -> int | None:
        return self.status

    def end(self) -> int:
        return 0


def watchdog_of(folder: Path, text: bytes, times: int) -> Watchdog:
    with (folder / "console.log").open("wb") as file:
        for _ in range(times):
            file.write(text)
    found = Watchdog("stock", folder, CONSOLE_BYTES)
    found.machine = Running()
    return found


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


def test_a_flood_is_read_to_its_end_only_when_qemu_has_ended(tmp_path: Path) -> None:
    """Or it would delay the deadline of a command, and hide why the guest ended."""
    noise = b"noise\n" * 200_000
    panic = b"[    1.0] Kernel panic - not syncing: x\n"
    (tmp_path / "console.log").write_bytes(b"[    0.1] x\n" + noise + panic)
    watchdog = Watchdog("stock", tmp_path)
    machine = watchdog.machine = Running()
    watchdog.check(0.0)
    assert 0 < watchdog.console.bytes_seen < len(noise)
    machine.status = -9
    with pytest.raises(GuestPanic, match="not syncing: x"):
        watchdog.check(0.0)


@pytest.mark.parametrize("game", NODES)
def test_a_node_of_any_size_is_refused(tmp_path: Path, game: str) -> None:
    console = Console(tmp_path / "console.log")
    console.path.write_text(f"{NODES[game]}\n" * 2000)
    console.poll()
    with ends_with(UserError):
        shape.check(TWO_NODES, console.nodes, kernel="stock", where="console.log")


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
