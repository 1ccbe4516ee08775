"""Diagnoses of QEMU, accelerators, CPUs, memory and host load. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from labctl.arch import X86_64
from labctl.doctor.diagnosis import Diagnosis, Status, ok
from labctl.experiments.needs import Need, shortage
from labctl.units import MIB, counted, format_size, rough_size

if TYPE_CHECKING:
    from labctl.host.facts import HostFacts

_OLDEST_QEMU = (5, 0)  # the first with `prealloc-threads`
_INSTALL_QEMU = f"sudo apt-get install {X86_64.qemu_package}"
# In cores: more than this is load of other processes.
_IDLE_CORES = 0.2
_STEAL_SHARE = 0.01
_FEW_HUGEPAGES = 8


def qemu(version: str) -> Diagnosis:
    """Diagnose QEMU by its version, empty if it is not installed."""
    if not version:
        return Diagnosis("qemu", "fail", f"{X86_64.qemu} does not run", _INSTALL_QEMU)
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    if numbers < _OLDEST_QEMU:
        oldest = ".".join(map(str, _OLDEST_QEMU))
        return Diagnosis(
            "qemu", "fail", f"{version} is too old, need at least {oldest}", _INSTALL_QEMU
        )
    return ok("qemu", version)


def isolation(lacking: str, *, has_landlock: bool, as_root: bool) -> Diagnosis:
    """Diagnose what protects this host from a guest that breaks into QEMU.

    `lacking` is why QEMU has no sandbox, empty if it has one. `has_landlock` states whether
    Landlock limits QEMU to its guest's files.
    """
    name = "qemu sandbox"
    if lacking:
        mend = f"{_INSTALL_QEMU}   # Debian's QEMU has seccomp"
        return Diagnosis(name, "warn", f"{lacking}: guests run without QEMU's sandbox", mend)
    user = "root, as labctl does: an ordinary user is safer" if as_root else "this user"
    limited = "its guest's files only, unless the guest has `qemu:` words"
    files = limited if has_landlock else "all files of its user: no Landlock"
    return ok(name, f"on; QEMU can use {files}; it runs as {user}")


def tcg(failure: str) -> Diagnosis:
    """Diagnose TCG by the error of its probe guest, empty if it ran."""
    if failure:
        mend = f"sudo apt-get install --reinstall {X86_64.qemu_package}"
        return Diagnosis("tcg", "fail", failure, mend)
    return ok("tcg", "a probe guest ran under QEMU's emulator")


def kvm(failure: str, facts: HostFacts, asked: str) -> Diagnosis:
    """Diagnose KVM by the error of its probe guest, empty if it ran; `asked` is `accel:`."""
    if not failure:
        return ok("kvm", "a probe guest ran under KVM")
    if asked == "tcg":
        return ok("kvm", f"{failure}; not needed, since lab.yaml has `accel: tcg`")
    status: Status = "fail" if asked == "kvm" else "warn"
    what = failure if asked == "kvm" else f"{failure}; guests run under TCG: trust only ratios"
    return Diagnosis("kvm", status, what, _kvm_mend(failure, facts))


def _kvm_mend(failure: str, facts: HostFacts) -> str:
    if "Permission denied" in failure:
        return (
            "sudo chgrp kvm /dev/kvm; sudo chmod g+rw /dev/kvm; sudo usermod -aG kvm $USER"
            "   # then log in again"
        )
    if failure.endswith("does not exist"):
        if "vmx" in facts.cpu_flags:
            return "sudo modprobe kvm_intel"
        if "svm" in facts.cpu_flags:
            return "sudo modprobe kvm_amd"
    if "hypervisor" in facts.cpu_flags:
        return (
            "on the host of this virtual machine: modprobe kvm_intel nested=1 (or kvm_amd), "
            "and CPU model `host` for this virtual machine; or use a physical host"
        )
    if failure.endswith("does not exist"):
        return "enable VT-x or AMD-V in the firmware"
    return "sudo dmesg | grep -i kvm   # look for the reason"


def nested(facts: HostFacts) -> Diagnosis:
    """Diagnose whether this host is itself a virtual machine."""
    name = "nested virtualisation"
    on = facts.nested in ("Y", "1")
    if "hypervisor" not in facts.cpu_flags:
        word = "on" if on else "off"
        return ok(name, f"this is a physical host; nested guests: {word}")
    if facts.cpu_flags & {"vmx", "svm"}:
        what = "this host is a virtual machine with nested virtualisation: VM exits are slower, "
        return Diagnosis(
            name, "warn", f"{what}and load on its host adds noise", "use a physical host"
        )
    return Diagnosis(
        name,
        "warn",
        "this host is a virtual machine and its CPU has neither vmx nor svm",
        "enable nested virtualisation on its host: CPU model `host`, kvm_intel or kvm_amd nested=1",
    )


def cores(facts: HostFacts, needs: Sequence[Need]) -> Diagnosis:
    """Diagnose whether each vCPU of a guest has a core. Only one guest runs at a time."""
    largest = max(needs, key=lambda need: need.topology.vcpus, default=None)
    have = f"{facts.cores} usable on this host"
    if largest is None:
        return ok("cores", have)
    vcpus = largest.topology.vcpus
    if vcpus <= facts.cores:
        return ok("cores", f"{have}, guests have {vcpus} vCPUs")
    return Diagnosis(
        "cores",
        "warn",
        f"{have}, guests have {vcpus} vCPUs (experiment {largest.experiment}): overcommitted, "
        f"parallel work speeds up at most {facts.cores} times, `pin: auto` pins nothing",
        f"use a host with {vcpus} cores, or reduce "
        + ("`cpus` of the nodes" if largest.topology.is_listed else "`nodes` or `cpus_per_node`"),
    )


def limits(facts: HostFacts, needs: Sequence[Need]) -> Diagnosis:
    """Diagnose the limits of the control groups, as of a container."""
    found, name, usable = facts.limits, "limits", len(facts.cpus)
    parts, mends = [], []
    if found.cpuset:
        parts.append(f"{counted(usable, 'CPU')} of the host ({found.cpuset})")
    if found.nodes:
        parts.append(f"{counted(len(facts.nodes), 'NUMA node')} of the host ({found.nodes})")
    if found.cpus and found.cpus.most < usable:
        parts.append(f"time of {found.cpus.most:g} CPUs ({found.cpus.file})")
        mends.append("give the container whole CPUs (`--cpuset-cpus`) instead of a share of time")
    if found.memory:
        left = f"{rough_size(int(found.memory.left))} of {rough_size(int(found.memory.most))}"
        parts.append(f"memory: {left} left ({found.memory.file})")
    if found.processes:
        left = f"{int(found.processes.left)} of {int(found.processes.most)}"
        parts.append(f"processes and threads: {left} left ({found.processes.file})")
    if not parts:
        return ok(name, "no control group limits CPUs, memory or processes")
    what = f"{'; '.join(parts)}; builds run {counted(found.jobs(usable), 'job')}"
    most = max((need.processes for need in needs), default=0)
    if found.processes and most > found.processes.left:
        mend = f"raise the limit of processes (`--pids-limit`) by {most} for the guests"
        return Diagnosis(name, "fail", what, mend)
    if mends:
        return Diagnosis(name, "warn", f"{what}; throttling disturbs measurements", mends[0])
    return ok(name, what)


def memory(facts: HostFacts, asked: Sequence[Need]) -> Diagnosis:
    """Diagnose whether the guests of each experiment fit into memory at the same time."""
    needs = [need for need in asked if not need.topology.hugepages]
    free = f"{rough_size(facts.available_bytes)} of {rough_size(facts.memory_bytes)} available"
    if not needs:
        return ok("memory", free)
    short = [need for need in needs if need.memory_bytes > facts.available_bytes]
    if not short:
        most = max(needs, key=lambda need: need.memory_bytes)
        return ok("memory", f"{free}, {most.experiment} needs {_needed(most)}")
    each = ", ".join(f"{need.experiment} needs {_needed(need)}" for need in short)
    equal = [need for need in short if not need.topology.is_listed]
    smaller = f"reduce {short[0].topology.memory_keys}"
    if equal:
        each_mib = min(
            facts.available_bytes // (need.guests * need.topology.node_count) // MIB
            for need in equal
        )
        smaller = f"set `memory_per_node: {each_mib}MiB`"
    return Diagnosis(
        "memory",
        "fail",
        f"{free}: {each}",
        f"labctl down   # and stop other programs, or {smaller} in lab.yaml",
    )


def _needed(need: Need) -> str:
    return f"{rough_size(need.memory_bytes)} for {need.guests} guests"


def hugepages(facts: HostFacts, needs: Sequence[Need], failures: Mapping[int, str]) -> Diagnosis:
    """Diagnose hugepages; `failures` maps each tested size to the error of its probe guest."""
    asking = [need for need in needs if need.topology.hugepages]
    short = [f"{need.experiment} {why}" for need in asking if (why := shortage(need, facts, ()))]
    if short:
        most = max(asking, key=lambda need: need.memory_bytes)
        size = most.topology.hugepages or 1
        return Diagnosis(
            "hugepages", "fail", ", ".join(short), _more(size, most.memory_bytes // size)
        )
    errors = {size: why for size, why in failures.items() if why}
    if errors:
        size, why = next(iter(errors.items()))
        return Diagnosis("hugepages", "warn", f"size {format_size(size)}: {why}", _more(size, 1024))
    free = [f"{count} of {format_size(size)}" for size, count in facts.hugepages.items() if count]
    if free:
        return ok("hugepages", f"free: {', '.join(free)}")
    return ok("hugepages", "none reserved; no guest of the lab needs them")


def enough_hugepages(size_bytes: int, count: int) -> bool:
    """Return whether the free pages are enough for a probe guest, which needs 16 MiB."""
    return size_bytes * count >= 2 * _FEW_HUGEPAGES * 2**20


def _more(size_bytes: int, count: int) -> str:
    folder = f"/sys/kernel/mm/hugepages/hugepages-{size_bytes // 1024}kB"
    return f"echo {count} | sudo tee {folder}/nr_hugepages"


def numa(facts: HostFacts, needs: Sequence[Need], failures: Mapping[int, str]) -> Diagnosis:
    """Diagnose host nodes; `failures` maps each to the error of a guest bound to it."""
    count = len(facts.nodes)
    nodes = f"{count} host node{'s' if count != 1 else ''}"
    errors = {node: why for node, why in failures.items() if why}
    if errors:
        node, why = next(iter(errors.items()))
        return Diagnosis(
            "numa",
            "warn",
            f"{nodes}; guest memory cannot be bound to node {node}: {why}",
            "run outside a container, or allow mbind in its seccomp profile",
        )
    if count <= 1:
        return ok("numa", f"{nodes}: memory can be bound, but there is no other node")
    what = f"{nodes}; memory can be bound to each"
    free = [need.experiment for need in needs if need.topology.host_nodes is None]
    if free:
        what += f", but the guests of {', '.join(free)} are not bound"
        return Diagnosis("numa", "warn", what, "host_nodes: auto   # under the guest in lab.yaml")
    return ok("numa", what)


def governor(facts: HostFacts) -> Diagnosis:
    name = "cpu governor"
    if not facts.governors:
        return ok(name, "none: this host does not control CPU frequencies")
    names = ", ".join(sorted(facts.governors))
    if facts.governors == {"performance"}:
        return ok(name, names)
    mend = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
    return Diagnosis(name, "warn", f"{names}: CPU frequency changes during measurements", mend)


def load(busy_cores: float, steal_share: float) -> Diagnosis:
    """Diagnose the host load, measured while labctl was idle.

    `busy_cores` is CPU time per second; `steal_share` is the share of all CPU time
    that the host of this virtual machine gave to others.
    """
    used = f"{busy_cores:.1f} cores used by other processes"
    if steal_share > _STEAL_SHARE:
        what = f"{used}, {100 * steal_share:.0f} % of CPU time stolen by the hypervisor"
        return Diagnosis("load", "warn", what, "measure when its host is less busy")
    if busy_cores > _IDLE_CORES:
        mend = "ps -eo pid,pcpu,args --sort=-pcpu | head   # then stop them, or wait"
        return Diagnosis("load", "warn", f"{used}: adds noise to measurements", mend)
    return ok("load", used)
