"""Find failures of the host in build output: killed, out of memory, disk full. Pure."""

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
_ERROR = re.compile(r"(?<!fatal )error: ")  # an error in the source


def of_host(output: str, what: str, where: str, place: str) -> HostError | None:
    """Return the host's failure in the output of a build, None if there is none.

    Args:
        output: the output of the build.
        what: the start of the error message: what failed.
        where: the path of the build log.
        place: the folder in which it was built.
    """
    if _FULL.search(output):
        return HostError(
            f"{what}: the disk is full",
            where=place,
            hint="free space; `labctl clean` removes builds",
        )
    if _READ_ONLY.search(output):
        return HostError(f"{what}: the file system is read-only", where=place)
    if _KILLED.search(output) and not _ERROR.search(output):
        return HostError(
            f"{what}: a compiler was killed, possibly by the OOM killer (see `dmesg`)",
            where=where,
            hint="stop guests (`labctl down`) or use fewer jobs: `taskset -c 0 labctl build`",
        )
    return None
