"""Facts and load of this host."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from labctl import proc
from labctl.errors import CommandError, HostError
from labctl.host_lock import measuring as measuring
from labctl.lab_arch import X86_64, Architecture

_CPUS_ASKED = 8
_VERSION_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Host:
    """Facts stored with a measurement; `id` is stable and does not reveal the host name."""

    id: str
    cpu_model: str
    cores: int
    memory_bytes: int
    kernel: str
    qemu: str
    boot_id: str

    def as_dict(self) -> dict[str, str | int]:
        return asdict(self)


def describe(arch: Architecture = X86_64) -> Host:
    """Return this host's facts, with the version of the QEMU for `arch`, empty if missing."""
    machine = _read("/etc/machine-id") or platform.node()
    model = re.search(r"model name\s*: (.*)", _read("/proc/cpuinfo"))
    memory = re.search(r"MemTotal:\s*(\d+) kB", _read("/proc/meminfo"))
    return Host(
        id=hashlib.sha256(f"labctl {machine}".encode()).hexdigest()[:12],
        cpu_model=model[1].strip() if model else platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=int(memory[1]) * 1024 if memory else 0,
        kernel=platform.release(),
        qemu=qemu_version(arch),
        boot_id=_read("/proc/sys/kernel/random/boot_id"),
    )


def memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def available_bytes() -> int:
    """Return the memory available to new guests without swapping."""
    found = re.search(r"MemAvailable:\s*(\d+) kB", _read("/proc/meminfo"))
    return int(found[1]) * 1024 if found else memory_bytes()


def qemu_version(arch: Architecture = X86_64) -> str:
    """Return QEMU's version, empty if it is not installed."""
    try:
        said = version_text(arch.qemu)
    except (HostError, CommandError):
        return ""
    found = re.search(r"version (\S+)", said)
    return found[1] if found else ""


def version_text(program: str) -> str:
    """Return the output of `PROGRAM --version`, cached until the program's files change.

    Raises:
        HostError: the program is not installed.
        CommandError: it fails.
    """
    return _version_text(program, tuple(_files_of(program)))


@lru_cache(maxsize=32)
def _version_text(program: str, _: tuple[object, ...]) -> str:
    return proc.run([program, "--version"], timeout_seconds=_VERSION_SECONDS).text


def _files_of(program: str) -> Iterator[tuple[str, int, int, int]]:
    # All programs of the name on PATH, since the first may wrap the next, like ccache's gcc.
    for folder in os.get_exec_path():
        with contextlib.suppress(OSError):
            path = os.path.realpath(Path(folder, program))
            info = Path(path).stat()
            yield path, info.st_ino, info.st_size, info.st_mtime_ns


def check_installed(programs: Iterable[str], arch: Architecture = X86_64) -> None:
    """Check that programs for guests of `arch` are on PATH.

    Raises:
        HostError: programs are missing; the hint has the command that installs them.
    """
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        is_or_are = "is" if len(missing) == 1 else "are"
        raise HostError(f"{', '.join(missing)} {is_or_are} not installed", hint=arch.hint)


def load(root: Path = Path("/")) -> dict[str, float]:
    """Return cumulative counters and current values of the host load.

    Counters since boot, to be subtracted from a later reading:

    - `busy_seconds`, `steal_seconds`: CPU time of the `cores` that this process may use.
    - `own_seconds`: CPU time of this process and its guests. Its clock is more precise
      than the tick-sampled `busy_seconds` of most hosts, so it may be the larger one.
    - `cpu_pressure_seconds`, `memory_pressure_seconds`: time in which some task waited
      for a CPU or for memory.
    - `throttled_count`: number of thermal throttling events.

    Current values: `load_1min`, and `frequency_hz`, the mean of the cores. Values that
    this host does not provide are left out. `root` is the folder of proc and sys.
    """
    cores = sorted(os.sched_getaffinity(0))
    busy, steal = _cpu_seconds(_read(root / "proc/stat"), cores)
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
    }
    return {name: round(value, 3) for name, value in found.items() if value is not None}


def _cpu_seconds(stat: str, cores: Sequence[int]) -> tuple[float, float]:
    """Return the busy time and the steal time of `cores`."""
    ticks = os.sysconf("SC_CLK_TCK")
    busy = stolen = 0
    for line in stat.splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in cores:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            busy += user + nice + system + irq + softirq
            stolen += steal
    return busy / ticks, stolen / ticks


def _pressure_seconds(root: Path, what: str) -> float | None:
    found = re.search(r"some .*total=(\d+)", _read(root / "proc/pressure" / what))
    return int(found[1]) / 1e6 if found else None


def _frequency_hz(root: Path, cores: Sequence[int]) -> float | None:
    # Not of all cores: on some hosts each read takes 10 ms.
    paths = (_of_cpu(root, core) / "cpufreq/scaling_cur_freq" for core in cores[:_CPUS_ASKED])
    found = [1000.0 * int(text) for text in map(_read, paths) if text.isdecimal()]
    return sum(found) / len(found) if found else None


def _throttled_count(root: Path, cores: Sequence[int]) -> float | None:
    paths = (_of_cpu(root, core) / "thermal_throttle/core_throttle_count" for core in cores)
    found = [int(text) for text in map(_read, paths) if text.isdecimal()]
    return float(sum(found)) if found else None


def _of_cpu(root: Path, core: int) -> Path:
    return root / "sys/devices/system/cpu" / f"cpu{core}"


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
