"""The log of the commands that labctl starts: commands at INFO, their output at DEBUG."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from labctl.printable import layout, printable

LOGGER = logging.getLogger("labctl.commands")
FILE_NAME = "commands.log"
# Enough for an error message; a build prints megabytes, which are in its own log.
_LARGEST_OUTPUT_BYTES = 16 * 1024


def command(words: Sequence[str], cwd: Path | None, log: Path | None = None) -> None:
    """Log a command as a line for a shell; `log` is the file that gets its output."""
    if LOGGER.isEnabledFor(logging.INFO):
        folder = "" if cwd is None else f"[in {cwd}] "
        redirection = "" if log is None else f" >> {shlex.quote(str(log))}"
        LOGGER.info("%s", printable(f"+ {folder}{shlex.join(words)}{redirection}"))


def output(*streams: bytes) -> None:
    """Log the output of a command, at most its last 16 KiB."""
    if LOGGER.isEnabledFor(logging.DEBUG):
        end = b"".join(data[-_LARGEST_OUTPUT_BYTES:] for data in streams)
        _output(end[-_LARGEST_OUTPUT_BYTES:], sum(map(len, streams)))


@contextlib.contextmanager
def appending(log: Path | None) -> Iterator[IO[bytes] | None]:
    """Open the log of a program; at the block's end, log what the program appended to it."""
    if log is None:
        yield None
        return
    with log.open("ab") as file:
        start = file.tell() if file.seekable() else None
        try:
            yield file
        finally:
            if start is not None:
                _appended(log, start)


def _appended(log: Path, start: int) -> None:
    if LOGGER.isEnabledFor(logging.DEBUG):
        with contextlib.suppress(OSError), log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - _LARGEST_OUTPUT_BYTES))
            _output(file.read(_LARGEST_OUTPUT_BYTES), size - start)


def _output(end: bytes, size: int) -> None:
    """Log the last bytes of an output of `size` bytes."""
    if not end:
        return
    lines = layout(end.decode("utf-8", "replace")).splitlines()
    if size > len(end):
        lines.insert(0, f"[{size - len(end)} bytes omitted]")
    LOGGER.debug("%s", "\n".join(f"  | {line}" for line in lines))


class RunLog(logging.Handler):
    """Keeps messages in memory until the folder of the run exists, then appends to a file."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._kept: list[str] = []
        self._path: Path | None = None

    def use(self, folder: Path) -> None:
        """Write the messages so far, and all that follow, to a file in the run's folder."""
        self._path = folder / FILE_NAME
        self._write("".join(self._kept))
        self._kept.clear()

    def emit(self, record: logging.LogRecord) -> None:
        """Write or keep a message."""
        text = f"{self.format(record)}\n"
        if self._path is None:
            self._kept.append(text)
        else:
            self._write(text)

    def _write(self, text: str) -> None:
        # The log is an aid: if the disk is full, the store of the samples reports it.
        if self._path is not None:
            with contextlib.suppress(OSError), self._path.open("a", errors="replace") as file:
                file.write(text)


@contextlib.contextmanager
def handled_by(handler: logging.Handler, level: int) -> Iterator[None]:
    """Have a handler receive the messages of this level and above during the block."""
    before = LOGGER.level
    handler.setLevel(level)
    LOGGER.addHandler(handler)
    LOGGER.setLevel(min(level, before or level))
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(before)


@contextlib.contextmanager
def of_run() -> Iterator[RunLog]:
    """Log all commands and their output during the block for the log of a run."""
    log = RunLog()
    with handled_by(log, logging.DEBUG):
        yield log
