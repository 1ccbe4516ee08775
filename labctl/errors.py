"""The one tree of errors. Each carries what went wrong, where, and what to do about it.

The class decides the exit status of the command, so that scripts can trust it:
1 the lab found a problem, 2 the user's input is wrong, 3 the host cannot do it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class LabError(Exception):
    """Anything labctl reports without a traceback.

    `what` is one sentence; `where` names a file, line and key, a guest or a
    command; `hint` says what the user can do.
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
    """The input is wrong: lab.yaml, an argument, a patch that does not apply."""

    exit_status = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a file; `line` and `column` count from 1, `key` is a dotted path."""

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
    """Every mistake of a lab.yaml at once, in the order of their lines."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.file, p.line, p.column)))
        count = len(self.problems)
        super().__init__(f"{count} mistake{'s' if count != 1 else ''} in the lab's description")

    def __str__(self) -> str:
        return "\n".join([*map(str, self.problems), self.what])


class HostError(LabError):
    """The host cannot do what was asked: a missing tool, no memory, a full disk."""

    exit_status = 3


class CommandError(LabError):
    """A program that labctl started failed; `status` is its exit status, negative for a signal."""

    def __init__(self, what: str, *, status: int, output: str, hint: str | None = None) -> None:
        super().__init__(what, hint=hint)
        self.status = status
        self.output = output


class BuildError(LabError):
    """A kernel or a guest program did not build; `errors` are the compiler's own lines."""

    def __init__(self, what: str, *, log: str, errors: Sequence[str]) -> None:
        super().__init__(what, where=log, hint="the whole build log is in the file named first")
        self.errors = tuple(errors)

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"  | {line}" for line in self.errors)])


class BaselineFailed(LabError):
    """A baseline failed before any repetition of it was good, so that nothing can be compared.

    `console` is where its guest's console is, from the run's folder; empty if unknown.
    """

    def __init__(self, what: str, *, console: str = "") -> None:
        super().__init__(what, hint="nothing can be compared without it, so the run ends")
        self.console = console


class GuestError(LabError):
    """A guest did not do what a healthy guest does.

    `status` is the sample status that this failure is recorded as;
    `console_tail` holds up to the last 100 lines of the console.
    """

    status: ClassVar[str] = "lost"

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        console_tail: Sequence[str] = (),
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.console_tail = tuple(console_tail)

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"  | {line}" for line in self.console_tail)])


class BootFailed(GuestError):
    """The guest did not reach its init before the boot deadline, without a panic."""

    status = "boot-failed"


class GuestPanic(GuestError):
    """The kernel panicked."""

    status = "panic"


class GuestSplat(GuestError):
    """The kernel complained and went on: oops, BUG, WARNING, lockup, hung task, OOM kill.

    `kind` is the detector's word: oops, bug, warning, soft-lockup, hard-lockup,
    hung-task, rcu-stall, oom-kill, bad-page, kasan, kmsan, kcsan, kfence, ubsan.
    """

    status = "splat"

    def __init__(
        self,
        what: str,
        *,
        kind: str,
        where: str | None = None,
        hint: str | None = None,
        console_tail: Sequence[str] = (),
    ) -> None:
        super().__init__(what, where=where, hint=hint, console_tail=console_tail)
        self.kind = kind


class GuestHung(GuestError):
    """Neither the console nor the command line said anything for the silence deadline."""

    status = "hung"


class DeadlineExceeded(GuestError):
    """A command in the guest outlived its deadline while the guest itself was alive."""

    status = "deadline"


class GuestLost(GuestError):
    """The guest is gone: QEMU died or a line was cut in the middle of something."""

    status = "lost"


class BadOutput(GuestError):
    """A workload ended well and yet did not print what was asked of it."""

    status = "bad-output"


class KnobRefused(GuestError):
    """A tunable did not read back as it was written."""

    status = "knob-refused"
