"""Programs of this host: whether they are installed, and their versions."""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from labctl import proc, signals
from labctl.arch import X86_64, Architecture
from labctl.errors import CommandError, HostError, LabError

# The commands whose output nearly every build or boot needs.
VERSIONS = tuple((program, "--version") for program in (X86_64.qemu, "gcc", "ld"))
_SECONDS = 30.0


def qemu_version(arch: Architecture = X86_64) -> str:
    """Return QEMU's version, empty if it is not installed."""
    try:
        version = version_text(arch.qemu)
    except (HostError, CommandError):
        return ""
    found = re.search(r"version (\S+)", version)
    return found[1] if found else ""


def version_text(program: str) -> str:
    """Return the output of `PROGRAM --version`; raises as `output` does."""
    return output((program, "--version"))


def output(argv: tuple[str, ...], *, wait_seconds: float | None = None) -> str:
    """Return the output of a command, kept until its program's files change.

    The output is empty if the command needs longer than `wait_seconds`.

    Raises:
        HostError: the program is not installed.
        CommandError: it fails.
    """
    return _answer(argv).text(wait_seconds)


def ask_ahead(*commands: tuple[str, ...]) -> None:
    """Start commands whose `output` is wanted soon; returns at once, errors come there."""
    for argv in commands:
        _answer(argv)


class _Answer:
    """The output of a command that a thread of its own waits for."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = argv
        self._text = ""
        self._error: LabError | None = None
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        try:
            self._text = proc.run(self._argv, timeout_seconds=_SECONDS).text
        except LabError as error:
            self._error = error

    def text(self, wait_seconds: float | None) -> str:
        deadline = time.monotonic() + (math.inf if wait_seconds is None else wait_seconds)
        while self._thread.is_alive() and (left := deadline - time.monotonic()) > 0:
            # In steps, so that signals are handled in between.
            self._thread.join(min(signals.STEP_SECONDS, left))
        if self._error:
            raise self._error
        return self._text


_answers: dict[tuple[object, ...], _Answer] = {}


def _answer(argv: tuple[str, ...]) -> _Answer:
    key = (argv, *_files_of(argv[0]))
    if key not in _answers:
        _answers[key] = _Answer(argv)
    return _answers[key]


def _files_of(program: str) -> Iterator[tuple[str, int, int, int]]:
    # All programs of the name on PATH, since the first may wrap the next, like ccache's gcc.
    for folder in os.get_exec_path():
        with contextlib.suppress(OSError):
            path = os.path.realpath(Path(folder, program))
            info = Path(path).stat()
            yield path, info.st_ino, info.st_size, info.st_mtime_ns


def check_installed(
    programs: Iterable[str], arch: Architecture = X86_64, hint: str | None = None
) -> None:
    """Check that programs for guests of `arch` are on PATH.

    Raises:
        HostError: programs are missing; without `hint`, the hint has the command that
            installs those of the architecture.
    """
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        is_or_are = "is" if len(missing) == 1 else "are"
        raise HostError(f"{', '.join(missing)} {is_or_are} not installed", hint=hint or arch.hint)
