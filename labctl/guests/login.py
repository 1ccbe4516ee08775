"""SSH login to guests: the lab's key, and the files that a guest needs."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from labctl.files import naming, replace, unfinished, unlink
from labctl.guests.bundle import bundle
from labctl.guests.initramfs import source_folder
from labctl.lab.state import StateFolder
from labctl.transports.ssh.address import SshAddress

_PACKAGE = "dropbear-bin"
_START = "/etc/labctl/ssh-start"
_AUTHORIZED_KEYS = "/root/.ssh/authorized_keys"


def key(state: Path) -> Path:
    """Return the file of the lab's private key, created if missing.

    The public key is in the same folder, with the suffix .pub.
    """
    path = StateFolder(state).ssh_key
    if not path.exists():
        _make(path)
    if not _public(path).exists():
        _derive(path)
    return path


def files(state: Path) -> dict[str, Path]:
    """Return the files of the SSH server for the initramfs, by their path in the guest.

    Raises:
        HostError: dropbear is not installed.
    """
    return {
        **bundle("dropbear", _PACKAGE),
        **bundle("dropbearkey", _PACKAGE),
        _START: source_folder() / "ssh" / "start.sh",
        _AUTHORIZED_KEYS: _public(key(state)),
    }


def beside_programs(state: Path) -> dict[str, Path]:
    """Return the SSH files for a guest whose root is not the initramfs, by name.

    The SSH server itself comes from that root.
    """
    start = source_folder() / "ssh" / "start.sh"
    return {"ssh-start": start, "authorized_keys": _public(key(state))}


def fragment() -> Path:
    """Return the kconfig fragment with the options for SSH."""
    return source_folder() / "kconfig" / "ssh.config"


def client(
    address: SshAddress, known_hosts: Path, command: Sequence[str], *, terminal: bool
) -> list[str]:
    """Return the argument vector of OpenSSH's client for a session at `address`.

    A single word of `command` is run by the guest's shell, several without a shell; an
    empty command logs in. The expected host key is written to `known_hosts`.
    """
    replace(known_hosts, f"[{address.host}]:{address.port} {address.host_key}\n")
    options = {
        "BatchMode": "yes",
        "GlobalKnownHostsFile": "none",
        "IdentitiesOnly": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": f'"{_plain(known_hosts)}"',
    }
    words = ["ssh", "-F", "none", "-i", _plain(address.key), "-p", str(address.port)]
    for name, value in options.items():
        words += ["-o", f"{name}={value}"]
    words += ["-t"] if terminal and command else []
    words += ["-l", str(address.user), address.host]
    return words if not command else [*words, "--", *_line(command)]


def _line(command: Sequence[str]) -> list[str]:
    return [command[0] if len(command) == 1 else shlex.join(command)]


def _plain(path: Path | None) -> str:
    """Return a path with `%` escaped (ssh_config(5), TOKENS)."""
    return str(path).replace("%", "%%")


def _public(path: Path) -> Path:
    return path.with_suffix(".pub")


def _make(path: Path) -> None:
    # Imported late: slow, and only needed once in labs with `transport: ssh`.
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    secret = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    with _written(path, secret) as partial, contextlib.suppress(FileExistsError):
        os.link(partial, path)  # if two labctls create a key, both use the first


def _derive(path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    secret = serialization.load_ssh_private_key(path.read_bytes(), None)
    public = secret.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    with _written(_public(path), public + b" labctl\n") as partial:
        partial.replace(_public(path))


@contextlib.contextmanager
def _written(path: Path, content: bytes) -> Iterator[Path]:
    """Yield a temporary file next to `path` that only the owner can read; remove it at the end."""
    partial = unfinished(path)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with naming(path), os.fdopen(descriptor, "wb") as file:
            file.write(content)
        yield partial
    finally:
        unlink(partial)
