"""The command port against the real agent on a pseudo-terminal, and against liars."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from portserver import serving

from labctl import files, proc
from labctl.errors import (
    DeadlineExceeded,
    GuestError,
    GuestHung,
    GuestLost,
    GuestPanic,
    HostError,
    UserError,
)
from labctl.guests import initramfs
from labctl.transports import frames
from labctl.transports.frames import Frame, FrameType
from labctl.transports.serial import SerialTransport

SECONDS = 60.0  # a deadline that no healthy test reaches


def fine() -> None:
    """A guest that lives."""


# --- the line: what QEMU does between a unix socket and a port -----------------------------------


class Line:
    """Joins a pseudo-terminal to a unix socket; whatever nobody reads is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.piece_bytes = 65536
        self.change: Callable[[bytes], bytes] = lambda data: data
        self._master, slave = pty.openpty()
        tty.setraw(slave)  # the agent's own doing is checked by test_an_echo_is_not_a_reply
        self._slave = slave
        self.device = os.ttyname(slave)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(4)
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        os.close(self._stopped)
        while self._thread.is_alive():
            # Where no agent reads any more, a write to the port would never end.
            termios.tcflush(self._slave, termios.TCIFLUSH)
            self._thread.join(0.1)
        self._server.close()
        for file in (self._master, self._slave, self._stop):
            os.close(file)

    def _serve(self) -> None:
        client: socket.socket | None = None
        while True:
            files: list[int | socket.socket] = [self._stop, self._master, client or self._server]
            ready = select.select(files, [], [])[0]
            if self._stop in ready:
                break
            if client is None and self._server in ready:
                client = self._server.accept()[0]
                continue
            if self._master in ready:
                data = self.change(os.read(self._master, self.piece_bytes))
                client = self._give(client, data)
            if client is not None and client in ready:
                client = self._take(client)
        if client is not None:
            client.close()

    def _give(self, client: socket.socket | None, data: bytes) -> socket.socket | None:
        if client is None:
            return None
        try:
            client.sendall(data)
        except OSError:
            client.close()
            return None
        return client

    def _take(self, client: socket.socket) -> socket.socket | None:
        try:
            data = client.recv(min(self.piece_bytes, 4096))
        except OSError:
            data = b""
        if not data:
            client.close()
            return None
        os.write(self._master, data)
        return client


@pytest.fixture(scope="session")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guest's agent, compiled for this host."""
    program = tmp_path_factory.mktemp("agent") / "labagent"
    folder = initramfs.source_folder() / "agent"
    units = sorted(path.name for path in folder.glob("*.c"))
    flags = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror"]
    proc.run(["gcc", *flags, "-o", program, *units], cwd=folder, timeout_seconds=120)
    return program


@pytest.fixture
def line(tmp_path: Path, agent: Path) -> Iterator[Line]:
    with ExitStack() as stack:
        line = Line(tmp_path / "port")
        stack.callback(line.close)
        stack.enter_context(proc.spawn([agent, line.device], log=tmp_path / "agent.log"))
        yield line


@pytest.fixture
def transport(line: Line) -> Iterator[SerialTransport]:
    transport = SerialTransport(line.path, alive=fine, silence_seconds=SECONDS)
    yield transport
    transport.close()


# --- a healthy guest -----------------------------------------------------------------------------


def test_both_outputs_and_the_status_come_back_exactly(transport: SerialTransport) -> None:
    outcome = transport.run("printf out; printf err >&2; exit 3", SECONDS)
    assert (outcome.stdout, outcome.stderr, outcome.status) == (b"out", b"err", 3)
    assert outcome.text == "out"
    assert 0 <= outcome.seconds < SECONDS


def test_an_argument_vector_is_not_interpreted(transport: SerialTransport) -> None:
    words = ["a b", "", "$HOME", "'\"\\", "ü", "*"]
    outcome = transport.run(["printf", "%s|", *words], SECONDS)
    assert outcome.stdout.decode() == "".join(f"{word}|" for word in words)


def test_all_exit_statuses(transport: SerialTransport) -> None:
    statuses = [transport.run(["sh", "-c", f"exit {n}"], SECONDS).status for n in range(256)]
    assert statuses == list(range(256))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_signal_is_128_and_its_number(transport: SerialTransport, number: int) -> None:
    assert transport.run(f"kill -{int(number)} $$", SECONDS).status == 128 + number


def test_a_missing_program_is_127_and_named(transport: SerialTransport) -> None:
    outcome = transport.run(["no-such-program"], SECONDS)
    assert outcome.status == 127
    assert b"no-such-program" in outcome.stderr


def test_every_byte_passes_both_ways(transport: SerialTransport) -> None:
    data = bytes(range(256)) * 40 + b"\xc0\xdb\xdc\xdd" * 500 + b"\0" * 3000
    assert transport.run(["cat"], SECONDS, data).stdout == data


