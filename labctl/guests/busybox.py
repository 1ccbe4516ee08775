"""A static busybox for the guests: the host's own, or one of another architecture."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from labctl import proc
from labctl.arch import X86_64, Architecture
from labctl.errors import HostError

_LIST_SECONDS = 20.0
# How the table of applets begins in every busybox that has a test command.
_FIRST_APPLETS = b"[\0[[\0"


def find(arch: Architecture) -> Path:
    """Return the busybox for guests of an architecture.

    For a foreign one it is called busybox-ARCH, on PATH or beside the Python that
    runs labctl.

    Raises:
        HostError: it is not installed, not static, or of another architecture.
    """
    name = f"busybox-{arch.name}" if arch.is_foreign else "busybox"
    more = str(Path(sys.executable).parent) if arch.is_foreign else "/bin:/usr/bin"
    found = shutil.which(name, path=os.environ.get("PATH", "") + os.pathsep + more)
    hint = arch.hint if arch.is_foreign else "`make setup` installs busybox-static"
    if found is None:
        raise HostError(f"{name} is not installed", hint=hint)
    content = Path(found).read_bytes()
    if b"/ld-linux" in content or b"/ld-musl" in content:
        raise HostError(f"{found} is not statically linked", hint=hint)
    machine = int.from_bytes(content[18:20], "little")
    if arch.is_foreign and machine != arch.elf_machine:
        raise HostError(f"{found} is not an {arch.name} executable", hint=hint)
    return Path(found)


def applets(busybox: Path, arch: Architecture = X86_64) -> list[str]:
    """Return what a busybox can be called as.

    A foreign one cannot be asked: its table of names is read.

    Raises:
        HostError: there is no such table in it.
    """
    if not arch.is_foreign:
        return proc.run([busybox, "--list"], timeout_seconds=_LIST_SECONDS).text.split()
    found = applets_in(busybox.read_bytes())
    if not found:
        raise HostError("table of applets not found", where=str(busybox), hint=arch.hint)
    return found


def applets_in(content: bytes) -> list[str]:
    """Return the names in the table of a busybox; none if there is no such table.

    The table (applet_names of its source) holds each name with a zero behind it, and
    ends with an empty name.
    """
    start = content.find(_FIRST_APPLETS)
    end = content.find(b"\0\0", start)
    if start < 0 or end < 0:
        return []
    return content[start:end].decode("ascii", "replace").split("\0")
