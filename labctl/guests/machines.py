"""The machine of each architecture that QEMU makes for a guest, and what its kernel is told."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# What the lab reads on the console must be there: warnings too, whatever `quiet`,
# `loglevel=` or `dmesg -n` ask for, and with the time that tells the kernel's lines
# from a program's.
FULL_CONSOLE = "ignore_loglevel printk.time=1"
# oops=panic: a kernel that has oopsed measures nothing more that could be
# believed. panic=-1 with -no-reboot ends QEMU at once.
_ALWAYS = f"panic=-1 oops=panic {FULL_CONSOLE}"
_TICKS = re.compile(r"^CONFIG_HZ=(\d+)$", re.MULTILINE)


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
    fastest_delay_hz: int | None = None

    def delay_loop(self, config: Path | None) -> str:
        """Return the parameter that spares a translated kernel from timing its delay loop.

        Each vCPU but the first would do so, for long and in vain: "Consider using lpj=",
        says Linux then. Under KVM it is told by the hypervisor. The value is
        that of the fastest counter, so that a delay is never shorter than asked. `config`
        is the kernel's, which has the ticks per second; without it, nothing is said.
        """
        if config is None or self.fastest_delay_hz is None or not config.is_file():
            return ""
        ticks = _TICKS.search(config.read_text())
        return f"lpj={self.fastest_delay_hz // int(ticks[1])}" if ticks else ""


MACHINES = {
    "x86_64": Machine(
        type="pc",
        # Offered ERMS, the kernel clears pages a byte at a time, which translation
        # makes half as fast as by words.
        emulated_cpu="max,-erms",
        # no_timer_check: on a host so loaded that a translated guest gets no interrupt
        # in ten ticks, the kernel would take its timer for broken, and panic.
        command_line=f"console=ttyS0,115200 {_ALWAYS} no_timer_check",
        # By the time-stamp counter, which a translated guest reads from the host's.
        fastest_delay_hz=5_000_000_000,
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
