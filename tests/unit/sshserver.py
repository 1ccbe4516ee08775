"""An SSH server on loopback that runs what it is asked for on this host."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from pathlib import Path

import paramiko
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    MSG_CHANNEL_SUCCESS,
    OPEN_SUCCEEDED,
)


def new_key(path: Path) -> paramiko.PKey:
    """Write a private key, and return it."""
    secret = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
    )
    path.write_bytes(secret)
    path.chmod(0o600)
    return paramiko.Ed25519Key.from_private_key_file(str(path))


def public(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.get_base64()}"


class Line(paramiko.Transport):
    """Begins a command when its request is answered, as other servers do.

    By paramiko alone a quick command could end its session before the answer is out.
    """

    def __init__(self, line: socket.socket) -> None:
        super().__init__(line)
        self.commands: list[threading.Thread] = []

    def _send_user_message(self, data: paramiko.Message) -> None:
        super()._send_user_message(data)  # type: ignore[misc]  # not in the stubs
        if data.asbytes()[0] == MSG_CHANNEL_SUCCESS and self.commands:
            self.commands.pop().start()


class Server(paramiko.ServerInterface):
    """Serves one key's owner; `groups`: each command leads a process group, as with OpenSSH."""

    def __init__(self, host_key: paramiko.PKey, client_key: paramiko.PKey) -> None:
        self.host_key = host_key
        self._client_key = client_key
        self.groups = False
        self.silent = False  # a machine that hangs: accepts, and answers nothing
        self.connections: list[paramiko.Transport] = []
        self._silenced: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # the thread in accept() would keep it open
        self._listener.close()
        self.drop()
        for each in self._silenced:
            each.close()

    def drop(self) -> None:
        """Cut all connections."""
        for each in self.connections:
            each.close()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            if self.silent:
                self._silenced.append(line)
                continue
            transport = Line(line)
            transport.add_server_key(self.host_key)
            transport.start_server(server=self, event=threading.Event())
            self.connections.append(transport)

    # --- what paramiko asks --------------------------------------------------------------------

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return AUTH_SUCCESSFUL if key == self._client_key else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        command_thread = threading.Thread(target=self._run, args=(channel, command), daemon=True)
        assert isinstance(channel.transport, Line)
        channel.transport.commands.append(command_thread)
        return True

    def _run(self, channel: paramiko.Channel, command: bytes) -> None:
        child = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=self.groups,
        )
        pumps = [
            threading.Thread(target=_pump, args=(child.stdout, channel.sendall)),
            threading.Thread(target=_pump, args=(child.stderr, channel.sendall_stderr)),
        ]
        for pump in pumps:
            pump.start()
        feeder = threading.Thread(target=_feed, args=(channel, child), daemon=True)
        feeder.start()
        status = child.wait()
        for pump in pumps:
            pump.join()
        if status >= 0:
            channel.send_exit_status(status)
        channel.close()


def _pump(source, send) -> None:
    # The client may have gone: then paramiko's errors are of several kinds.
    with source, contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        while data := os.read(source.fileno(), 65536):
            send(data)


def _feed(channel: paramiko.Channel, child: subprocess.Popen) -> None:
    assert child.stdin is not None
    while data := channel.recv(65536):
        try:
            child.stdin.write(data)
            child.stdin.flush()
        except OSError:
            break
    try:
        child.stdin.close()
    except OSError:
        return


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
