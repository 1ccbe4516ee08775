"""Commands over the second serial port: frames on QEMU's unix socket, to labagent in the guest."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
from pexpect import fdpexpect

from labctl.errors import DeadlineExceeded, GuestHung, GuestLost
from labctl.transports import Command, Outcome, Output, Stdin, frames, sockets
from labctl.transports.command import CommandTransport, ignored, too_much, words_of
from labctl.transports.frames import Frame, FrameType
from labctl.transports.stdin import Source

_READ_BYTES = 65536
_CHUNK_BYTES = 4096
# The input buffers of the guest's terminal and agent; excess bytes would be dropped.
_WINDOW_BYTES = 16384
_CONNECT_SECONDS = 5.0
_HELLO_AGAIN_SECONDS = 1.0
_ALIVE_SECONDS = 1.0
_GREETING_SECONDS = 30.0
# The agent waits up to 10 s for a killed command to exit.
_KILL_SECONDS = 15.0
# QEMU writes byte by byte. A reader that wakes for every few bytes takes the
# processor from the guest; letting some gather nearly doubles the rate. A unix
# socket holds about 277 such writes, so the pause must stay this short.
_GATHER_SECONDS = 0.0002
_FEW_BYTES = 200


class SerialTransport(CommandTransport):
    """One guest's command line over the unix socket of its second serial port.

    `alive` is called about once a second while a command runs; an exception from it ends
    the wait. The agent sends a heartbeat every second: after `silence_seconds` without a
    byte, the guest counts as hung.
    """

    def __init__(
        self,
        socket_path: Path,
        *,
        alive: Callable[[], None],
        silence_seconds: float = 30.0,
    ) -> None:
        self._path = socket_path
        self.where = str(socket_path)
        self._alive = alive
        self._silence_seconds = silence_seconds
        self._socket: socket.socket | None = None
        self._line: fdpexpect.fdspawn[bytes] | None = None
        self._greeted = False
        self._reader = frames.Reader()
        self._outgoing = bytearray()
        self._last_byte_seconds = 0.0
        self._last_alive_seconds = 0.0

    def run(
        self,
        command: Command,
        timeout_seconds: float,
        stdin: Stdin = b"",
        output: Output | None = None,
    ) -> Outcome:
        """Run an argument vector, or a string by `/bin/sh -c`; see `Transport.run`."""
        text, argv = words_of(command)
        words = b"".join(word + b"\0" for word in argv)
        self._greet()
        # An interrupted request leaves data on the line: the next request greets again.
        self._greeted = False
        request = os.urandom(frames.ID_BYTES)
        stream = _Stream(request, words, stdin)
        reply = _Reply(text, output, self.output_bytes, self.where)
        outcome = self._request(request, stream, reply, timeout_seconds)
        self._greeted = True
        return outcome

    def close(self) -> None:
        """Close the line; the next client's greeting kills a command that still runs."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._line = None
        self._greeted = False

    # --- one request ---------------------------------------------------------------------------

    def _greet(self) -> None:
        """Connect if needed and exchange greetings, which kills a command that still runs."""
        if self._greeted:
            return
        self._connect()
        self._outgoing.clear()
        request = os.urandom(frames.ID_BYTES)
        self._last_byte_seconds = began = time.monotonic()
        # Frames of an earlier command show that the guest lives, but not for ever.
        while time.monotonic() < began + max(_GREETING_SECONDS, self._silence_seconds):
            self._outgoing += frames.encode(FrameType.HELLO, request)
            for frame in self._frames_until(time.monotonic() + _HELLO_AGAIN_SECONDS):
                # Frames for an earlier client come first, possibly damaged.
                if frame and frame.type is FrameType.WELCOME and frame.id == request:
                    self._greeted = True
                    return
        raise GuestHung("the guest's agent sends data but no greeting", where=self.where)

    def _request(
        self, request: bytes, stream: _Stream, reply: _Reply, timeout_seconds: float
    ) -> Outcome:
        self._last_byte_seconds = time.monotonic()
        deadline = self._last_byte_seconds + timeout_seconds
        self._outgoing += stream.begin()
        if self._converse(stream, reply, deadline):
            return reply.outcome(self.where)
        self._outgoing += frames.encode(FrameType.KILL, request)
        reply.drop()
        deadline = time.monotonic() + max(_KILL_SECONDS, self._silence_seconds)
        # With an EXIT frame the line is clean; otherwise the next greeting cleans it.
        self._greeted = self._converse(stream, reply, deadline)
        raise DeadlineExceeded(
            f"`{reply.command}` timed out after {timeout_seconds:g} s and was killed",
            where=self.where,
        )

    def _converse(self, stream: _Stream, reply: _Reply, deadline: float) -> bool:
        """Send and receive until the command's end (True) or `deadline` (False)."""
        for frame in self._frames_until(deadline, stream):
            if frame is None or frame.type is FrameType.DAMAGED:
                raise self._lost(f"damaged frame of `{reply.command}`: invalid checksum")
            if frame.id != stream.request:
                continue
            if frame.type is FrameType.TAKEN:
                stream.take(frames.taken_of(frame), self.where)
            elif reply.take(frame):
                return True
            self._last_byte_seconds = time.monotonic()  # excludes the time of `output`
        return False

    # --- the line ------------------------------------------------------------------------------

    def _connect(self) -> None:
        if self._socket is not None:
            return
        deadline = time.monotonic() + _CONNECT_SECONDS
        try:
            line = sockets.connect(self._path, deadline, check=self._alive, until_served=True)
        except OSError as error:
            raise self._lost(f"command port closed: {error.strerror}") from error
        self._socket = line
        self._reader = frames.Reader()
        self._line = fdpexpect.fdspawn(line, maxread=_READ_BYTES, use_poll=True)

    def _frames_until(
        self, deadline: float, stream: _Stream | None = None
    ) -> Iterator[Frame | None]:
        """Send pending data and yield received frames until `deadline` (monotonic).

        A damaged frame is None.
        """
        while True:
            now = time.monotonic()
            if now - self._last_alive_seconds >= _ALIVE_SECONDS:
                self._last_alive_seconds = now
                self._alive()
            silent = self._last_byte_seconds + self._silence_seconds
            wait_seconds = min(_ALIVE_SECONDS, deadline - now, silent - now)
            if stream is not None:
                self._outgoing += stream.next()
            source = None if stream is None else stream.waits_for
            yield from self._reader.feed(self._exchange(wait_seconds, source))
            now = time.monotonic()
            if now - self._last_byte_seconds >= self._silence_seconds:
                raise GuestHung(
                    f"no response for {self._silence_seconds:g} s",
                    where=self.where,
                    hint="the guest hangs or is paused, or another labctl process holds its "
                    "command port",
                )
            if now >= deadline:
                return

    def _exchange(self, wait_seconds: float, source: int | None) -> bytes:
        """Wait for the line, write pending bytes and return received ones.

        The wait also ends when the descriptor `source` has data.
        """
        line = self._line
        if line is None:
            raise self._lost("command port closed")
        poll = select.poll()
        poll.register(line.child_fd, select.POLLIN | (select.POLLOUT if self._outgoing else 0))
        if source is not None:
            poll.register(source, select.POLLIN)
        events = dict(poll.poll(max(0.0, wait_seconds) * 1000)).get(line.child_fd, 0)
        try:
            if events & select.POLLOUT:
                sent = os.write(line.child_fd, self._outgoing[:_READ_BYTES])
                del self._outgoing[:sent]
            if events & ~select.POLLOUT:
                data: bytes = line.read_nonblocking(_READ_BYTES, timeout=0)
                self._last_byte_seconds = time.monotonic()
                if len(data) < _FEW_BYTES:
                    time.sleep(_GATHER_SECONDS)
                return data
        except (BlockingIOError, pexpect.TIMEOUT):
            pass
        except (pexpect.EOF, OSError) as error:
            self.close()
            raise self._lost("command port closed: QEMU exited") from error
        return b""

    def _lost(self, what: str) -> GuestLost:
        return GuestLost(what, where=self.where)


