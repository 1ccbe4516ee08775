"""A hostile SSH server in a guest: labctl answers in time, and in little memory."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hostilessh import AFTER, BEFORE, serving
from sshserver import new_key, public
from test_hostile_guest import OUTPUT_BYTES, SECONDS, ends_with

from labctl.transports.ssh import SshAddress
from labctl.transports.ssh.transport import SshTransport

# The window is 2 MiB, and sockets hold some more.
MOST_BEYOND_BYTES = 32 << 20


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labctl.transports.ssh.transport._KILL_SECONDS", SECONDS)


# One of those that differ in the kind of message alone; `tests/chaos --games` plays all.
ALIKE = {
    *("debug messages for ever", "ignored messages for ever", "channels for ever"),
    *("exit statuses for ever", "forged ends for ever"),
}


@pytest.mark.parametrize("game", [one for one in (BEFORE | AFTER) if one not in ALIKE])
def test_a_command_over_ssh_ends(tmp_path: Path, game: str) -> None:
    new_key(tmp_path / "client")
    with serving(game, tmp_path) as server:
        where = SshAddress(
            "127.0.0.1",
            server.port,
            "root",
            key=tmp_path / "client",
            host_key=public(server.host_key),
        )
        line = SshTransport(
            where, alive=lambda: None, owner=game, silence_seconds=1.5, connect_seconds=SECONDS
        )
        line.output_bytes = OUTPUT_BYTES
        expected = (BEFORE | AFTER)[game][1]  # type: ignore[operator]
        with ends_with(expected, tmp_path), contextlib.closing(line):
            line.run("true", 4 * SECONDS)
        assert sum(one.beyond_bytes for one in server.transports) < MOST_BEYOND_BYTES
