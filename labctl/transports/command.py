"""Commands and file copies, as shared by all transports."""

from __future__ import annotations

import gzip
import os
import shlex
import stat
import zlib
from pathlib import Path

from labctl.errors import GuestError, GuestLost, UserError
from labctl.transports import Command, Outcome, Transport

_LARGEST_ARGV_BYTES = 1 << 20
_COPY_SECONDS = 600.0
_PUT = 'gunzip -c >"$1.part" && chmod "$2" "$1.part" && mv -f "$1.part" "$1"'
_GET = 'exec gzip -1 -c <"$1"'


def words_of(command: Command) -> tuple[str, list[bytes]]:
    """Return a command as text for messages, and its argument vector.

    A string becomes an argument of `/bin/sh -c`.

    Raises:
        UserError: the command is empty, contains a NUL byte, or is longer than 1 MiB.
    """
    argv = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
    text = command if isinstance(command, str) else shlex.join(argv)
    words = [os.fsencode(word) for word in argv]
    if not words or not words[0]:
        raise UserError("guest command is empty")
    if any(b"\0" in word for word in words):
        raise UserError("guest command contains a NUL byte")
    if sum(len(word) + 1 for word in words) > _LARGEST_ARGV_BYTES:
        raise UserError("guest command is longer than 1 MiB", hint="pass it as stdin")
    return text, words


class CommandTransport(Transport):
    """A transport that copies files by commands; `where` names the guest in errors."""

    where: str

    def put(self, local: Path, remote: str) -> None:
        """Copy a file into the guest, whole or not at all; the executable bit is kept.

        Raises:
            UserError: the local file cannot be read.
            GuestError: the guest could not write it.
        """
        try:
            content = local.read_bytes()
            mode = "755" if local.stat().st_mode & stat.S_IXUSR else "644"
        except OSError as error:
            raise UserError(f"cannot read {local}: {error.strerror}") from error
        command = ["/bin/sh", "-c", _PUT, "sh", remote, mode]
        outcome = self.run(command, _COPY_SECONDS, gzip.compress(content))
        _check(outcome, "write", remote, self.where)

    def get(self, remote: str) -> bytes:
        """Return the content of a file in the guest.

        Raises:
            GuestError: the guest could not read it.
        """
        outcome = self.run(["/bin/sh", "-c", _GET, "sh", remote], _COPY_SECONDS)
        _check(outcome, "read", remote, self.where)
        try:
            return gzip.decompress(outcome.stdout)
        except (OSError, EOFError, zlib.error) as error:
            raise GuestLost(f"{remote}: incomplete transfer", where=self.where) from error


def _check(outcome: Outcome, verb: str, remote: str, where: str) -> None:
    if outcome.status != 0:
        why = outcome.stderr.decode("utf-8", "replace").strip()
        raise GuestError(f"the guest cannot {verb} {remote}: {why}", where=where)