def test_input_larger_than_every_buffer(transport: SerialTransport) -> None:
    data = os.urandom(1 << 20)
    assert transport.run(["cat"], SECONDS, data).stdout == data


def test_input_that_nobody_reads_is_no_obstacle(transport: SerialTransport) -> None:
    data = b"\xc0" * (1 << 20)
    assert transport.run("exec <&-; echo done", SECONDS, data).stdout == b"done\n"
    assert transport.run(["true"], SECONDS, data).status == 0


def test_stdin_ends(transport: SerialTransport) -> None:
    assert transport.run(["wc", "-c"], SECONDS).text.strip() == "0"


def test_ten_megabytes(transport: SerialTransport) -> None:
    script = "head -c 10485760 /dev/zero | tr '\\0' x; echo end >&2"
    outcome = transport.run(script, SECONDS)
    assert outcome.stdout == b"x" * 10485760
    assert outcome.stderr == b"end\n"


def test_one_byte_at_a_time(line: Line, transport: SerialTransport) -> None:
    line.piece_bytes = 1
    data = os.urandom(5000)
    assert transport.run(["cat"], SECONDS, data).stdout == data


def test_an_echo_is_not_a_reply(line: Line, transport: SerialTransport) -> None:
    mirrored = frames.encode(FrameType.RUN, b"12345678", b"\4\0\0\0")
    line.change = lambda data: mirrored + data
    # The echo is whole frames of the other direction, between whole frames of this one.
    assert transport.run("echo hi", SECONDS).stdout == b"hi\n"


def test_a_daemon_does_not_hold_up_the_end(transport: SerialTransport) -> None:
    outcome = transport.run("sleep 1000 & setsid sleep 30 & echo started", SECONDS)
    assert outcome.stdout == b"started\n"
    assert outcome.seconds < 20


def test_what_a_command_left_in_its_group_is_killed(transport: SerialTransport) -> None:
    left = transport.run("sleep 1000 >/dev/null 2>&1 & echo $!", SECONDS).text.strip()
    gone = (
        f"while kill -0 {left} 2>/dev/null && ! grep -q 'State:.Z' /proc/{left}/status; do :; done"
    )
    assert transport.run(gone, SECONDS).status == 0


