"""Judges what guests run on: QEMU, accelerators, CPUs, memory, and what else is going on. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from labctl.doctor.diagnosis import Diagnosis, Status, ok
from labctl.experiments.needs import Need, shortage
from labctl.host_facts import HostFacts
from labctl.units import GIB, format_size

_OLDEST_QEMU = (5, 0)  # the first with `prealloc-threads`
_INSTALL_QEMU = "sudo apt-get install qemu-system-x86"
# Of one core: what is busy beyond it is somebody else's work.
_IDLE_CORES = 0.2
_STEAL_SHARE = 0.01
_FEW_HUGEPAGES = 8


def qemu(version: str) -> Diagnosis:
    """Judge QEMU by its version, empty if it is not installed."""
    if not version:
        return Diagnosis("qemu", "fail", "qemu-system-x86_64 does not run", _INSTALL_QEMU)
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    if numbers < _OLDEST_QEMU:
        oldest = ".".join(map(str, _OLDEST_QEMU))
        return Diagnosis(
            "qemu", "fail", f"{version} is too old: at least {oldest} is needed", _INSTALL_QEMU
        )
    return ok("qemu", version)


def tcg(failure: str) -> Diagnosis:
    """Judge QEMU's emulator by why its probe guest failed, empty if it ran."""
    if failure:
        return Diagnosis("tcg", "fail", failure, "sudo apt-get install --reinstall qemu-system-x86")
    return ok("tcg", "a probe guest ran under QEMU's emulator")


def kvm(failure: str, facts: HostFacts, asked: str) -> Diagnosis:
    """Judge KVM by why it failed, empty if its probe guest ran; `asked` is lab.yaml's accel."""
    if not failure:
        return ok("kvm", "a probe guest ran under KVM")
    if asked == "tcg":
        return ok("kvm", f"{failure}; not needed: lab.yaml says `accel: tcg`")
    status: Status = "fail" if asked == "kvm" else "warn"
    what = failure if asked == "kvm" else f"{failure}; guests run under TCG, only ratios count"
    return Diagnosis("kvm", status, what, _kvm_mend(failure, facts))


def _kvm_mend(failure: str, facts: HostFacts) -> str:
    if "Permission denied" in failure:
        return (
            "sudo chgrp kvm /dev/kvm; sudo chmod g+rw /dev/kvm; sudo usermod -aG kvm $USER"
            "   # then log in again"
        )
    if failure.startswith("there is no "):
        if "vmx" in facts.cpu_flags:
            return "sudo modprobe kvm_intel"
        if "svm" in facts.cpu_flags:
            return "sudo modprobe kvm_amd"
    if "hypervisor" in facts.cpu_flags:
        return (
            "on the host of this virtual machine: modprobe kvm_intel nested=1 (or kvm_amd), "
            "and give the machine the CPU model `host`; or a host of real hardware"
        )
    if failure.startswith("there is no "):
        return "turn on VT-x or AMD-V in the firmware"
    return "sudo dmesg | grep -i kvm   # says more"


def nested(facts: HostFacts) -> Diagnosis:
    """Judge whether this host is itself a guest, and what that costs."""
    name = "nested virtualisation"
    on = facts.nested in ("Y", "1")
    if "hypervisor" not in facts.cpu_flags:
        word = "on" if on else "off"
        return ok(name, f"this host is real hardware; guests of its guests: {word}")
    if facts.cpu_flags & {"vmx", "svm"}:
        what = "this host is a virtual machine that shows virtualisation: exits cost more, and "
        return Diagnosis(
            name, "warn", f"{what}its own host's load is felt here", "a host of real hardware"
        )
    return Diagnosis(
        name,
        "warn",
        "this host is a virtual machine, and its CPU shows neither vmx nor svm",
        "turn nested virtualisation on for it: CPU model `host`, kvm_intel or kvm_amd nested=1",
    )


def cores(facts: HostFacts, needs: Sequence[Need]) -> Diagnosis:
    """Judge whether the vCPUs of a guest have a core each; other guests pause meanwhile."""
    largest = max(needs, key=lambda need: need.topology.vcpus, default=None)
    have = f"{facts.cores} of this host can be used"
    if largest is None:
        return ok("cores", have)
    vcpus = largest.topology.vcpus
    if vcpus <= facts.cores:
        return ok("cores", f"{have}, a guest has {vcpus}")
    return Diagnosis(
        "cores",
        "warn",
        f"{have}, a guest has {vcpus} (experiment {largest.experiment}): overcommitted, "
        f"work in parallel is at most {facts.cores} times as fast, `pin: auto` pins nothing",
        f"a host with {vcpus} cores, or fewer `nodes` or `cpus_per_node`",
    )


