"""Limits that the control groups of this process set, as in a container: v2, v1 or both.

A limit of a group binds all groups below it, so the tightest of the process's own group
and of its parents counts. Parents outside a container are not visible from inside.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from labctl.host import procfs
from labctl.units import MIB

# A compiler of a kernel file takes 100 to 250 MiB; it, its shell and make are processes.
_JOB_BYTES = 256 * MIB
_JOB_PROCESSES = 6
_OOM_KILLS = re.compile(r"^oom_kill ([0-9]{1,18})$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit, the amount of it that is left, and the file that sets it."""

    most: float
    left: float
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The tightest limits, None where there is none.

    `cpus` is CPU time per time, `memory` is in bytes, `processes` includes threads;
    `cpuset` and `nodes` are files that allow only some of the host's CPUs or NUMA nodes,
    empty if all are allowed, and `allowed_nodes` are these nodes, None if all are.
    """

    cpus: Limit | None = None
    memory: Limit | None = None
    processes: Limit | None = None
    cpuset: str = ""
    nodes: str = ""
    allowed_nodes: tuple[int, ...] | None = None

    def whole_cpus(self, usable: int) -> int:
        """Return how many of the `usable` CPUs can be busy all the time, at least 1."""
        return usable if self.cpus is None else max(1, min(usable, int(self.cpus.most)))

    def jobs(self, usable: int) -> int:
        """Return the number of compilers that may run at once on the `usable` CPUs."""
        most = [usable]
        if self.cpus is not None:
            most.append(math.ceil(self.cpus.most))
        if self.memory is not None:
            most.append(int(self.memory.left // _JOB_BYTES))
        if self.processes is not None:
            most.append(int(self.processes.left // _JOB_PROCESSES))
        return max(1, min(most))


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class _Group:
    folder: Path
    root: Path  # of the tree of files, to be left out of names

    def read(self, name: str) -> str:
        return procfs.read(self.folder / name)

    def count(self, name: str) -> int | None:
        text = self.read(name)
        return int(text) if procfs.is_count(text) else None

    def file(self, name: str) -> str:
        return f"/{(self.folder / name).relative_to(self.root)}"


def read_limits(root: Path = Path("/")) -> Limits:
    """Return the limits of this process; `root` is the folder of proc and sys."""
    memory = procfs.size_bytes(procfs.read(root / "proc/meminfo"), "MemTotal") or math.inf
    found: dict[str, list[Limit]] = {"cpus": [], "memory": [], "processes": []}
    sets: list[_Group] = []
    for controllers, group in _own(root):
        is_v2 = not controllers
        for kind, (v2, v1, controller) in _READERS.items():
            if is_v2 or controller in controllers:
                found[kind] += (v2 if is_v2 else v1)(group)
        if is_v2 or "cpuset" in controllers:
            sets.append(group)
    found["memory"] = [one for one in found["memory"] if one.most < memory]
    cpuset, _ = _restricting(sets, "cpus", procfs.read(root / "sys/devices/system/cpu/online"))
    nodes, allowed = _restricting(
        sets, "mems", procfs.read(root / "sys/devices/system/node/has_memory")
    )
    return Limits(
        cpus=_tightest(found["cpus"]),
        memory=_tightest(found["memory"]),
        processes=_tightest(found["processes"]),
        cpuset=cpuset,
        nodes=nodes,
        allowed_nodes=allowed if nodes else None,
    )


def jobs() -> int:
    """Return the number of compilers that a build may run at once."""
    return read_limits().jobs(len(os.sched_getaffinity(0)))


def oom_kills(root: Path = Path("/"), pid: int | str = "self") -> dict[str, int]:
    """Return how many processes the OOM killer ended in a process's group and its parents.

    The keys are the files that count them, the process's own group first.
    """
    found = {}
    for controllers, group in _own(root, pid):
        if controllers and "memory" not in controllers:
            continue
        file = "memory.oom_control" if controllers else "memory.events"
        if _OOM_KILLS.search(group.read(file)):
            found[group.file(file)] = oom_count(group.folder / file)
    return found


def oom_count(file: Path) -> int:
    """Return the OOM kills that a file of `oom_kills` counts, 0 if it is gone."""
    found = _OOM_KILLS.search(procfs.read(file))
    return int(found[1]) if found else 0


def _tightest(limits: list[Limit]) -> Limit | None:
    return min(limits, key=lambda one: (one.left, one.most), default=None)


@dataclass(frozen=True, slots=True)
class _Mount:
    controllers: frozenset[str]  # empty for v2
    top: str  # the group that is mounted
    place: str

    def has(self, path: str) -> bool:
        """Return whether the group at `path` is below the one that is mounted."""
        return path == self.top or path.startswith(self.top.rstrip("/") + "/")


def _mounts(text: str) -> Iterator[_Mount]:
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, more = before.split(), after.split()
        if len(fields) >= 5 and len(more) >= 3 and more[0] in ("cgroup", "cgroup2"):
            options = frozenset(more[2].split(",")) if more[0] == "cgroup" else frozenset()
            yield _Mount(options, _unescaped(fields[3]), _unescaped(fields[4]))


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _own(root: Path, pid: int | str = "self") -> Iterator[tuple[frozenset[str], _Group]]:
    """Yield the groups of a process and their parents, with the controllers; v2 has none."""
    mounts = list(_mounts(procfs.read(root / "proc/self/mountinfo")))
    for line in procfs.read(root / f"proc/{pid}/cgroup").splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        controllers = frozenset(names.split(",")) - {""}
        for group in _groups(root, mounts, controllers, path):
            yield controllers, group


def _groups(
    root: Path, mounts: list[_Mount], controllers: frozenset[str], path: str
) -> Iterator[_Group]:
    """Yield the group at `path` and its parents, as far as they are mounted."""
    fitting = [
        each
        for each in mounts
        if bool(each.controllers) == bool(controllers) and controllers <= each.controllers
    ]
    if not fitting:
        return
    # Groups of others may be mounted too. A container may see the path that its group has on
    # the host, with only its own group mounted.
    mount = next((each for each in fitting if each.has(path)), fitting[0])
    top = root / mount.place.lstrip("/")
    folder = top / path[len(mount.top) :].lstrip("/") if mount.has(path) else top
    if ".." in folder.parts or not folder.is_dir():
        folder = top
    while True:
        yield _Group(folder, root)
        if folder == top:
            return
        folder = folder.parent


def _cpu_v2(group: _Group) -> list[Limit]:
    quota, _, period = group.read("cpu.max").partition(" ")
    return _quota(quota, period, group.file("cpu.max"))


def _cpu_v1(group: _Group) -> list[Limit]:
    quota, period = group.read("cpu.cfs_quota_us"), group.read("cpu.cfs_period_us")
    return _quota(quota, period, group.file("cpu.cfs_quota_us"))


def _quota(quota: str, period: str, file: str) -> list[Limit]:
    if not (procfs.is_count(quota) and procfs.is_count(period) and int(period)):
        return []
    cpus = int(quota) / int(period)
    return [Limit(cpus, cpus, file)]


def _memory_v2(group: _Group) -> list[Limit]:
    used = group.count("memory.current") or 0
    names = ("memory.max", "memory.high")  # beyond `high`, the kernel slows the group down
    return _memory(group, names, used, ("inactive_file", "active_file"))


def _memory_v1(group: _Group) -> list[Limit]:
    used = group.count("memory.usage_in_bytes") or 0
    cache = ("total_inactive_file", "total_active_file")
    return _memory(group, ("memory.limit_in_bytes",), used, cache)


def _memory(
    group: _Group, names: tuple[str, ...], used: int, cache: tuple[str, str]
) -> list[Limit]:
    # The kernel drops the page cache first, as MemAvailable of /proc/meminfo assumes.
    stat = dict(line.split()[:2] for line in group.read("memory.stat").splitlines() if " " in line)
    cached = sum(int(stat[name]) for name in cache if procfs.is_count(stat.get(name, "")))
    taken = max(0, used - cached)
    limits = {group.file(name): group.count(name) for name in names}
    return [Limit(n, max(0, n - taken), file) for file, n in limits.items() if n is not None]


def _pids(group: _Group) -> list[Limit]:
    most, used = group.count("pids.max"), group.count("pids.current") or 0
    return [] if most is None else [Limit(most, max(0, most - used), group.file("pids.max"))]


def _restricting(groups: list[_Group], what: str, every: str) -> tuple[str, tuple[int, ...] | None]:
    """Return the file of the first group that allows only some CPUs or nodes, and these."""
    everything = procfs.numbers(every)
    for group in groups:
        for name in (f"cpuset.{what}.effective", f"cpuset.effective_{what}"):
            allowed = procfs.numbers(group.read(name))
            if allowed and set(allowed) < set(everything):
                return group.file(name), allowed
    return "", None


_Reader = Callable[[_Group], list[Limit]]
_READERS: dict[str, tuple[_Reader, _Reader, str]] = {
    "cpus": (_cpu_v2, _cpu_v1, "cpu"),
    "memory": (_memory_v2, _memory_v1, "memory"),
    "processes": (_pids, _pids, "pids"),
}
