"""The exception classes of labctl. Each error has a message, a location and a hint.

The class decides the exit status of the command: 1 the lab found a problem,
2 invalid input, 3 the host lacks something.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from labctl.status import GuestFault, SampleStatus


class LabError(Exception):
    """Base class of the errors that labctl reports without a traceback.

    `what` is the message; `where` a file with line and key, a guest or a command;
    `hint` says how to fix it.
    """

    exit_status: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  hint: {self.hint}" if self.hint else text


class UserError(LabError):
    """Invalid input: lab.yaml, an argument, a patch that does not apply."""

    exit_status = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One error in a file; `line` and `column` count from 1, `key` is a dotted path."""

    file: str
    line: int
    column: int
    key: str
    what: str
    hint: str | None = None

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.file}:{self.line}:{self.column}: {key}{self.what}{hint}"


class ConfigError(UserError):
    """All errors in a lab.yaml, sorted by line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.file, p.line, p.column)))
        count = len(self.problems)
        super().__init__(f"{count} error{'s' if count != 1 else ''} in the lab file")

    def __str__(self) -> str:
        return "\n".join([*map(str, self.problems), self.what])


class HostError(LabError):
    """The host lacks something: a tool, memory, disk space."""

    exit_status = 3


class CommandError(LabError):
    """A program that labctl ran failed; `status` is its exit status, negative for a signal."""

    def __init__(self, what: str, *, status: int, output: str, hint: str | None = None) -> None:
        super().__init__(what, hint=hint)
        self.status = status
        self.output = output

    @property
    def last_line(self) -> str:
        """The last line of the output; what failed if there is none."""
        return (self.output.strip().splitlines() or [self.what])[-1]


class BuildError(LabError):
    """A kernel or a guest program failed to build; `errors` are lines of the compiler."""

    def __init__(self, what: str, *, log: str, errors: Sequence[str]) -> None:
        super().__init__(what, where=log, hint="see this file for the full build log")
        self.errors = tuple(errors)

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"  | {line}" for line in self.errors)])


class BaselineFailed(LabError):
    """The baseline failed before its first successful repetition, so the run ends.

    `console` is the path of its guest's console log relative to the run's folder, empty
    if unknown.
    """

    def __init__(self, what: str, *, console: str = "") -> None:
        super().__init__(
            what, hint="the run stops, since nothing can be compared without a baseline"
        )
        self.console = console


class GuestError(LabError):
    """A guest failed.

    `status` is the status of the recorded sample; `fault` says why the guest failed, empty if
    the guest itself did not; `console_tail` has up to the last 100 lines of the console.
    """

    status: ClassVar[SampleStatus] = SampleStatus.LOST
    fault: str = ""

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        console_tail: Sequence[str] = (),
        fault: str = "",
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.console_tail = tuple(console_tail)
        self.fault = fault or self.fault

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"  | {line}" for line in self.console_tail)])


class BootFailed(GuestError):
    """The guest did not reach init before the boot deadline and did not panic."""

    status = SampleStatus.BOOT_FAILED
    fault = GuestFault.BOOT_TIMEOUT


class GuestPanic(GuestError):
    """The kernel panicked."""

    status = SampleStatus.PANIC
    fault = GuestFault.PANIC


class GuestSplat(GuestError):
    """The kernel reported a problem and continued: oops, BUG, WARNING, lockup, OOM kill.

    `kind` is one of: oops, bug, warning, soft-lockup, hard-lockup, hung-task, rcu-stall,
    oom-kill, bad-page, kasan, kmsan, kcsan, kfence, ubsan.
    """

    status = SampleStatus.SPLAT

    def __init__(
        self,
        what: str,
        *,
        kind: str,
        where: str | None = None,
        hint: str | None = None,
        console_tail: Sequence[str] = (),
    ) -> None:
        super().__init__(what, where=where, hint=hint, console_tail=console_tail, fault=kind)
        self.kind = kind


class GuestHung(GuestError):
    """Neither the console nor the command line had output until the silence deadline."""

    status = SampleStatus.HUNG
    fault = GuestFault.NO_RESPONSE


class DeadlineExceeded(GuestError):
    """A command in the guest exceeded its deadline while the guest was alive."""

    status = SampleStatus.DEADLINE


class GuestLost(GuestError):
    """The guest is gone: QEMU died or a connection was lost."""

    status = SampleStatus.LOST
    fault = GuestFault.LINE_LOST


class BadOutput(GuestError):
    """A workload exited with status 0 but its output is invalid."""

    status = SampleStatus.BAD_OUTPUT


class TunableRefused(GuestError):
    """A tunable does not read back as the value written to it."""

    status = SampleStatus.TUNABLE_REFUSED
