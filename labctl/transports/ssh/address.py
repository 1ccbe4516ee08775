"""Where an SSH server is, and how both sides prove who they are. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SshAddress:
    """Where an SSH server is, who we are to it, and how it proves who it is.

    Without `key` the user's agent and default keys are tried. `host_key`
    ("ssh-ed25519 AAAA…") is the only one that is accepted; without it the server
    must be in `known_hosts`, by default the user's own. With `ssh_config` the
    user's ~/.ssh/config is honoured: aliases, jump hosts, users and ports.
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
