"""Run all checks of one variant of a kernel: is it as correct as its base?

A debug kernel boots and runs programs that detect wrong memory contents, at the settings
of lab.yaml's `verify:` and at its defaults. Kernel splats, errors of these programs,
memory that is not freed and a series that does not hand over are failures.
"""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace

from msgspec import UNSET

from labctl.errors import GuestError
from labctl.experiments import tunables
from labctl.guests.guest import Guest
from labctl.lab.models import Kernel, Lab, Variant
from labctl.stats.proportions import p_not_more_often
from labctl.units import rough_size
from labctl.verify import memory
from labctl.verify.programs import SIGNIFICANT, CheckVerdict, Program, verdict_of
from labctl.verify.settings import Place, Point, Setting, points
from labctl.verify.types import CheckResult, CheckStatus, Trials

__all__ = ["Check", "Checker", "Options"]

_BOOT_SECONDS = 300.0
_SILENCE_SECONDS = 180.0
_TOLERATED = frozenset({"oom-kill"})
_LOST_SHARE = 0.01
_TAIL_LINES = 40
_KMEMLEAK = "/sys/kernel/debug/kmemleak"
_SCAN_SECONDS = 300.0
# At these a series must hand over in some program.
_EXERCISED = frozenset({Place.FIRST, Place.NEXT, Place.DEFAULTS})


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a variant of a kernel at one setting, with its verdict."""

    variant: str
    name: str
    setting: Setting
    verdict: CheckVerdict
    seconds: float
    handovers: int | None = None
    host: str = ""  # the worker's name, with a scheduler

    @property
    def title(self) -> str:
        """The check and its setting as one line."""
        return " ".join(
            [f"{self.variant}: {self.name}", *(f"{k}={v}" for k, v in self.setting.items())]
        )

    def result(self, on_base: CheckStatus | None) -> CheckResult:
        """Return the check for the document, beside its verdict on the base."""
        trials = self.verdict.trials
        return CheckResult(
            variant=self.variant,
            name=self.name,
            setting=dict(self.setting),
            status=self.verdict.status,
            on_base=on_base,
            why=self.verdict.why,
            handovers=self.handovers,
            trials=Trials(count=trials[0], with_kills=trials[1]) if trials else None,
            seconds=round(self.seconds, 1),
            details=self.verdict.details,
            host=self.host or UNSET,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Which checks to run, by name patterns, and whether to stop at the first failure.

    Only the named variants are checked, all of them if none is named. `quick`: only at
    the first setting and at the first defaults. `trials`: how many a scenario that counts
    kills in trials does at least.
    """

    only: tuple[str, ...] = ("*",)
    stop_at_first: bool = False
    variants: tuple[str, ...] = ()
    quick: bool = False
    trials: int | None = None

    def takes(self, variant: Variant, name: str) -> bool:
        """Return whether a check is selected for this variant."""
        is_chosen = not self.variants or variant.name in self.variants
        return is_chosen and _matches(name, self.only) and _matches(name, variant.checks)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


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
    _stack: ExitStack = field(default_factory=ExitStack)
    _guest: Guest | None = None

    def run(self) -> list[Check]:
        """Run the checks and return them; a guest's failure is a result, not an error."""
        checks: list[Check] = []
        for point in self.points():
            checks += self.at(point)
            if self.options.stop_at_first and has_failed(checks):
                break
        return checks

    def points(self) -> list[Point]:
        """Return the settings at which programs are selected."""
        every = points(self.lab, self.kernel, quick=self.options.quick)
        return [point for point in every if any(self._wanted(point))]

    def count(self) -> int:
        """Return the number of checks, if none ends them."""
        return sum(
            len(list(self._wanted(point))) + self._asks_for_handovers(point) + self._asks_for_leaks
            for point in self.points()
        )

    def at(self, point: Point) -> list[Check]:
        """Run the checks at one setting, which share a guest; return them."""
        checks = []
        with self._stack:
            for step in self._steps(point):
                checks.append(step)
                self.report(step.title, step.verdict)
                if step.verdict.status is CheckStatus.FAILED and self.options.stop_at_first:
                    break
            self._guest = None
        return checks

    def _steps(self, point: Point) -> Iterator[Check]:
        wanted = list(self._wanted(point))
        exercised = 0
        for program, must_hand_over in wanted:
            check = self._step(program, point.setting, must_hand_over)
            exercised += check.handovers or 0
            yield check
        if not wanted:
            return
        if self._asks_for_handovers(point):
            yield Check(self.variant.name, "exercised", point.setting, _exercised(exercised), 0.0)
        if self._asks_for_leaks:
            yield self._timed("kmemleak", point.setting, self._kmemleak)

    def _asks_for_handovers(self, point: Point) -> bool:
        is_counted = bool(self._counters()) and point.places[0] in _EXERCISED
        return is_counted and _matches("exercised", self.options.only)

    @property
    def _asks_for_leaks(self) -> bool:
        return self.options.takes(self.variant, "kmemleak")

    def _wanted(self, point: Point) -> Iterator[tuple[Program, bool]]:
        """Yield the selected programs that run at a point, and whether each must hand over."""
        places = {
            program.check: place
            for place in reversed(point.places)
            for program in self.programs
            if place in program.places
        }
        for program in self.programs:
            place = places.get(program.check)
            if place in program.places and self.options.takes(self.variant, program.check):
                yield program, bool(self._counters()) and place in program.hands_over

    def _step(self, program: Program, setting: Setting, must_hand_over: bool) -> Check:
        """Run one program; its check has the number of handovers that it caused."""
        handovers: int | None = None

        def work(guest: Guest) -> CheckVerdict:
            nonlocal handovers
            counted = self._handovers(guest)
            before = memory.unaccounted_bytes(guest)
            outcome = guest.run(program.argv, timeout_seconds=program.timeout_seconds)
            after = self._handovers(guest)
            if counted is not None and after is not None:
                handovers = after - counted
            verdict = verdict_of(program, outcome)
            if verdict.status is CheckStatus.FAILED:
                return verdict
            if verdict.status is CheckStatus.PASSED and must_hand_over and handovers == 0:
                return _exercised(0)
            lost = _memory_back(guest, before)
            return replace(lost, trials=verdict.trials) if lost else verdict

        check = self._timed(program.check, setting, work)
        return replace(check, handovers=handovers)

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

    def _handovers(self, guest: Guest) -> int | None:
        """Return the series' handovers; None if the kernel does not count them."""
        return tunables.read_counters(guest, self._counters()).get("handovers")

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


