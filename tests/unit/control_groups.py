"""Real control groups, where the host lets one make them."""

import contextlib
import os
from pathlib import Path

import pytest

# Files that set a limit, by controller: of v2, of v1.
LIMITS = {
    "memory": ("memory.max", "memory.limit_in_bytes"),
    "pids": ("pids.max", "pids.max"),
}


@contextlib.contextmanager
def real_control_groups(**limits):
    """Make groups below that of this process with limits, by controller; skip if not allowed."""
    groups = {}
    try:
        try:
            for name, value in limits.items():
                groups[name] = _made(name)
                (groups[name] / LIMITS[name][_is_v1(name)]).write_text(str(value))
        except OSError as error:
            pytest.skip(f"this host lets nobody here make a control group: {error}")
        yield groups
    finally:
        for group in set(groups.values()):
            with contextlib.suppress(OSError):
                group.rmdir()


def enter(groups, pid):
    """Move a process into the groups."""
    for group in set(groups.values()):
        (group / "cgroup.procs").write_text(str(pid))


def _lines():
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        yield names.split(","), path.lstrip("/")


def _is_v1(name):
    return any(name in names for names, _ in _lines())


def _made(name):
    if _is_v1(name):
        (path,) = (path for names, path in _lines() if name in names)
        place = Path("/sys/fs/cgroup", name, path)
    else:
        (path,) = (path for names, path in _lines() if names == [""])
        place = Path("/sys/fs/cgroup", path)
        if name not in (place / "cgroup.subtree_control").read_text().split():
            raise PermissionError(f"{place} does not pass on {name}")
    group = place / f"labctl-test-{os.getpid()}"
    group.mkdir(exist_ok=True)
    return group
