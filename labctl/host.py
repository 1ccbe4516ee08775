"""What this host is, and how loaded it is."""

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
    """The facts that a measurement is read with; `id` is stable and tells no name."""

    id: str
    cpu_model: str
    cores: int
    memory_bytes: int
    kernel: str
    qemu: str
    boot_id: str

    def as_dict(self) -> dict[str, str | int]:
        """Return the facts as JSON values."""
        return asdict(self)


def describe(arch: Architecture = X86_64) -> Host:
    """Return this host's facts, with the QEMU for guests of an architecture.

    A missing one reads as an empty version.
    """
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
    """Return the memory of this host."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def available_bytes() -> int:
    """Return the memory that new guests can have without swapping."""
    found = re.search(r"MemAvailable:\s*(\d+) kB", _read("/proc/meminfo"))
    return int(found[1]) * 1024 if found else memory_bytes()


def qemu_version(arch: Architecture = X86_64) -> str:
    """Return QEMU's version, or an empty text if it is not installed."""
    try:
        said = version_text(arch.qemu)
    except (HostError, CommandError):
        return ""
    found = re.search(r"version (\S+)", said)
    return found[1] if found else ""


def version_text(program: str) -> str:
    """Return what `--version` prints; a program is asked again only when its files changed.

    Raises:
        HostError: it is not installed.
        CommandError: it does not run.
    """
    return _version_text(program, tuple(_files_of(program)))


@lru_cache(maxsize=32)
def _version_text(program: str, _: tuple[object, ...]) -> str:
    return proc.run([program, "--version"], timeout_seconds=_VERSION_SECONDS).text


def _files_of(program: str) -> Iterator[tuple[str, int, int, int]]:
    # All of that name: the first may be a wrapper of the next, as ccache's gcc is.
    for folder in os.get_exec_path():
        with contextlib.suppress(OSError):
            path = os.path.realpath(Path(folder, program))
            info = Path(path).stat()
            yield path, info.st_ino, info.st_size, info.st_mtime_ns


def check_installed(programs: Iterable[str], arch: Architecture = X86_64) -> None:
    """Look on PATH for programs that guests of an architecture need of this host.

    Raises:
        HostError: names those that are not installed, and what installs them.
    """
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        said = "is" if len(missing) == 1 else "are"
        raise HostError(f"{', '.join(missing)} {said} not installed", hint=arch.hint)


def load(root: Path = Path("/")) -> dict[str, float]:
    """Return what the host did since it booted, and how it is now.

    Cumulative, so that two readings tell what happened between them: `busy_seconds`
    and `steal_seconds` of the `cores` that this process may use, `own_seconds` of it
    (this process and its guests; by a finer clock, so it may be more than `busy_seconds`,
    which on most hosts is sampled by ticks), `cpu_pressure_seconds` and
    `memory_pressure_seconds` in which some task waited for a CPU or for memory, and
    `throttled_count`, how often a core was slowed because it was hot. Now:
    `load_1min`, and `frequency_hz`, the cores' mean. What this host does not show is
    left out. `root` is where proc and sys are.
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
    """Return the time that CPUs were busy with anything, and the time that others stole."""
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
    # Not of all: on some hosts a CPU takes 10 ms to tell its own.
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
