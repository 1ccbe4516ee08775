"""Run all checks of one variant of a kernel: is it as correct as its base?

A debug kernel boots and runs programs that detect wrong memory contents, at the settings
of lab.yaml's `verify:`. Kernel splats, errors of these programs and memory that is
not freed are failures.
"""

from __future__ import annotations

import fnmatch
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from labctl.errors import GuestError
from labctl.experiments import tunables
from labctl.guests.guest import Guest
from labctl.lab.models import Kernel, Lab, Variant
from labctl.units import Scalar, rough_size
from labctl.verify import memory
from labctl.verify.programs import CheckVerdict, Program, verdict_of
from labctl.verify.types import CheckResult, CheckStatus

__all__ = ["Check", "Checker", "Options", "settings"]

_BOOT_SECONDS = 300.0
_SILENCE_SECONDS = 180.0
_TOLERATED = frozenset({"oom-kill"})
_LOST_SHARE = 0.01
_TAIL_LINES = 40
_KMEMLEAK = "/sys/kernel/debug/kmemleak"
_SCAN_SECONDS = 300.0
Setting = Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a variant of a kernel at one setting, with its verdict."""

    variant: str
    name: str
    setting: Setting
    verdict: CheckVerdict
    seconds: float

    @property
    def title(self) -> str:
        """The check and its setting as one line."""
        return " ".join(
            [f"{self.variant}: {self.name}", *(f"{k}={v}" for k, v in self.setting.items())]
        )

    def result(self, on_base: CheckStatus | None) -> CheckResult:
        """Return the check for the document, beside its verdict on the base."""
        return CheckResult(
            variant=self.variant,
            name=self.name,
            setting=dict(self.setting),
            status=self.verdict.status,
            on_base=on_base,
            why=self.verdict.why,
            seconds=round(self.seconds, 1),
            details=self.verdict.details,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Which checks to run, by name patterns, and whether to stop at the first failure.

    Only the named variants are checked, all of them if none is named.
    """

    only: tuple[str, ...] = ("*",)
    stop_at_first: bool = False
    variants: tuple[str, ...] = ()

    def takes(self, variant: Variant, name: str) -> bool:
        """Return whether a check is selected for this variant."""
        is_chosen = not self.variants or variant.name in self.variants
        return is_chosen and _matches(name, self.only) and _matches(name, variant.checks)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def settings(lab: Lab, kernel: Kernel) -> list[Setting]:
    """Return the settings of `verify:` for a kernel, limited to tunables that it has."""

    def mine(names: Mapping[str, Any]) -> list[str]:
        return [name for name in names if lab.tunables[name].applies_to(kernel.name)]

    fixed = {name: lab.verify.set[name] for name in mine(lab.verify.set)}
    turned = mine(lab.verify.matrix)
    values = itertools.product(*(lab.verify.matrix[name] for name in turned))
    return [dict(zip(turned, each, strict=True)) | fixed for each in values]


