"""The address of an SSH server, with its host key and the user's key. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SshAddress:
    """The address of an SSH server, the user's identity and the expected host key.

    Without `key`, the user's agent and default keys are tried. Only `host_key`
    ("ssh-ed25519 AAAA…") is accepted; without it, the server must be in `known_hosts`, by
    default ~/.ssh/known_hosts. With `ssh_config`, aliases, jump hosts, users and ports of
    ~/.ssh/config apply.
    """

    host: str
    port: int | None = None
    user: str | None = None
    key: Path | None = None
    host_key: str | None = None
    known_hosts: Path | None = None
    ssh_config: bool = False

    def __str__(self) -> str:
        name = f"{self.user}@{self.host}" if self.user else self.host
        return f"{name} port {self.port}" if self.port else name
