"""Find the static busybox for guests, of the host's or another architecture."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from labctl.arch import X86_64, Architecture
from labctl.errors import HostError
from labctl.host import tools

# The start of the applet table in every busybox with a test command.
_FIRST_APPLETS = b"[\0[[\0"


def find(arch: Architecture) -> Path:
    """Return the busybox for guests of an architecture.

    For a foreign architecture, the program is busybox-ARCH, on PATH or next to the Python
    that runs labctl.

    Raises:
        HostError: busybox is not installed, not static, or of another architecture.
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
    """Return the names of the applets of a busybox.

    A busybox of another architecture cannot run here: its applet table is read instead.

    Raises:
        HostError: the file has no applet table.
    """
    if not arch.is_foreign:
        return tools.output((str(busybox), "--list")).split()
    found = applets_in(busybox.read_bytes())
    if not found:
        raise HostError("table of applets not found", where=str(busybox), hint=arch.hint)
    return found


def applets_in(content: bytes) -> list[str]:
    """Return the names in the applet table of a busybox, an empty list without a table.

    In the table (applet_names of the source), each name ends with a zero byte; an empty
    name ends the table.
    """
    start = content.find(_FIRST_APPLETS)
    end = content.find(b"\0\0", start)
    if start < 0 or end < 0:
        return []
    return content[start:end].decode("ascii", "replace").split("\0")
