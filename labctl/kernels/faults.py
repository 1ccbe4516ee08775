"""What a compiler's or make's output says of the host: killed, no memory, a full disk. Pure."""

from __future__ import annotations

import re

from labctl.errors import HostError

_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_READ_ONLY = re.compile(r"Read-only file system")
_KILLED = re.compile(
    r"fatal error: Killed signal|terminated with signal 9|^(?:[^\n:]*: )*(?:\d+ )?Killed\b"
    r"|\*\*\* .*(?:\bKilled|Error 137)$|virtual memory exhausted|out of memory allocating"
    r"|Cannot allocate memory|memory exhausted",
    re.MULTILINE,
)
_ERROR = re.compile(r"(?<!fatal )error: ")  # the source's own, and no other


def of_host(output: str, what: str, where: str, place: str) -> HostError | None:
    """Return the host's fault in what a build printed, None if there is none.

    Args:
        output: what it printed.
        what: what was built, and that it failed.
        where: the log to name.
        place: the folder on whose disk it was built.
    """
    if _FULL.search(output):
        return HostError(
            f"{what}: the disk is full",
            where=place,
            hint="make room; `labctl clean` removes builds",
        )
    if _READ_ONLY.search(output):
        return HostError(f"{what}: the file system is read-only", where=place)
    if _KILLED.search(output) and not _ERROR.search(output):
        return HostError(
            f"{what}: a compiler was killed, perhaps by the kernel's OOM killer (`dmesg` tells)",
            where=where,
            hint="end guests (`labctl down`) or build with fewer jobs: `taskset -c 0 labctl build`",
        )
    return None
