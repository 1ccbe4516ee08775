"""What a process holds, and what it has left on the host: counted before and after guests."""

from __future__ import annotations

import gc
import os
import tempfile
import threading
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Held:
    """Counts of this process and of the folders that it writes to; memory is the RSS."""

    descriptors: int
    sockets: int
    threads: int
    processes: int
    files: int
    temporary_files: int
    memory_bytes: int

    def more_than(self, before: Held) -> dict[str, int]:
        """Return what there is more of, without the memory."""
        now, then = asdict(self), asdict(before)
        more = {name: now[name] - then[name] for name in now if name != "memory_bytes"}
        return {name: count for name, count in more.items() if count > 0}


def held(folder: Path) -> Held:
    """Return what this process holds now; `folder` is that of its guests.

    Temporary files are counted in TMPDIR, which should be of this process alone.
    """
    gc.collect()
    descriptors = [_target(path) for path in Path("/proc/self/fd").iterdir()]
    descriptors = [each for each in descriptors if each]  # without that of the listing
    statm = Path("/proc/self/statm").read_text().split()
    return Held(
        descriptors=len(descriptors),
        sockets=sum(each.startswith("socket:") for each in descriptors),
        threads=threading.active_count(),
        processes=len(_descendants(os.getpid())),
        files=_count(folder),
        temporary_files=_count(Path(tempfile.gettempdir())),
        memory_bytes=int(statm[1]) * os.sysconf("SC_PAGE_SIZE"),
    )


def peak_bytes() -> int:
    """Return the peak of this process's memory so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def _target(path: Path) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115 - sockets have no path
    except OSError:
        return ""


def _count(folder: Path) -> int:
    return sum(1 for _ in folder.rglob("*"))


def _descendants(pid: int) -> set[int]:
    parents = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(process.name)] = int(fields[1])
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        children = {child for child, parent in parents.items() if parent == one}
        waiting += children - found
        found |= children
    return found