@dataclass(slots=True)
class Checker:
    """All checks of one variant of a kernel; `boot` starts a new guest with it.

    `report` is called with a check's title before the check, and again with its verdict.
    """

    lab: Lab
    kernel: Kernel
    variant: Variant
    programs: Sequence[Program]
    options: Options
    boot: Callable[[], AbstractContextManager[Guest]]
    report: Callable[[str, CheckVerdict | None], None]
    checks: list[Check] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack)
    _guest: Guest | None = None

    def run(self) -> list[Check]:
        """Run the checks and return them; a guest's failure is a result, not an error."""
        with self._stack:
            for number, setting in enumerate(settings(self.lab, self.kernel)):
                for step in self._steps(setting, is_first=number == 0):
                    self.checks.append(step)
                    self.report(step.title, step.verdict)
                    if step.verdict.status is CheckStatus.FAILED and self.options.stop_at_first:
                        return self.checks
                self._give_up_guest()
        return self.checks

    def _steps(self, setting: Setting, *, is_first: bool) -> Iterator[Check]:
        wanted = [p for p in self.programs if self.options.takes(self.variant, p.check)]
        counted = self._counters()
        exercised = 0
        for program in wanted:
            # The kernel's own selftests do not depend on the tunables: run them once.
            if program.kind == "selftests" and not is_first:
                continue
            check, handovers = self._step(program, setting)
            exercised += handovers
            yield check
        if counted and wanted and _matches("exercised", self.options.only):
            yield Check(self.variant.name, "exercised", setting, _exercised(exercised), 0.0)
        if self.options.takes(self.variant, "kmemleak"):
            yield self._timed("kmemleak", setting, self._kmemleak)

    def _step(self, program: Program, setting: Setting) -> tuple[Check, int]:
        """Run one program; return its check and the number of handovers it caused."""
        handovers = 0

        def work(guest: Guest) -> CheckVerdict:
            nonlocal handovers
            handovers -= self._handovers(guest)
            before = memory.unaccounted_bytes(guest)
            outcome = guest.run(program.argv, timeout_seconds=program.timeout_seconds)
            handovers += self._handovers(guest)
            verdict = verdict_of(program, outcome)
            if verdict.status is CheckStatus.FAILED:
                return verdict
            return _memory_back(guest, before) or verdict

        check = self._timed(program.check, setting, work)
        return check, max(handovers, 0)

    def _timed(self, name: str, setting: Setting, work: Callable[[Guest], CheckVerdict]) -> Check:
        """Run a check in the guest, which is booted if there is none."""
        began = time.monotonic()
        check = Check(self.variant.name, name, setting, CheckVerdict(CheckStatus.PASSED), 0.0)
        self.report(check.title, None)
        try:
            verdict = work(self._ready(setting))
        except GuestError as error:
            tail = error.console_tail[-_TAIL_LINES:]
            verdict = CheckVerdict(CheckStatus.FAILED, f"{error.status}: {error.what}", tuple(tail))
        if verdict.status is CheckStatus.FAILED and not verdict.failed_parts:
            self._give_up_guest()  # the next check must not see the effects of a failure
        return replace(check, verdict=verdict, seconds=time.monotonic() - began)

    def _ready(self, setting: Setting) -> Guest:
        """Return the current guest, or boot one and set its tunables.

        Raises:
            GuestError: the guest does not boot, or rejects a tunable.
        """
        if self._guest is None:
            guest = self._stack.enter_context(self.boot())
            self._guest = guest
            guest.tolerated = _TOLERATED
            guest.silence_seconds = _SILENCE_SECONDS
            guest.wait_ready(_BOOT_SECONDS)
            tunables.apply(guest, self.lab.tunables, setting, {})
        return self._guest

    def _give_up_guest(self) -> None:
        self._guest = None
        self._stack.close()

    def _counters(self) -> dict[str, str]:
        return tunables.counter_files(self.lab.tunables, self.kernel.name)

    def _handovers(self, guest: Guest) -> int:
        return tunables.read_counters(guest, self._counters()).get("handovers", 0)

    def _kmemleak(self, guest: Guest) -> CheckVerdict:
        """Scan twice: an object that is just being linked is no leak."""
        if _KMEMLEAK not in guest.exchange({}, [_KMEMLEAK]):
            return CheckVerdict(CheckStatus.SKIPPED, "this kernel has no kmemleak")
        scan = f"echo scan > {_KMEMLEAK}; sleep 6; echo scan > {_KMEMLEAK}; cat {_KMEMLEAK}"
        outcome = guest.run(scan, timeout_seconds=_SCAN_SECONDS)
        found = outcome.text.splitlines()
        if found:
            return CheckVerdict(
                CheckStatus.FAILED, "unreferenced objects", tuple(found[:_TAIL_LINES])
            )
        return CheckVerdict(CheckStatus.PASSED)


def _exercised(handovers: int) -> CheckVerdict:
    if handovers:
        return CheckVerdict(CheckStatus.PASSED, f"{handovers} handovers")
    return CheckVerdict(CheckStatus.FAILED, "series not exercised: handovers unchanged")


def _memory_back(guest: Guest, before_bytes: int) -> CheckVerdict | None:
    """Return a failure if more than 1 % of the guest's memory was not freed."""
    tolerated = int(memory.total_bytes(guest) * _LOST_SHARE)
    lost = memory.lost_bytes(guest, before_bytes, tolerated)
    if lost <= tolerated:
        return None
    return CheckVerdict(
        CheckStatus.FAILED,
        f"{rough_size(lost)} were not freed (limit: {rough_size(tolerated)})",
    )


def beside_base(checks: Sequence[Check], base: Sequence[Check]) -> list[Check]:
    """Return the checks, with failures that also occur on the base changed to `known`.

    This applies to the kernel tree's own selftests only, test by test. Splats, wrong
    memory contents and lost memory are always failures.
    """
    known = {
        (check.variant, check.name): check.verdict.failed_parts
        for check in base
        if check.name.startswith("selftests/") and check.verdict.status is CheckStatus.FAILED
    }
    return [_beside(check, known.get((check.variant, check.name))) for check in checks]


def _beside(check: Check, known: frozenset[str] | None) -> Check:
    parts = check.verdict.failed_parts
    if (
        known is None
        or check.verdict.status is not CheckStatus.FAILED
        or not parts
        or not parts <= known
    ):
        return check
    return replace(
        check,
        verdict=replace(check.verdict, status=CheckStatus.KNOWN, why="also fails on the base"),
    )
