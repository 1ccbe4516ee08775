"""`SshTransport`: run commands over SSH and return their exact outcome."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from labctl.errors import DeadlineExceeded, GuestHung, GuestLost
from labctl.transports import Command, Outcome, Output, Stdin
from labctl.transports.calls import Call
from labctl.transports.command import CommandTransport, words_of
from labctl.transports.shell import Reply, Request, kill_line, sweep_line
from labctl.transports.ssh.address import SshAddress
from labctl.transports.ssh.connection import Broken, Connection, Input
from labctl.transports.stdin import Source

if TYPE_CHECKING:
    from paramiko import Channel

Result = TypeVar("Result")
_READ_BYTES = 1 << 20
_CONNECT_SECONDS = 5.0
_AGAIN_SECONDS = 0.05
_ALIVE_SECONDS = 1.0
_BEAT_SECONDS = 1.0
_KILL_SECONDS = 15.0
# Polling interval for the peer's window and the end of the session.
_STEP_SECONDS = 0.002


class SshTransport(CommandTransport):
    """One host's command line over SSH.

    `alive` is called about once a second while a command runs; an exception from it ends
    the wait. The server is sent a keepalive every second: after `silence_seconds` without
    a reply, the host counts as hung. `owner` identifies the commands: those left running
    by a broken connection are killed when the same owner connects again.
    """

    def __init__(
        self,
        address: SshAddress,
        *,
        alive: Callable[[], None],
        owner: str,
        silence_seconds: float = 30.0,
        connect_seconds: float = _CONNECT_SECONDS,
    ) -> None:
        self._address = address
        self.where = str(address)
        self._alive = alive
        self._owner = owner
        self._silence_seconds = silence_seconds
        self._connect_seconds = connect_seconds
        self._connection: Connection | None = None
        self._beat: Call[None] | None = None
        self._last_heard_seconds = 0.0
        self._last_alive_seconds = 0.0

    def run(
        self,
        command: Command,
        timeout_seconds: float,
        stdin: Stdin = b"",
        output: Output | None = None,
    ) -> Outcome:
        """Run an argument vector, or a string by `/bin/sh -c`; see `Transport.run`.

        `Outcome.seconds` comes in steps of 10 ms, the resolution of /proc/uptime.
        """
        text, words = words_of(command)
        request = Request.of(text, words, self._owner)
        source = Source(request.ahead, stdin)
        reply = Reply(request, output, most_bytes=self.output_bytes, where=self.where)
        try:
            return self._request(*self._session(), source, reply, timeout_seconds)
        except DeadlineExceeded:
            raise  # the command was killed; the connection can be used again
        except Broken as error:
            self.close()
            raise self._lost(f"SSH connection lost: {error}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; a running command is killed when its owner reconnects."""
        connection, self._connection = self._connection, None
        self._beat = None
        if connection is not None:
            connection.close()

    # --- one request ---------------------------------------------------------------------------

    def _session(self) -> tuple[Connection, Channel]:
        """Return a connection and a new session on it."""
        known = self._connection
        if known is not None:
            try:
                return known, self._watched(known.session)
            except Broken:
                # The connection broke between two commands, or the server closed it after
                # a message for a session that had just ended. No command was started yet,
                # so connect again.
                self.close()
        connection = self._connected()
        return connection, self._watched(connection.session)

    def _request(
        self,
        connection: Connection,
        session: Channel,
        source: Source,
        reply: Reply,
        timeout_seconds: float,
    ) -> Outcome:
        deadline = time.monotonic() + timeout_seconds
        request = reply.request
        channel = self._watched(lambda: connection.execute(request.line, session))
        if self._converse(connection, channel, source, reply, deadline):
            return reply.outcome(self.where)
        # If the process group is unknown, the next connection kills the command.
        killed = reply.group is not None and self._ended(connection, kill_line(reply.group))
        patience = time.monotonic() + _KILL_SECONDS
        source.drop()
        reply.drop()
        if not killed or not self._converse(connection, channel, source, reply, patience):
            self.close()
        raise DeadlineExceeded(
            f"`{request.text}` timed out after {timeout_seconds:g} s and was killed",
            where=self.where,
        )

    def _ended(self, connection: Connection, line: bytes) -> bool:
        """Run a line and discard its output; return whether it finished in time."""
        channel = self._watched(lambda: connection.execute(line))
        deadline = time.monotonic() + max(_KILL_SECONDS, self._silence_seconds)
        reply = Reply(Request("", b"", line))
        return self._converse(connection, channel, Source(b"", b""), reply, deadline)

    def _converse(
        self,
        connection: Connection,
        channel: Channel,
        source: Source,
        reply: Reply,
        deadline: float,
    ) -> bool:
        """Send and receive; return True at the end of the session, False at `deadline`."""
        stream = Input(channel, source)
        self._last_heard_seconds = time.monotonic()
        while True:
            closed = channel.closed  # read before the data: then no data before the end is missed
            now = time.monotonic()
            if _take(channel, reply):
                # Not `now`: the consumer of the output may have been slow.
                self._last_heard_seconds = time.monotonic()
            elif closed:
                return True
            if now >= deadline:
                return False
            self._watch(connection)
            if stream.can_push():
                self._watched(stream.push)
            # At the end of its output a channel is always ready, and not yet closed.
            if channel.eof_received:
                time.sleep(_STEP_SECONDS)
            elif stream.ended or stream.waits_for is not None:
                wait_seconds = max(0.0, min(_BEAT_SECONDS, deadline - now))
                _wait(channel.fileno(), stream.waits_for, wait_seconds)
            else:
                _wait(channel.fileno(), None, _STEP_SECONDS)

    # --- the connection ------------------------------------------------------------------------

    def _connected(self) -> Connection:
        if self._connection is not None:
            return self._connection
        deadline = time.monotonic() + self._connect_seconds
        while True:
            connection = Connection(self._address, self._silence_seconds + _BEAT_SECONDS)
            try:
                self._watched(connection.open)
                break
            except Broken as error:
                connection.close()
                self._alive()
                if time.monotonic() >= deadline:
                    raise self._lost(f"cannot connect by SSH: {error}") from error
            except BaseException:
                connection.close()
                raise
            time.sleep(_AGAIN_SECONDS)
        self._connection = connection
        if not self._ended(connection, sweep_line(self._owner)):
            raise GuestHung("shell does not respond", where=self.where)
        return connection

    def _watched(self, function: Callable[[], Result]) -> Result:
        """Return the result of a blocking function; check the host while it runs."""
        self._last_heard_seconds = time.monotonic()
        call = Call(function)
        while not call.done.wait(_ALIVE_SECONDS):
            self._check(waiting=True)
        return call.result()

    def _watch(self, connection: Connection) -> None:
        """Send a keepalive if the server was quiet, and check that it replies."""
        if self._beat is not None and self._beat.done.is_set():
            self._beat = None
            self._last_heard_seconds = time.monotonic()
        quiet_seconds = time.monotonic() - self._last_heard_seconds
        if self._beat is None and quiet_seconds >= _BEAT_SECONDS:
            self._beat = Call(connection.ask)
        self._check(waiting=self._beat is not None)

    def _check(self, *, waiting: bool) -> None:
        now = time.monotonic()
        if now - self._last_alive_seconds >= _ALIVE_SECONDS:
            self._last_alive_seconds = now
            self._alive()
        if waiting and now - self._last_heard_seconds >= self._silence_seconds:
            raise GuestHung(
                f"no response for {self._silence_seconds:g} s",
                where=self.where,
                hint="the guest hangs or is paused",
            )

    def _lost(self, what: str) -> GuestLost:
        return GuestLost(what, where=self.where)


def _wait(channel: int, source: int | None, wait_seconds: float) -> None:
    """Wait for data on the channel or from the source of its input."""
    poll = select.poll()
    for descriptor in (channel, source):
        if descriptor is not None:
            poll.register(descriptor, select.POLLIN)
    poll.poll(1000 * wait_seconds)


def _take(channel: Channel, reply: Reply) -> bool:
    """Receive from both outputs; return whether there was any data."""
    out, errors = channel.recv_ready(), channel.recv_stderr_ready()
    if out:
        reply.take(1, channel.recv(_READ_BYTES))
    if errors:
        reply.take(2, channel.recv_stderr(_READ_BYTES))
    return out or errors
