"""Find the QEMU processes of guests kept by `labctl up`, without their records.

Their working directory is the guest's folder, and their environment has a mark; those of
an older labctl are recognised by their name.
"""

from __future__ import annotations

import os
from pathlib import Path

from labctl import process_table

MARK = "LABCTL_GUEST"
_GONE = " (deleted)"  # suffix of a removed folder, proc(5)


def of(guests: Path) -> dict[str, list[process_table.Found]]:
    """Return the running QEMU processes of guests with folders in `guests`, by guest name."""
    root = os.path.realpath(guests)
    found: dict[str, list[process_table.Found]] = {}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):  # noqa: PTH208
        if not _folder_of(pid).startswith(f"{root}/"):
            continue  # nearly all processes
        ticks = process_table.started_ticks(pid)
        name = _guest(pid, root)
        # Check twice, since the pid may have been reused in between.
        if name and ticks is not None and process_table.started_ticks(pid) == ticks:
            found.setdefault(name, []).append(process_table.Found(pid, ticks))
    return found


def _guest(pid: int, root: str) -> str | None:
    """Return the name of the guest that a process runs, None for other processes."""
    process = Path("/proc") / str(pid)
    parent, _, name = _folder_of(pid).rpartition("/")
    if parent != root:
        return None
    try:
        is_marked = f"\0{MARK}=".encode() in b"\0" + (process / "environ").read_bytes()
        return name if is_marked or (process / "comm").read_text().startswith("qemu-") else None
    except OSError:  # exited, or of another user
        return None


def _folder_of(pid: int) -> str:
    """Return the working directory of a process; "" if it exited or is of another user."""
    try:
        return os.readlink(f"/proc/{pid}/cwd").removesuffix(_GONE)  # noqa: PTH115 - three times as fast
    except OSError:
        return ""
