"""`TargetBoot`: one kernel on a target, with the runner's interface of a guest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from labctl import files
from labctl.errors import GuestLost, GuestSplat
from labctl.kernels.images import Image
from labctl.targets.machine import TargetMachine
from labctl.transports import Outcome
from labctl.transports.console import scan

_TAIL_LINES = 100


class TargetBoot:
    """A kernel on a target: started by `wait_ready`, running until the next one is started.

    A target runs one kernel at a time, so pausing does nothing. `log` is the file for the
    kernel's messages.
    """

    def __init__(self, machine: TargetMachine, image: Image, command_line: str, log: Path) -> None:
        self._machine = machine
        self._image = image
        self._command_line = command_line
        self.log = log
        self._known: set[str] = set()
        self.boot_id = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._machine.hang_up()

    def wait_ready(self, deadline_seconds: float) -> None:
        """Change the target's kernel; the deadline is at least the target's `boot_timeout`.

        Raises:
            BootFailed: the kernel did not boot.
            GuestSplat: the kernel reported a problem while booting.
        """
        seconds = max(deadline_seconds, self._machine.target.boot_timeout)
        boot = self._machine.change_kernel(self._image, self._command_line, seconds)
        self.boot_id = boot.id
        self._check()

    def run(
        self, argv: Sequence[str] | str, *, timeout_seconds: float, stdin: bytes = b""
    ) -> Outcome:
        """Run a command.

        Raises:
            GuestError: as `Transport.run`; GuestLost also if the target rebooted.
            GuestSplat: the kernel reported a problem.
        """
        try:
            outcome = self._machine.run(argv, timeout_seconds=timeout_seconds, stdin=stdin)
            self._check()
        except (GuestLost, GuestSplat):
            self._machine.hang_up()
            raise
        return outcome

    def exchange(self, writes: Mapping[str, str], reads: Sequence[str]) -> dict[str, str]:
        """Write files, then read some."""
        return self._machine.exchange(writes, reads)

    def pause(self) -> None:
        """Do nothing: a target runs one kernel at a time."""

    def resume(self) -> None:
        """Check that the target still runs this kernel.

        Raises:
            GuestLost: the target rebooted.
        """
        boot = self._machine.boot()
        if boot.id != self.boot_id:
            raise GuestLost(
                f"target rebooted unexpectedly; it now runs kernel {boot.release}",
                where=self._machine.name,
            )

    def _check(self) -> None:
        lines = self._machine.kernel_log()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with files.naming(self.log):
            self.log.write_text("\n".join(lines) + "\n")
        found = [(kind, line) for line in lines if (kind := scan(line)) is not None]
        new = [(kind, line) for kind, line in found if line not in self._known]
        self._known.update(line for _, line in new)
        if new:
            kind, line = new[0]
            raise GuestSplat(
                line.strip(),
                kind=kind,
                where=f"{self._machine.name}: {self.log}",
                console_tail=lines[-_TAIL_LINES:],
            )