class _Reply:
    """The output received from one command so far."""

    def __init__(self, command: str, output: Output | None, most_bytes: int, where: str) -> None:
        self.command = command
        self._given = output
        self._most_bytes = most_bytes
        self._where = where
        self._output = {FrameType.STDOUT: bytearray(), FrameType.STDERR: bytearray()}
        self._bytes = dict.fromkeys(self._output, 0)
        self._end: frames.Exit | None = None

    def take(self, frame: Frame) -> bool:
        """Store a frame's payload, or pass it to `output`; return whether it was the last.

        Raises:
            BadOutput: the command printed more than is kept.
        """
        if frame.type in self._output:
            self._bytes[frame.type] += len(frame.payload)
            if self._given is None:
                self._output[frame.type] += frame.payload
                if sum(self._bytes.values()) > self._most_bytes:
                    raise too_much(self.command, self._most_bytes, self._where)
            else:
                self._given(1 if frame.type is FrameType.STDOUT else 2, frame.payload)
        elif frame.type is FrameType.EXIT:
            self._end = frames.exit_of(frame)
        return self._end is not None

    def drop(self) -> None:
        """Keep nothing of the output from now on: the command is being killed."""
        self._given = self._given or ignored

    def outcome(self, where: str) -> Outcome:
        """Return the outcome, once the last frame was taken."""
        assert self._end is not None
        stdout, stderr = map(bytes, self._output.values())
        end = self._end
        if (end.stdout_bytes, end.stderr_bytes) != tuple(self._bytes.values()):
            raise GuestLost(f"output of `{self.command}` is incomplete", where=where)
        return Outcome(self.command, end.status, stdout, stderr, end.nanoseconds / 1e9)


class _Stream:
    """The bytes sent to a command, argv then stdin, limited to the guest's buffer size."""

    def __init__(self, request: bytes, words: bytes, stdin: Stdin) -> None:
        self.request = request
        self.taken = 0  # by the guest, in bytes
        self._words_bytes = len(words)
        self._source = Source(words, stdin)
        self._sent = 0
        self._ended = False

    def begin(self) -> bytes:
        """Return the frame that announces it."""
        size = self._words_bytes.to_bytes(4, "little")
        return frames.encode(FrameType.RUN, self.request, size)

    def take(self, taken: int, where: str) -> None:
        """Note how many bytes the guest has consumed; raise GuestLost if it cannot be true."""
        if not self.taken <= taken <= self._sent:
            raise GuestLost("invalid TAKEN frame from the guest's agent", where=where)
        self.taken = taken

    @property
    def waits_for(self) -> int | None:
        """The descriptor to wait for, None if nothing of it could be sent now."""
        return self._source.waits_for if self._room() else None

    def _room(self) -> int:
        return max(0, self.taken + _WINDOW_BYTES - self._sent)

    def next(self) -> bytes:
        """Return the frames that can be sent now; never waits."""
        pieces = []
        while (room := self._room()) and (piece := self._source.peek(min(room, _CHUNK_BYTES))):
            self._source.advance(len(piece))
            pieces.append(frames.encode(FrameType.STREAM, self.request, piece))
            self._sent += len(piece)
        if self._source.ended and not self._ended:
            self._ended = True
            pieces.append(frames.encode(FrameType.END_OF_STREAM, self.request))
        return b"".join(pieces)
