"""The machine of each architecture that QEMU makes for a guest, and what its kernel is told."""

from __future__ import annotations

from dataclasses import dataclass

# oops=panic: a kernel that has oopsed measures nothing more that could be
# believed. panic=-1 with -no-reboot ends QEMU at once.
_ALWAYS = "panic=-1 oops=panic"


@dataclass(frozen=True, slots=True)
class Machine:
    """What of a guest's command line an architecture decides.

    The console is the machine's first serial port; the line for commands is the next
    one, or, where the machine has no other, a `line_device` on its PCI bus.
    """

    type: str
    emulated_cpu: str
    command_line: str
    line_device: str | None = None


MACHINES = {
    "x86_64": Machine(
        type="pc",
        # Offered ERMS, the kernel clears pages a byte at a time, which translation
        # makes half as fast as by words.
        emulated_cpu="max,-erms",
        # no_timer_check: on a host so loaded that a translated guest gets no interrupt
        # in ten ticks, the kernel would take its timer for broken, and panic.
        command_line=f"console=ttyS0,115200 {_ALWAYS} no_timer_check",
    ),
    "arm64": Machine(
        type="virt,gic-version=3",
        emulated_cpu="max",
        # mitigations=off: on x86 the kernel is built without them; here Kconfig has no
        # such choice.
        command_line=f"console=ttyAMA0,115200 {_ALWAYS} mitigations=off",
        # A 16550, as on x86: the same driver, and the same line of bytes. It is ttyS0.
        line_device="pci-serial",
    ),
}
