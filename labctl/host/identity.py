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
    cpu_model = read_cpu_model(procfs.read("/proc/cpuinfo"))
    return Host(
        id=host_id(procfs.read("/etc/machine-id") or platform.node(), cpu_model),
        cpu_model=cpu_model or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=procfs.size_bytes(procfs.read("/proc/meminfo"), "MemTotal"),
        kernel=platform.release(),
        qemu=qemu_version(arch),
        boot_id=procfs.read("/proc/sys/kernel/random/boot_id"),
        qemu_as_root=os.geteuid() == 0,
        qemu_without_sandbox=bool(sandbox.missing(arch.qemu)),
    )


def host_id(machine: str, cpu_model: str) -> str:
    """Return the id of a host by its machine id, or its name, and its CPU model.

    A virtual machine keeps its machine id when it starts on a host with another CPU, and shares
    it with its copies: what was measured there is not of the same host.
    """
    return hashlib.sha256(f"labctl {machine} {cpu_model}".encode()).hexdigest()[:12]


def read_cpu_model(cpuinfo: str) -> str:
    """Return the CPU model that /proc/cpuinfo names; it is empty on arm64."""
    model = re.search(r"model name\s*: (.*)", cpuinfo)
    return model[1].strip() if model else ""


def usable_cores() -> int:
    """Return the number of CPUs that this process may keep busy all the time."""
    return cgroup.read_limits().whole_cpus(len(os.sched_getaffinity(0)))
