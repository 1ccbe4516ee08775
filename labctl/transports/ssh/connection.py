"""A connection to an SSH server by fabric that only accepts the expected host key."""

from __future__ import annotations

import contextlib
import logging
import math
import socket
from collections.abc import Iterator
from typing import Any

import fabric
import paramiko
from paramiko.config import SSH_PORT
from paramiko.hostkeys import HostKeyEntry

from labctl.errors import GuestLost, HostError, UserError
from labctl.transports.ssh.address import SshAddress
from labctl.transports.ssh.bounded import BoundedTransport
from labctl.transports.stdin import Source

_WRITE_BYTES = 1 << 15

# Its log on stderr would repeat errors that are raised here.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class Broken(Exception):
    """The connection failed or was lost; a new attempt may succeed."""


class Connection:
    """One connection. Every method except `close` may block.

    Raises:
        Broken: from any method.
    """

    def __init__(self, address: SshAddress, patience_seconds: float) -> None:
        options: dict[str, Any] = dict.fromkeys(
            ("banner_timeout", "auth_timeout", "channel_timeout"), patience_seconds
        )
        options["transport_factory"] = BoundedTransport
        if address.key is not None:
            options |= {"key_filename": str(address.key), "look_for_keys": False}
            options |= {"allow_agent": False}
        self._address = address
        self._fabric = fabric.Connection(
            address.host,
            user=address.user,
            port=address.port,
            config=_configuration(user_file=address.ssh_config),
            connect_timeout=math.ceil(patience_seconds),
            connect_kwargs=options,
        )
        _pin(self._fabric, address)

    def open(self) -> None:
        """Connect, check the host key, and log in.

        Raises:
            GuestLost: host key mismatch, or authentication failed.
            HostError: unknown host key.
            UserError: host not found.
        """
        address, where = self._address, str(self._address)
        try:
            with _breaking():
                self._fabric.open()
        except paramiko.BadHostKeyException as error:
            raise GuestLost(
                f"{address.host}: host key mismatch",
                where=where,
                hint="another host has this address, or the target was reinstalled",
            ) from error
        except paramiko.AuthenticationException as error:
            raise GuestLost(
                f"{address.host}: authentication failed: {error}",
                where=where,
                hint="add your public key to its authorized_keys",
            ) from error
        except _UnknownHostError as error:
            raise HostError(
                f"{address.host}: unknown host key",
                where=where,
                hint="connect once with ssh and compare the fingerprint",
            ) from error
        except socket.gaierror as error:
            raise UserError(f"{address.host}: host not found", where=where) from error
        # TCP_NODELAY: a request is several small packets that need not wait for answers.
        line = self._fabric.transport.sock
        if isinstance(line, socket.socket):  # with a jump host it is a channel
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def session(self) -> paramiko.Channel:
        """Open a session without a command."""
        with _breaking():
            channel: paramiko.Channel = self._fabric.create_session()
        return channel

    def execute(self, line: bytes, session: paramiko.Channel | None = None) -> paramiko.Channel:
        """Start a command line in the login shell, in a new session if none is given."""
        with _breaking():
            channel = self.session() if session is None else session
            # Bytes, since file names need not be valid UTF-8.
            channel.exec_command(line)
        return channel

    def ask(self) -> None:
        """Wait for a reply to an unknown request: a rejection also shows a live server."""
        with _breaking():
            self._fabric.transport.global_request("keepalive@openssh.com")

    def close(self) -> None:
        """Close the connection."""
        self._fabric.close()


@contextlib.contextmanager
def _breaking() -> Iterator[None]:
    try:
        yield
    except (
        paramiko.BadHostKeyException,
        paramiko.AuthenticationException,
        socket.gaierror,
        _UnknownHostError,
    ):
        raise
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise Broken(str(error) or type(error).__name__) from error


class _UnknownHostError(paramiko.SSHException):
    """The host key is unknown."""


class _Refuse(paramiko.MissingHostKeyPolicy):
    """Reject unknown host keys; fabric's default accepts them."""

    def missing_host_key(self, client: object, hostname: str, key: object) -> None:  # noqa: ARG002
        raise _UnknownHostError(hostname)


def _pin(connection: Any, address: SshAddress) -> None:  # noqa: ANN401 - a fabric.Connection
    """Make a connection accept only the expected host key."""
    client = connection.client
    client.set_missing_host_key_policy(_Refuse())
    if address.host_key is None:
        known = address.known_hosts
        client.load_system_host_keys(None if known is None else str(known))
        return
    host, port = connection.host, connection.port
    name = host if port == SSH_PORT else f"[{host}]:{port}"
    entry = HostKeyEntry.from_line(f"{name} {address.host_key}")
    if entry is None or entry.key is None:
        raise HostError(f"{address.host_key!r} is not an SSH host key", where=str(address))
    client.get_host_keys().add(name, entry.key.get_name(), entry.key)


def _configuration(*, user_file: bool) -> Any:  # noqa: ANN401 - a fabric.Config
    """Return fabric's configuration; it reads ~/.ssh/config only with `user_file`."""
    config = fabric.Config(lazy=True)
    if user_file:
        config.load_ssh_config()
    return config


class Input:
    """The stdin of a command, sent as fast as the server accepts it."""

    def __init__(self, channel: paramiko.Channel, source: Source) -> None:
        self._channel = channel
        self._source = source
        self.ended = False

    @property
    def waits_for(self) -> int | None:
        """The descriptor to wait for, None if nothing can be sent now."""
        return self._source.waits_for if self._channel.send_ready() else None

    def can_push(self) -> bool:
        """Return whether data or end of file is pending and the server accepts it."""
        return not self.ended and self._channel.send_ready() and self._source.is_ready()

    def push(self) -> None:
        """Send pending data and end of file; block while the connection's buffers are full."""
        try:
            while self._channel.send_ready() and (piece := self._source.peek(_WRITE_BYTES)):
                self._source.advance(self._channel.send(piece))
            if self._source.ended:
                self._channel.shutdown_write()
        except OSError:
            self._source.drop()  # the command has exited: nothing will read it
        self.ended = self._source.ended
