"""What this host is, how loaded it is, and the lock that keeps measurements apart."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from labctl import proc
from labctl.errors import CommandError, HostError

_LOCK_POLL_SECONDS = 0.5


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


def describe() -> Host:
    """Return this host's facts; a missing QEMU reads as an empty version."""
    machine = _read("/etc/machine-id") or platform.node()
    model = re.search(r"model name\s*: (.*)", _read("/proc/cpuinfo"))
    memory = re.search(r"MemTotal:\s*(\d+) kB", _read("/proc/meminfo"))
    return Host(
        id=hashlib.sha256(f"labctl {machine}".encode()).hexdigest()[:12],
        cpu_model=model[1].strip() if model else platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=int(memory[1]) * 1024 if memory else 0,
        kernel=platform.release(),
        qemu=qemu_version(),
        boot_id=_read("/proc/sys/kernel/random/boot_id"),
    )


def memory_bytes() -> int:
    """Return the memory of this host."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def available_bytes() -> int:
    """Return the memory that new guests can have without swapping."""
    found = re.search(r"MemAvailable:\s*(\d+) kB", _read("/proc/meminfo"))
    return int(found[1]) * 1024 if found else memory_bytes()


def qemu_version() -> str:
    """Return QEMU's version, or an empty text if it is not installed."""
    try:
        done = proc.run(["qemu-system-x86_64", "--version"], timeout_seconds=20)
    except (HostError, CommandError):
        return ""
    found = re.search(r"version (\S+)", done.text)
    return found[1] if found else ""


def load() -> dict[str, float]:
    """Return how busy the host is now.

    `busy_seconds` and `steal_seconds` are cumulative over all cores, so that two
    samples tell what else ran between them; `psi_some_avg10_percent` is the share
    of the last ten seconds in which some task waited for a CPU.
    """
    ticks = os.sysconf("SC_CLK_TCK")
    fields = [int(f) / ticks for f in _read("/proc/stat").split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    pressure = re.search(r"some avg10=([\d.]+)", _read("/proc/pressure/cpu"))
    return {
        "busy_seconds": round(user + nice + system + irq + softirq, 2),
        "steal_seconds": round(steal, 2),
        "load_1min": round(os.getloadavg()[0], 2),
        "psi_some_avg10_percent": float(pressure[1]) if pressure else 0.0,
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


@contextlib.contextmanager
def measuring(
    purpose: str, *, waiting: Callable[[str], None], folder: Path | None = None
) -> Iterator[None]:
    """Hold the host-wide right to measure; `waiting` is told once who holds it now.

    The lock is the kernel's: it ends with the process, however that ends.
    """
    shared = "/run/lock" if os.access("/run/lock", os.W_OK) else tempfile.gettempdir()
    path = folder or Path(shared)
    descriptor = _open_shared(path / "labctl-measuring.lock")
    try:
        told = False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    told = True
                    waiting(os.pread(descriptor, 500, 0).decode("utf-8", "replace").strip())
                time.sleep(_LOCK_POLL_SECONDS)
        with contextlib.suppress(OSError):  # another user's file: held, but not ours to write
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()}: {purpose}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _open_shared(path: Path) -> int:
    """Open a lock file that every user of the host may lock, whoever made it."""
    for flags in (os.O_RDWR, os.O_RDONLY):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            return os.open(path, flags | os.O_CLOEXEC)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise HostError(f"the lock {path} cannot be opened: {error.strerror}") from error
    with contextlib.suppress(OSError):
        os.fchmod(descriptor, 0o666)
    return descriptor
