"""SSH servers of a hostile guest: each sends what its game says, for ever if it can."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
from paramiko.common import (
    AUTH_SUCCESSFUL,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_SUCCESS,
    MSG_DEBUG,
    MSG_GLOBAL_REQUEST,
    MSG_IGNORE,
    OPEN_SUCCEEDED,
)
from sshserver import new_key

from labctl.errors import BadOutput, DeadlineExceeded, GuestError, GuestLost

BIG = b"x" * 32768
MARK = re.compile(rb"labctl-command-[0-9a-f]{12}-[0-9a-f]{16}")
HUGE_PACKET = b"\xff\xff\xff\xfc"

Raw = Callable[[socket.socket], None]
Play = Callable[[paramiko.Channel, bytes], None]


def raw(begin: bytes, rest: bytes) -> Raw:
    """Send a beginning, then the rest for ever, before keys are exchanged."""

    def play(line: socket.socket) -> None:
        line.sendall(begin)
        while rest:
            line.sendall(rest)
        line.recv(1 << 16)
        for _ in range(60):
            time.sleep(1)

    return play


def message(kind: int, *parts: int | str | bytes | bool) -> paramiko.Message:
    found = paramiko.Message()
    found.add_byte(bytes([kind]))
    for part in parts:
        if isinstance(part, bool):
            found.add_boolean(part)
        elif isinstance(part, int):
            found.add_int(part)
        else:
            found.add_string(part)
    return found


def for_ever(send: Callable[[paramiko.Channel, bytes], object]) -> Play:
    """Start the command, then send for ever."""

    def play(channel: paramiko.Channel, mark: bytes) -> None:
        channel.sendall_stderr(mark + b" 12\n")
        while True:
            send(channel, mark)

    return play


def sending(*pieces: tuple[int, bytes]) -> Play:
    """Send pieces of standard output (1) and error (2), then an exit status."""

    def play(channel: paramiko.Channel, mark: bytes) -> None:
        for number, piece in pieces:
            send = channel.sendall if number == 1 else channel.sendall_stderr
            send(piece.replace(b"MARK", mark))
        channel.send_exit_status(0)

    return play


def messages(kind: int, *parts: int | str | bytes | bool) -> Play:
    """Send a message of the whole connection for ever."""
    return for_ever(lambda channel, _: line_of(channel)._send_message(message(kind, *parts)))


def beyond_the_window(channel: paramiko.Channel, mark: bytes) -> None:
    """Send more than was asked for, while labctl waits for another command: a kill."""
    channel.sendall_stderr(mark + b" 12\n")
    line = line_of(channel)
    line.is_killing.wait()
    data = message(MSG_CHANNEL_DATA, channel.remote_chanid, BIG)
    while True:
        line._send_message(data)
        line.beyond_bytes += len(BIG)


def exit_statuses(channel: paramiko.Channel, _: bytes) -> None:
    one = message(MSG_CHANNEL_REQUEST, channel.remote_chanid, "exit-status", False, 0)
    line_of(channel)._send_message(one)


def errors_before_the_start(channel: paramiko.Channel, _: bytes) -> None:
    while True:
        channel.sendall_stderr(BIG)


def silence(channel: paramiko.Channel, _: bytes) -> None:
    while not channel.closed:
        time.sleep(0.01)


def huge_packet(channel: paramiko.Channel, mark: bytes) -> None:
    channel.sendall_stderr(mark + b" 12\n")
    while True:
        line_of(channel).sock.sendall(HUGE_PACKET + BIG)


BEFORE: dict[str, tuple[Raw, type[GuestError]]] = {
    "no banner": (raw(b"", b""), GuestError),
    "a banner without an end": (raw(b"SSH-2.0-", BIG), GuestLost),
    "lines before the banner for ever": (raw(b"", b"hello\r\n" * 5000), GuestLost),
    "a banner of escape sequences": (raw(b"\x1b]0;title\x07\x1b[2J\r\n" * 200, b""), GuestLost),
    "a first packet of 4 GiB": (raw(b"SSH-2.0-x\r\n" + HUGE_PACKET, bytes(1 << 16)), GuestLost),
    "noise for keys": (raw(b"SSH-2.0-x\r\n", b"noise" * 5000), GuestLost),
}
AFTER: dict[str, tuple[Play, type[GuestError]]] = {
    "output for ever": (for_ever(lambda channel, _: channel.sendall(BIG)), BadOutput),
    "errors for ever": (for_ever(lambda channel, _: channel.sendall_stderr(BIG)), BadOutput),
    "errors before the start": (errors_before_the_start, GuestLost),
    "forged ends for ever": (
        for_ever(lambda channel, mark: channel.sendall_stderr(mark + b" 0 1.0 2.0\n")),
        GuestError,
    ),
    "an end without a start": (sending((2, b"MARK 0 1.0 2.0\n")), GuestLost),
    "a start without an end": (sending((2, b"MARK 12\n")), GuestLost),
    "an end of 10^99 seconds": (
        sending((2, b"MARK 12\nMARK 0 1.0 1" + b"0" * 99 + b".0\n")),
        GuestLost,
    ),
    "nothing": (silence, DeadlineExceeded),
    "data beyond the window": (beyond_the_window, DeadlineExceeded),
    "a packet of 4 GiB": (huge_packet, GuestLost),
    "exit statuses for ever": (for_ever(exit_statuses), GuestError),
    "ignored messages for ever": (messages(MSG_IGNORE, BIG), GuestError),
    "debug messages for ever": (messages(MSG_DEBUG, True, BIG, ""), GuestError),
    "global requests for ever": (messages(MSG_GLOBAL_REQUEST, "x", True), GuestError),
    "channels for ever": (messages(MSG_CHANNEL_OPEN, "x11", 7, 1 << 20, 1 << 15), GuestError),
}


class Line(paramiko.Transport):
    """Starts a command when the answer to its request is out, as in `sshserver`."""

    def __init__(self, line: socket.socket) -> None:
        super().__init__(line)
        self.commands: list[threading.Thread] = []
        self.is_killing = threading.Event()
        self.beyond_bytes = 0  # of the window
        # The length of a packet is then not encrypted.
        self.get_security_options().digests = ("hmac-sha2-256-etm@openssh.com",)
        self.get_security_options().ciphers = ("aes128-ctr",)

    _send_message: Callable[[paramiko.Message], None]  # not in the stubs

    def _send_user_message(self, data: paramiko.Message) -> None:
        super()._send_user_message(data)  # type: ignore[misc]  # not in the stubs
        if data.asbytes()[0] == MSG_CHANNEL_SUCCESS and self.commands:
            self.commands.pop().start()


def line_of(channel: paramiko.Channel) -> Line:
    assert isinstance(channel.transport, Line)
    return channel.transport


class Hostile(paramiko.ServerInterface):
    """Lets everybody in, and plays a game for each command that `is_played`."""

    def __init__(
        self,
        host_key: paramiko.PKey,
        game: str,
        is_played: Callable[[bytes], bool] = lambda _: True,
        answer: Callable[[bytes], bytes] = lambda _: b"",
    ) -> None:
        self.host_key = host_key
        self._game = game
        self._is_played = is_played
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.transports: list[Line] = []
        self._lines: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for line in self._lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            self._lines.append(line)
            threading.Thread(target=self._begin, args=(line,), daemon=True).start()

    def _begin(self, line: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            if self._game in BEFORE:
                BEFORE[self._game][0](line)
                return
            transport = Line(line)
            self.transports.append(transport)
            transport.add_server_key(self.host_key)
            transport.start_server(server=self, event=threading.Event())

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        thread = threading.Thread(target=self._run, args=(channel, command), daemon=True)
        line_of(channel).commands.append(thread)
        return True

    def _run(self, channel: paramiko.Channel, command: bytes) -> None:
        mark = MARK.search(command)
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            if mark is None and b"grep" in command:  # for commands of before
                channel.send_exit_status(0)
            elif mark is None:
                line_of(channel).is_killing.set()
                silence(channel, b"")
            elif self._is_played(command):
                AFTER[self._game][0](channel, mark[0])
            else:
                out = self._answer(command)
                sending((2, b"MARK 12\n"), (1, out), (2, b"MARK 0 1.00 2.00\n"))(channel, mark[0])
            channel.close()


@contextlib.contextmanager
def serving(game: str, folder: Path) -> Iterator[Hostile]:
    """Serve a game; the key of the host is in the folder."""
    server = Hostile(new_key(folder / "host"), game)
    try:
        yield server
    finally:
        server.close()