def test_files_go_in_and_out(transport: SerialTransport, tmp_path: Path) -> None:
    content = os.urandom(100_000) + bytes(50_000)
    local, remote = tmp_path / "local", tmp_path / "a remote file"
    local.write_bytes(content)
    local.chmod(0o755)
    transport.put(local, str(remote))
    assert remote.read_bytes() == content
    assert remote.stat().st_mode & 0o777 == 0o755
    assert transport.get(str(remote)) == content
    transport.get_file(str(remote), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    assert [path.name for path in tmp_path.glob("*.part")] == []


def test_a_file_that_is_not_there(transport: SerialTransport, tmp_path: Path) -> None:
    with pytest.raises(GuestError, match="nothing-here"):
        transport.get("/nothing-here")
    (tmp_path / "copy").write_bytes(b"as before")
    with pytest.raises(GuestError, match="nothing-here"):
        transport.get_file("/nothing-here", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"as before"
    (tmp_path / "there").write_bytes(b"x" * 100)
    with pytest.raises(HostError, match=r"cannot write .*/no-folder/copy: No such file"):
        transport.get_file(str(tmp_path / "there"), tmp_path / "no-folder" / "copy")
    assert not any(files.is_unfinished(path) for path in tmp_path.iterdir())
    with pytest.raises(UserError, match="nothing-here"):
        transport.put(tmp_path / "nothing-here", "/tmp/x")
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(GuestError, match="/no/such/folder"):
        transport.put(tmp_path / "x", "/no/such/folder/x")


@pytest.mark.parametrize("argv", [[], [""], ["a\0b"], ["x" * (1 << 20)]])
def test_a_command_that_cannot_be_sent(transport: SerialTransport, argv: list[str]) -> None:
    with pytest.raises(UserError):
        transport.run(argv, SECONDS)
    assert transport.run(["true"], SECONDS).status == 0


# --- trouble -------------------------------------------------------------------------------------


def test_a_command_past_its_deadline_is_killed_and_the_line_is_clean(
    transport: SerialTransport,
) -> None:
    with pytest.raises(DeadlineExceeded, match=r"sleep 1000.*0\.1 s"):
        transport.run("echo $$ > /dev/null; yes & sleep 1000", 0.1)
    assert transport.run("echo clean", SECONDS).stdout == b"clean\n"


def test_a_client_that_vanished_leaves_a_clean_line(line: Line, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    def vanish() -> None:
        if pid_file.exists() and pid_file.read_text().strip():
            raise KeyboardInterrupt

    first = SerialTransport(line.path, alive=vanish)
    with pytest.raises(KeyboardInterrupt):
        first.run(f"echo $$ > {pid_file}; while :; do echo noise; done", SECONDS)
    first.close()
    second = SerialTransport(line.path, alive=fine, silence_seconds=SECONDS)
    pid = pid_file.read_text().strip()
    assert second.run("echo clean", SECONDS).stdout == b"clean\n"
    assert second.run(f"kill -0 {pid}", SECONDS).status != 0
    second.close()


def test_a_client_that_vanished_in_the_middle_of_a_frame(line: Line) -> None:
    with socket.socket(socket.AF_UNIX) as rude:
        rude.connect(str(line.path))
        rude.sendall(frames.encode(FrameType.RUN, b"12345678", b"\xff\0\0\0")[:-7])
    with socket.socket(socket.AF_UNIX) as rude:
        rude.connect(str(line.path))
        rude.sendall(b"login: root\r\n\xdb\xff\xc0" + os.urandom(5000))
    transport = SerialTransport(line.path, alive=fine, silence_seconds=SECONDS)
    assert transport.run("echo clean", SECONDS).stdout == b"clean\n"
    transport.close()


def test_garbage_before_the_first_reply_is_skipped(line: Line, transport: SerialTransport) -> None:
    garbage = [b"\x1b[2J login: \xdb\x01\xc0" + os.urandom(1000)]
    line.change = lambda data: (garbage.pop() if garbage else b"") + data
    assert transport.run("echo clean", SECONDS).stdout == b"clean\n"


def test_a_damaged_reply_is_an_error_and_the_next_is_whole(
    line: Line, transport: SerialTransport
) -> None:
    line.change = lambda data: data.replace(b"secret", b"sEcret")
    with pytest.raises(GuestLost, match="checksum"):
        transport.run("echo secret", SECONDS)
    assert transport.run("echo other", SECONDS).stdout == b"other\n"


def test_a_lost_frame_is_an_error(line: Line, transport: SerialTransport) -> None:
    def lose(data: bytes) -> bytes:
        pieces = data.split(b"\xc0")
        return b"\xc0".join(piece for piece in pieces if b"secret" not in piece)

    line.change = lose
    with pytest.raises(GuestLost, match="incomplete"):
        transport.run("echo secret", SECONDS)


def test_an_interrupt_leaves_a_line_that_can_be_used(line: Line) -> None:
    calls = []

    def interrupt() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    transport = SerialTransport(line.path, alive=interrupt, silence_seconds=SECONDS)
    with pytest.raises(KeyboardInterrupt):
        transport.run("while :; do echo noise; done", SECONDS)
    assert transport.run("echo clean", SECONDS).stdout == b"clean\n"
    transport.close()


# --- guests that are not what they should be -----------------------------------------------------

Answer = Callable[[Frame], bytes | None]


def welcome(frame: Frame, after: bytes | None = b"") -> bytes | None:
    if frame.type is FrameType.HELLO:
        return frames.encode(FrameType.WELCOME, frame.id)
    return after if frame.type is FrameType.RUN else b""


def run_against(
    path: Path,
    answer: Answer,
    *,
    timeout_seconds: float = SECONDS,
    silence_seconds: float = SECONDS,
    alive: Callable[[], None] = fine,
) -> None:
    with serving(path, lambda frame: [answer(frame)], end_seconds=SECONDS):
        transport = SerialTransport(path, alive=alive, silence_seconds=silence_seconds)
        try:
            transport.run("true", timeout_seconds)
        finally:
            transport.close()


def test_silence_is_a_hang(tmp_path: Path) -> None:
    with pytest.raises(GuestHung, match=r"0\.2 s"):
        run_against(tmp_path / "port", welcome, silence_seconds=0.2)


def test_silence_from_the_beginning_is_a_hang(tmp_path: Path) -> None:
    with pytest.raises(GuestHung):
        run_against(tmp_path / "port", lambda _: b"", silence_seconds=0.2)


def test_silence_past_the_deadline_is_still_a_hang(tmp_path: Path) -> None:
    with pytest.raises(GuestHung):
        run_against(tmp_path / "port", welcome, timeout_seconds=0.1, silence_seconds=0.3)


def test_heartbeats_past_the_deadline_are_long_work(tmp_path: Path) -> None:
    asked_to_kill = []

    def answer(frame: Frame) -> bytes | None:
        if frame.type is FrameType.KILL:
            asked_to_kill.append(frame.id)
            payload = frames._EXIT.pack(137, 0, 0, 10**9)
            return frames.encode(FrameType.EXIT, frame.id, payload)
        return welcome(frame, frames.encode(FrameType.BEAT, frame.id))

    with pytest.raises(DeadlineExceeded):
        run_against(tmp_path / "port", answer, timeout_seconds=0.1)
    assert len(asked_to_kill) == 1


def test_a_line_cut_in_the_middle_is_a_lost_guest(tmp_path: Path) -> None:
    with pytest.raises(GuestLost, match="QEMU exited"):
        run_against(tmp_path / "port", lambda frame: welcome(frame, None))


def test_what_the_watcher_raises_ends_the_wait(tmp_path: Path) -> None:
    def panic() -> None:
        raise GuestPanic("Kernel panic - not syncing")

    with pytest.raises(GuestPanic):
        run_against(tmp_path / "port", welcome, alive=panic)


def test_another_requests_frames_are_ignored(tmp_path: Path) -> None:
    def answer(frame: Frame) -> bytes | None:
        other = frames.encode(FrameType.EXIT, b"87654321", frames._EXIT.pack(1, 0, 0, 0))
        noise = frames.encode(FrameType.STDOUT, b"87654321", b"noise")
        mine = frames.encode(FrameType.EXIT, frame.id, frames._EXIT.pack(0, 0, 0, 0))
        return welcome(frame, noise + other + mine)

    run_against(tmp_path / "port", answer)


def test_a_closed_port_is_a_lost_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labctl.transports.serial._CONNECT_SECONDS", 0.0)
    with pytest.raises(GuestLost, match="closed"):
        SerialTransport(tmp_path / "nobody", alive=fine).run("true", SECONDS)


def test_a_path_that_no_socket_can_have(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="too long"):
        SerialTransport(tmp_path / ("x" * 120), alive=fine).run("true", SECONDS)


def test_a_reader_does_not_keep_noise_without_end() -> None:
    reader = frames.Reader()
    for _ in range(100):
        assert list(reader.feed(b"x" * 65536)) == []
    assert sum(map(len, reader._parts)) < 200_000
    good = frames.encode(FrameType.BEAT, b"12345678")
    assert list(reader.feed(good)) == [None, Frame(FrameType.BEAT, b"12345678", b"")]


# --- input and output that are streamed ----------------------------------------------------------


def test_a_command_begins_before_its_input_ends(transport: SerialTransport) -> None:
    ours, theirs = os.pipe()
    came: list[tuple[int, bytes]] = []

    def output(number: int, data: bytes) -> None:
        came.append((number, data))
        if b"first" in data:  # it is back before its second half was sent
            os.write(theirs, b"second\n")
            os.close(theirs)

    os.write(theirs, b"first\n")
    outcome = transport.run("cat; echo end >&2", SECONDS, ours, output)
    os.close(ours)
    assert (outcome.status, outcome.stdout, outcome.stderr) == (0, b"", b"")
    assert b"".join(data for number, data in came if number == 1) == b"first\nsecond\n"
    assert b"".join(data for number, data in came if number == 2) == b"end\n"


def test_endless_input_ends_with_its_command(transport: SerialTransport) -> None:
    with Path("/dev/zero").open("rb") as zeros:
        outcome = transport.run("head -c 100000 | wc -c", SECONDS, zeros.fileno())
        assert outcome.stdout.split() == [b"100000"]
        assert transport.run("exit 3", SECONDS, zeros.fileno()).status == 3
    assert transport.run(["echo", "next"], SECONDS).stdout == b"next\n"


def test_input_that_stays_open_does_not_keep_a_command(transport: SerialTransport) -> None:
    ours, theirs = os.pipe()
    assert transport.run("echo done", SECONDS, ours).stdout == b"done\n"
    with pytest.raises(DeadlineExceeded):
        transport.run("cat", 1.0, ours)
    assert transport.run("echo next", SECONDS, b"").stdout == b"next\n"
    os.close(theirs)
    assert transport.run("cat", SECONDS, ours).stdout == b""
    os.close(ours)


def test_input_of_a_descriptor_arrives_whole(transport: SerialTransport, tmp_path: Path) -> None:
    content = os.urandom(200_000)
    (tmp_path / "input").write_bytes(content)
    with (tmp_path / "input").open("rb") as file:
        assert transport.run(["cat"], SECONDS, file.fileno()).stdout == content


def test_input_that_cannot_be_read_is_the_users(transport: SerialTransport, tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(UserError, match="cannot read standard input"):
        transport.run(["cat"], SECONDS, folder)
    os.close(folder)
    assert transport.run("echo next", SECONDS).stdout == b"next\n"


def test_a_reader_that_takes_its_time_is_not_a_guest_that_hangs(line: Line) -> None:
    transport = SerialTransport(line.path, alive=fine, silence_seconds=2.0)
    slow = [2.5]

    def output(_: int, __: bytes) -> None:
        time.sleep(slow.pop() if slow else 0)

    assert transport.run("echo a; sleep 1; echo b", SECONDS, b"", output).status == 0
    transport.close()