def memory(facts: HostFacts, asked: Sequence[Need]) -> Diagnosis:
    """Judge whether the guests of every experiment fit at the same time."""
    needs = [need for need in asked if not need.topology.hugepages]
    free = f"{_gib(facts.available_bytes)} of {_gib(facts.memory_bytes)} available"
    if not needs:
        return ok("memory", free)
    short = [need for need in needs if need.memory_bytes > facts.available_bytes]
    if not short:
        most = max(needs, key=lambda need: need.memory_bytes)
        return ok("memory", f"{free}, {most.experiment} needs {_needed(most)}")
    each = ", ".join(f"{need.experiment} needs {_needed(need)}" for need in short)
    smallest = min(
        facts.available_bytes // (need.guests * need.topology.nodes) // 2**20 for need in short
    )
    return Diagnosis(
        "memory",
        "fail",
        f"{free}: {each}",
        f"labctl down   # and end what else takes memory, or `memory_per_node: {smallest}MiB`",
    )


def _needed(need: Need) -> str:
    return f"{_gib(need.memory_bytes)} for {need.guests} guests"


def hugepages(facts: HostFacts, needs: Sequence[Need], failures: Mapping[int, str]) -> Diagnosis:
    """Judge hugepages; `failures` holds why a probe guest failed on each size that was tried."""
    asking = [need for need in needs if need.topology.hugepages]
    short = [f"{need.experiment} {why}" for need in asking if (why := shortage(need, facts, ()))]
    if short:
        most = max(asking, key=lambda need: need.memory_bytes)
        size = most.topology.hugepages or 1
        return Diagnosis(
            "hugepages", "fail", ", ".join(short), _more(size, most.memory_bytes // size)
        )
    told = {size: why for size, why in failures.items() if why}
    if told:
        size, why = next(iter(told.items()))
        return Diagnosis("hugepages", "warn", f"of {format_size(size)}: {why}", _more(size, 1024))
    free = [f"{count} of {format_size(size)}" for size, count in facts.hugepages.items() if count]
    if free:
        return ok("hugepages", f"free: {', '.join(free)}")
    return ok("hugepages", "none reserved; no guest of the lab asks for any")


def enough_hugepages(size_bytes: int, count: int) -> bool:
    """Say whether so many free pages are worth a probe guest, which takes 16 MiB."""
    return size_bytes * count >= 2 * _FEW_HUGEPAGES * 2**20


def _more(size_bytes: int, count: int) -> str:
    folder = f"/sys/kernel/mm/hugepages/hugepages-{size_bytes // 1024}kB"
    return f"echo {count} | sudo tee {folder}/nr_hugepages"


def numa(facts: HostFacts, needs: Sequence[Need], failures: Mapping[int, str]) -> Diagnosis:
    """Judge host nodes by why memory of a probe guest could not be bound to each."""
    count = len(facts.nodes)
    nodes = f"{count} host node{'s' if count != 1 else ''}"
    told = {node: why for node, why in failures.items() if why}
    if told:
        node, why = next(iter(told.items()))
        return Diagnosis(
            "numa",
            "warn",
            f"{nodes}; guest memory cannot be bound to node {node}: {why}",
            "outside of a container, or with its seccomp profile letting mbind through",
        )
    if count <= 1:
        return ok("numa", f"{nodes}: memory can be bound, and there is nothing to choose from")
    what = f"{nodes}; memory of a probe guest was bound to each"
    free = [need.experiment for need in needs if need.topology.host_nodes is None]
    if free:
        what += f", and guests of {', '.join(free)} take theirs where it comes"
        return Diagnosis("numa", "warn", what, "host_nodes: auto   # under the guest in lab.yaml")
    return ok("numa", what)


def governor(facts: HostFacts) -> Diagnosis:
    """Judge the CPU frequency governors."""
    name = "cpu governor"
    if not facts.governors:
        return ok(name, "the host shows none: frequencies are not its to choose")
    names = ", ".join(sorted(facts.governors))
    if facts.governors == {"performance"}:
        return ok(name, names)
    mend = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
    return Diagnosis(name, "warn", f"{names}: clocks follow the load while it is measured", mend)


def load(busy_cores: float, steal_share: float) -> Diagnosis:
    """Judge what else ran while nothing of ours did.

    `busy_cores` is CPU time a second, `steal_share` the part of all CPU time that
    the host of this virtual machine gave to others.
    """
    told = f"{busy_cores:.1f} cores busy with other work"
    if steal_share > _STEAL_SHARE:
        what = f"{told}, {100 * steal_share:.0f} % of the time stolen by this machine's own host"
        return Diagnosis("load", "warn", what, "measure when its host has less to do")
    if busy_cores > _IDLE_CORES:
        mend = "ps -eo pid,pcpu,args --sort=-pcpu | head   # and end it, or wait"
        return Diagnosis("load", "warn", f"{told}: it will be in the figures", mend)
    return ok("load", told)


def _gib(value: int) -> str:
    return f"{value / GIB:.1f} GiB"