def has_failed(checks: Iterable[Check]) -> bool:
    """Return whether a check failed."""
    return any(check.verdict.status is CheckStatus.FAILED for check in checks)


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

    This applies to the kernel tree's own selftests, test by test, and to OOM kills: as
    many as on the base are known. In trials their shares are compared; one that is shown
    to be larger than on the base is a failure. Splats, wrong memory contents and lost
    memory are always failures.
    """
    return [_beside(check, counterpart(check, base)) for check in checks]


def counterpart(check: Check, base: Sequence[Check]) -> Check | None:
    """Return the base's check with the most of a check's setting, as it lacks tunables."""
    found = [
        each
        for each in base
        if (each.variant, each.name) == (check.variant, check.name)
        and each.setting.items() <= check.setting.items()
    ]
    return max(found, key=lambda each: len(each.setting), default=None)


def _beside(check: Check, base: Check | None) -> Check:
    failed = CheckStatus.FAILED
    if base is None:
        return check
    own, others = check.verdict.trials, base.verdict.trials
    if own and others and p_not_more_often(*reversed(own), *reversed(others)) <= SIGNIFICANT:
        what = f"more often OOM-killed than on the base: in {own[1]} of {own[0]} trials, "
        what += f"base: {others[1]} of {others[0]}"
        return replace(check, verdict=replace(check.verdict, status=failed, why=what))
    if check.verdict.status is not failed or base.verdict.status is not failed:
        return check
    parts, kills = check.verdict.failed_parts, check.verdict.kills
    is_known = (
        parts <= base.verdict.failed_parts
        if parts and check.name.startswith("selftests/")
        else kills > 0 and (bool(own and others) or kills <= base.verdict.kills)
    )
    if not is_known:
        return check
    return replace(
        check,
        verdict=replace(check.verdict, status=CheckStatus.KNOWN, why="also fails on the base"),
    )
