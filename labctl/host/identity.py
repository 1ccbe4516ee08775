"""What this host is: CPU, memory, kernel and QEMU."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from dataclasses import asdict, dataclass

from labctl.arch import X86_64, Architecture
from labctl.host import cgroup, procfs, sandbox
from labctl.host.tools import qemu_version


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
    qemu_as_root: bool = False
    qemu_without_sandbox: bool = False

    def as_dict(self) -> dict[str, str | int | bool]:
        """Return the facts; those that are False are left out."""
        return {name: value for name, value in asdict(self).items() if value is not False}


def describe(arch: Architecture = X86_64) -> Host:
    """Return this host's facts, with the version of the QEMU for `arch`, empty if missing."""
    machine = procfs.read("/etc/machine-id") or platform.node()
    model = re.search(r"model name\s*: (.*)", procfs.read("/proc/cpuinfo"))
    return Host(
        id=hashlib.sha256(f"labctl {machine}".encode()).hexdigest()[:12],
        cpu_model=model[1].strip() if model else platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=procfs.size_bytes(procfs.read("/proc/meminfo"), "MemTotal"),
        kernel=platform.release(),
        qemu=qemu_version(arch),
        boot_id=procfs.read("/proc/sys/kernel/random/boot_id"),
        qemu_as_root=os.geteuid() == 0,
        qemu_without_sandbox=bool(sandbox.missing(arch.qemu)),
    )


def usable_cores() -> int:
    """Return the number of CPUs that this process may keep busy all the time."""
    return cgroup.read_limits().whole_cpus(len(os.sched_getaffinity(0)))
