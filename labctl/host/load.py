"""Load of this host."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

from labctl import proc
from labctl.host import procfs

_CPUS_ASKED = 8
_STAT_FIELDS = 8


def load(root: Path = Path("/")) -> dict[str, float]:
    """Return cumulative counters and current values of the host load.

    Counters since boot, to be subtracted from a later reading:

    - `busy_seconds`, `steal_seconds`: CPU time of the `cores` that this process may use.
    - `own_seconds`: CPU time of this process and its guests. Its clock is more precise
      than the tick-sampled `busy_seconds` of most hosts, so it may be the larger one.
    - `cpu_pressure_seconds`, `memory_pressure_seconds`: time in which some task waited
      for a CPU or for memory.
    - `throttled_count`: number of thermal throttling events.
    - `suspended_seconds`: time in which the host was suspended.

    Current values: `load_1min`, and `frequency_hz`, the mean of the cores. Values that
    this host does not provide are left out. `root` is the folder of proc and sys.
    """
    cores = sorted(os.sched_getaffinity(0))
    busy, steal = _cpu_seconds(procfs.read(root / "proc/stat"), cores)
    found = {
        "cores": float(len(cores)),
        "busy_seconds": busy,
        "own_seconds": proc.cpu_seconds(),
        "steal_seconds": steal,
        "cpu_pressure_seconds": _pressure_seconds(root, "cpu"),
        "memory_pressure_seconds": _pressure_seconds(root, "memory"),
        "load_1min": os.getloadavg()[0],
        "frequency_hz": _frequency_hz(root, cores),
        "throttled_count": _throttled_count(root, cores),
        "suspended_seconds": suspended_seconds(),
    }
    return {name: round(value, 3) for name, value in found.items() if value is not None}


def suspended_seconds() -> float:
    """Return how long the host has been suspended since its boot."""
    # Only one of them goes on while the host sleeps. The other first: never negative.
    awake = time.clock_gettime(time.CLOCK_MONOTONIC)
    return time.clock_gettime(time.CLOCK_BOOTTIME) - awake


def _cpu_seconds(stat: str, cores: Sequence[int]) -> tuple[float, float]:
    """Return the busy time and the steal time of `cores`."""
    ticks = os.sysconf("SC_CLK_TCK")
    names = {f"cpu{core}" for core in cores}
    busy = stolen = 0
    for line in stat.splitlines():
        name, *fields = line.split() or [""]
        numbers = fields[:_STAT_FIELDS]
        if name not in names or len(numbers) < _STAT_FIELDS:
            continue
        if all(map(procfs.is_count, numbers)):
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, numbers)
            busy += user + nice + system + irq + softirq
            stolen += steal
    return busy / ticks, stolen / ticks


def _pressure_seconds(root: Path, what: str) -> float | None:
    found = re.search(r"some .*total=([0-9]{1,18})", procfs.read(root / "proc/pressure" / what))
    return int(found[1]) / 1e6 if found else None


def _frequency_hz(root: Path, cores: Sequence[int]) -> float | None:
    # Not of all cores: on some hosts each read takes 10 ms.
    paths = (_of_cpu(root, core) / "cpufreq/scaling_cur_freq" for core in cores[:_CPUS_ASKED])
    found = [1000.0 * int(text) for text in map(procfs.read, paths) if procfs.is_count(text)]
    return sum(found) / len(found) if found else None


def _throttled_count(root: Path, cores: Sequence[int]) -> float | None:
    paths = (_of_cpu(root, core) / "thermal_throttle/core_throttle_count" for core in cores)
    found = [int(text) for text in map(procfs.read, paths) if procfs.is_count(text)]
    return float(sum(found)) if found else None


def _of_cpu(root: Path, core: int) -> Path:
    return root / "sys/devices/system/cpu" / f"cpu{core}"
