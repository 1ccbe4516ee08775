"""The QEMUs of guests that outlive a command, found without their records.

They work in their guest's folder, and have a mark in their environment; those of an
earlier labctl are known by their name.
"""

from __future__ import annotations

import os
from pathlib import Path

from labctl import process_table

MARK = "LABCTL_GUEST"
_GONE = " (deleted)"  # proc(5) of a folder that was removed


def of(guests: Path) -> dict[str, list[process_table.Found]]:
    """Return the running QEMUs of the guests whose folders lie in `guests`, by their names."""
    root = os.path.realpath(guests)
    found: dict[str, list[process_table.Found]] = {}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):  # noqa: PTH208
        ticks = process_table.started_ticks(pid)
        name = _guest(pid, root)
        # Looked at twice: the pid means the same process still.
        if name and ticks is not None and process_table.started_ticks(pid) == ticks:
            found.setdefault(name, []).append(process_table.Found(pid, ticks))
    return found


def _guest(pid: int, root: str) -> str | None:
    """Return the name of the guest that a process runs, None if it runs none of this folder."""
    process = Path("/proc") / str(pid)
    try:
        parent, _, name = str((process / "cwd").readlink()).removesuffix(_GONE).rpartition("/")
        if parent != root:
            return None
        is_marked = f"\0{MARK}=".encode() in b"\0" + (process / "environ").read_bytes()
        return name if is_marked or (process / "comm").read_text().startswith("qemu-") else None
    except OSError:  # it ended, or is another user's
        return None
