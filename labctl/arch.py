"""The architectures of guests, by their names in lab.yaml: kernel, compiler and QEMU machine.

The host's gcc compiles for its own architecture, the cross compiler of the Debian
package gcc-TRIPLET for another one.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

ArchName = Literal["x86_64", "arm64"]

# The console must show all messages, warnings too, whatever `quiet`, `loglevel=` or
# `dmesg -n` ask for. Only the kernel's lines have a time, a program's do not.
FULL_CONSOLE = "ignore_loglevel printk.time=1"
# oops=panic: results of a kernel after an oops are not credible. panic=-1 with
# -no-reboot ends QEMU at once.
_ALWAYS = f"panic=-1 oops=panic {FULL_CONSOLE}"
_TICKS = re.compile(r"^CONFIG_HZ=(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A value of `defaults:` that an architecture does not support."""

    value: str
    reason: str
    replacement: str


@dataclass(frozen=True, slots=True)
class Architecture:
    """An architecture: its kernel, its compiler and the machine that QEMU emulates for it.

    Kernel: `kbuild` is its name in the kernel source, `image` the path of the bootable
    image in a build folder, `image_format` the file's format with its article,
    `numa_options` the options without which the kernel sees one node only.

    QEMU: the console is the first serial port of `qemu_machine`. The line for commands is
    the second one, or a `line_device` on the PCI bus if the machine has one port only.
    `parameters` are the architecture's kernel parameters besides the common ones.
    `emulated_threads` is added to the emulated CPU if cores have several threads.
    `highest_apic_id` is the limit under TCG, None if there is no APIC.
    `has_acpi`: guests have ACPI's tables, without which there is no HMAT and no hotplug.
    `fastest_delay_hz` is the fastest possible counter of the delay loop.

    `unsupported` maps keys of `defaults:` to the value that the architecture lacks.
    """

    name: ArchName
    kbuild: str
    machine: str  # as in uname(2)
    elf_machine: int  # e_machine of elf(5)
    triplet: str
    image: Path
    image_format: str
    numa_options: tuple[str, ...]
    setup: str  # the make command that installs its tools
    qemu: str
    qemu_package: str
    qemu_machine: str
    emulated_cpu: str
    emulated_threads: str
    most_vcpus: int
    console: str
    parameters: str
    line_device: str | None = None
    highest_apic_id: int | None = None
    has_acpi: bool = False
    fastest_delay_hz: int | None = None
    unsupported: Mapping[str, Unsupported] = field(default_factory=dict, hash=False)

    @property
    def is_foreign(self) -> bool:
        """Whether the host has another architecture."""
        return platform.machine() != self.machine

    @property
    def cross_compile(self) -> str:
        """Prefix of the tools' names, empty on a host of the same architecture."""
        return f"{self.triplet}-" if self.is_foreign else ""

    @property
    def hint(self) -> str:
        """The hint of an error about a missing tool."""
        return f"`{self.setup}` installs the tools for {self.name} kernels and guests"

    @property
    def command_line(self) -> str:
        """The kernel parameters of every guest under the qemu launcher."""
        return f"console={self.console},115200 {_ALWAYS} {self.parameters}"

    def cpu(self, threads: int) -> str:
        """Return QEMU's name of the emulated CPU, for cores of so many threads."""
        return self.emulated_cpu + (self.emulated_threads if threads > 1 else "")

    def delay_loop(self, config: str) -> str:
        """Return the kernel parameter that skips the timing of the delay loop, or "".

        Under TCG each vCPU but the first would time it, which takes long and fails:
        Linux then prints "Consider using lpj=". Under KVM the hypervisor supplies the
        value. The value is that of the fastest counter, so that no delay is shorter
        than requested. `config` is the text of the kernel's .config, which has the
        ticks per second.
        """
        ticks = _TICKS.search(config)
        if ticks is None or self.fastest_delay_hz is None:
            return ""
        return f"lpj={self.fastest_delay_hz // int(ticks[1])}"


X86_64 = Architecture(
    name="x86_64",
    kbuild="x86",
    machine="x86_64",
    elf_machine=62,
    triplet="x86_64-linux-gnu",
    image=Path("arch/x86/boot/bzImage"),
    image_format="a bzImage",
    numa_options=("CONFIG_NUMA", "CONFIG_ACPI_NUMA"),  # ACPI describes the nodes
    setup="make setup",
    qemu="qemu-system-x86_64",
    qemu_package="qemu-system-x86",
    qemu_machine="pc",
    # With ERMS, the kernel clears pages a byte at a time, which under TCG is half as
    # fast as by words.
    emulated_cpu="max,-erms",
    # QEMU's emulated CPU is AMD's, which without TOPOEXT reports no threads to Linux.
    emulated_threads=",vendor=GenuineIntel",
    most_vcpus=255,
    has_acpi=True,
    highest_apic_id=254,  # a higher ID needs KVM's interrupt controller
    console="ttyS0",
    # no_timer_check: on a busy host a guest under TCG may get no interrupt in ten
    # ticks; the kernel would conclude that its timer is broken, and panic.
    parameters="no_timer_check",
    # The time-stamp counter, which a guest under TCG reads from the host's.
    fastest_delay_hz=5_000_000_000,
)
ARM64 = Architecture(
    name="arm64",
    kbuild="arm64",
    machine="aarch64",
    elf_machine=183,
    triplet="aarch64-linux-gnu",
    image=Path("arch/arm64/boot/Image"),
    image_format="an uncompressed arm64 Image",
    numa_options=("CONFIG_NUMA",),  # the device tree describes the nodes
    setup="make arm64",
    qemu="qemu-system-aarch64",
    qemu_package="qemu-system-arm",
    qemu_machine="virt,gic-version=3",
    emulated_cpu="max",
    emulated_threads="",
    most_vcpus=512,
    console="ttyAMA0",
    # mitigations=off: x86 kernels are built without them; arm64 has no Kconfig option.
    parameters="mitigations=off",
    # A 16550 as on x86, with the same driver. It is ttyS0.
    line_device="pci-serial",
    unsupported={
        "launcher": Unsupported(
            "virtme-ng", "its guests use the host's files as root", "launcher: qemu"
        ),
        "transport": Unsupported(
            "ssh", "arm64 guests have a serial port only", "transport: serial"
        ),
        "accel": Unsupported("kvm", "arm64 guests run under TCG", "accel: auto"),
    },
)
ARCHITECTURES: dict[str, Architecture] = {each.name: each for each in (X86_64, ARM64)}
