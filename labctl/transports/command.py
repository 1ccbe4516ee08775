"""Commands and file copies, as shared by all transports."""

from __future__ import annotations

import contextlib
import gzip
import os
import shlex
import stat
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from labctl import files
from labctl.errors import BadOutput, GuestError, GuestLost, HostError, UserError
from labctl.transports import Command, Outcome, Transport
from labctl.units import rough_size

_LARGEST_ARGV_BYTES = 1 << 20
_COPY_SECONDS = 600.0
_LONGEST_ERRORS = 4096
_GZIP = 16 + zlib.MAX_WBITS
_PIECE_BYTES = 1 << 20
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


def ignored(_number: int, _data: bytes) -> None:
    """Take the output of a command of which nothing is kept."""


def too_much(command: str, most_bytes: int, where: str) -> BadOutput:
    """Return the error of a command that printed more than is kept of it."""
    return BadOutput(
        f"output of `{command}` is larger than {rough_size(most_bytes)}",
        where=where,
        hint="raise `limits: output:` under `defaults:` in lab.yaml, or let it print less",
    )


class CommandTransport(Transport):
    """A transport that copies files by commands; `where` names the guest in errors.

    `output_bytes` limits the output of a command that is kept, `file_bytes` a file that
    is copied out of the guest.
    """

    where: str
    output_bytes: int = 32 << 20
    file_bytes: int = 64 << 20

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
        content = bytearray()
        self._copy(remote, content.extend)
        return bytes(content)

    def get_file(self, remote: str, local: Path) -> None:
        """Copy a file out of the guest, whole or not at all, without holding it in memory.

        Raises:
            HostError: the local file cannot be written.
            GuestError: the guest could not read it.
        """
        temporary = files.unfinished(local)
        with _writing(local):
            file = temporary.open("xb")

        def write(data: bytes) -> None:
            with _writing(local):
                file.write(data)

        try:
            with file:
                self._copy(remote, write)
                with _writing(local):
                    file.flush()
            with _writing(local):
                temporary.replace(local)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _copy(self, remote: str, write: Callable[[bytes], object]) -> None:
        """Pass the content of a file in the guest to `write`, piece by piece."""
        unpacked = _Unpacked(remote, self.file_bytes, self.where, write)
        command = ["/bin/sh", "-c", _GET, "sh", remote]
        outcome = self.run(command, _COPY_SECONDS, output=unpacked.take)
        _check(replace(outcome, stderr=bytes(unpacked.errors)), "read", remote, self.where)
        unpacked.check_end()


@contextlib.contextmanager
def _writing(local: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HostError(
            f"cannot write {local}: {error.strerror}", hint="free disk space, or use another folder"
        ) from error


class _Unpacked:
    """A gzip stream of a guest, decompressed as it comes, up to a limit."""

    def __init__(
        self, remote: str, most_bytes: int, where: str, write: Callable[[bytes], object]
    ) -> None:
        self._remote, self._most_bytes, self._where = remote, most_bytes, where
        self._write = write
        self._stream = zlib.decompressobj(_GZIP)
        self._bytes = 0
        self.errors = bytearray()

    def take(self, number: int, data: bytes) -> None:
        """Take a piece of standard output (1) or standard error (2)."""
        if number == 2:
            self.errors += data[: _LONGEST_ERRORS - len(self.errors)]
            return
        if self._stream.eof:
            raise self._damaged()
        is_more = True
        while is_more and not self._stream.eof:
            try:
                piece = self._stream.decompress(data, _PIECE_BYTES)
            except zlib.error as error:
                raise self._damaged() from error
            self._bytes += len(piece)
            if self._bytes > self._most_bytes:
                raise BadOutput(
                    f"{self._remote} is larger than {rough_size(self._most_bytes)}",
                    where=self._where,
                    hint="raise `limits: file:` under `defaults:` in lab.yaml",
                )
            self._write(piece)
            data = self._stream.unconsumed_tail
            is_more = bool(data) or len(piece) == _PIECE_BYTES

    def check_end(self) -> None:
        """Check that the stream is whole.

        Raises:
            GuestLost: the stream is damaged or incomplete.
        """
        if not self._stream.eof:
            raise self._damaged()

    def _damaged(self) -> GuestLost:
        return GuestLost(f"{self._remote}: incomplete transfer", where=self._where)


def _check(outcome: Outcome, verb: str, remote: str, where: str) -> None:
    if outcome.status != 0:
        why = outcome.stderr[:_LONGEST_ERRORS].decode("utf-8", "replace").strip()
        raise GuestError(f"the guest cannot {verb} {remote}: {why}", where=where)
