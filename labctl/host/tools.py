"""Programs of this host: whether they are installed, and their versions."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from labctl import proc
from labctl.arch import X86_64, Architecture
from labctl.errors import CommandError, HostError

_VERSION_SECONDS = 30.0


def qemu_version(arch: Architecture = X86_64) -> str:
    """Return QEMU's version, empty if it is not installed."""
    try:
        said = version_text(arch.qemu)
    except (HostError, CommandError):
        return ""
    found = re.search(r"version (\S+)", said)
    return found[1] if found else ""


def version_text(program: str) -> str:
    """Return the output of `PROGRAM --version`, cached until the program's files change.

    Raises:
        HostError: the program is not installed.
        CommandError: it fails.
    """
    return _version_text(program, tuple(_files_of(program)))


@lru_cache(maxsize=32)
def _version_text(program: str, _: tuple[object, ...]) -> str:
    return proc.run([program, "--version"], timeout_seconds=_VERSION_SECONDS).text


def _files_of(program: str) -> Iterator[tuple[str, int, int, int]]:
    # All programs of the name on PATH, since the first may wrap the next, like ccache's gcc.
    for folder in os.get_exec_path():
        with contextlib.suppress(OSError):
            path = os.path.realpath(Path(folder, program))
            info = Path(path).stat()
            yield path, info.st_ino, info.st_size, info.st_mtime_ns


def check_installed(programs: Iterable[str], arch: Architecture = X86_64) -> None:
    """Check that programs for guests of `arch` are on PATH.

    Raises:
        HostError: programs are missing; the hint has the command that installs them.
    """
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        is_or_are = "is" if len(missing) == 1 else "are"
        raise HostError(f"{', '.join(missing)} {is_or_are} not installed", hint=arch.hint)
