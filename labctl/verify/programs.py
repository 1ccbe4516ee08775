"""The programs that `labctl verify` runs in a guest, and their verdicts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from labctl.errors import BadOutput
from labctl.experiments.json_output import last_object
from labctl.stats.proportions import p_not_above
from labctl.transports import Outcome
from labctl.verify.settings import Place
from labctl.verify.types import CheckStatus

Kind = Literal["integrity", "stress-ng", "selftests"]

# Under TCG and with KASAN a pass may take minutes on a busy host. The kernel reports hung
# tasks much earlier.
_GRACE_SECONDS = 600.0
# Exit statuses for "not supported here": kselftest.h; stress-ng(1), EXIT STATUS.
_SKIPPED: Mapping[Kind, frozenset[int]] = {
    "integrity": frozenset({4}),
    "selftests": frozenset({4}),
    "stress-ng": frozenset({3, 4}),
}
_SHOWN_LINES = 20
# A failed test in KTAP (Documentation/dev-tools/ktap.rst), at any depth.
_NOT_OK = re.compile(r"[ \t]*not ok \d+ (?:- )?(.+)")


@dataclass(frozen=True, slots=True)
class Program:
    """A program in the guest: the check's name, arguments and time limit.

    It runs at settings of `places`; at those of `hands_over` it must make a series with
    counters hand over.
    """

    kind: Kind
    name: str
    argv: tuple[str, ...]
    timeout_seconds: float
    places: frozenset[Place] = frozenset({Place.FIRST})
    hands_over: frozenset[Place] = frozenset()

    @property
    def check(self) -> str:
        """The full name of the check: KIND/NAME."""
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class CheckVerdict:
    """The verdict on a program; `failed_parts` are its failed tests, if it has tests.

    `kills`: processes that were OOM-killed and should not have been, if nothing else
    failed. `trials`: how many there were, and in how many of them a process was killed, in
    a scenario that has trials.
    """

    status: CheckStatus
    why: str = ""
    details: tuple[str, ...] = ()
    failed_parts: frozenset[str] = frozenset()
    kills: int = 0
    trials: tuple[int, int] | None = None


# Stressors of stress-ng(1) that map, share, move and free memory, with options that limit
# their size to that of a guest.
_STRESSORS: Mapping[str, tuple[str, ...]] = {
    "vm": ("--vm-bytes", "64M", "--vm-method", "all", "--verify"),
    "mmap": ("--mmap-bytes", "32M", "--verify"),
    "fork": (),
    "madvise": (),
    "munmap": (),
    "mremap": ("--mremap-bytes", "32M", "--verify"),
    "remap": ("--verify",),
    "mmapfork": (),
    "brk": (),
    "bigheap": ("--bigheap-growth", "1M"),
}
_STRESSOR_PROCESSES = 2
# Of trials near a memory limit: a process that gets no CPU for a while may free too late
# on any kernel.
_TOLERATED_SHARE = 0.1
SIGNIFICANT = 0.01


def stressors(seconds: int) -> list[Program]:
    """Return the stressors of stress-ng, each run for `seconds`."""
    return [
        Program(
            "stress-ng",
            name,
            ("stress-ng", f"--{name}", str(_STRESSOR_PROCESSES), *more, "--oomable",
             "--timeout", f"{seconds}s", "--temp-path", "/tmp"),  # noqa: S108 - of the guest
            seconds + _GRACE_SECONDS,
        )
        for name, more in _STRESSORS.items()
    ]  # fmt: skip


def verdict_of(program: Program, outcome: Outcome) -> CheckVerdict:
    """Return the verdict on a program that ended."""
    if program.kind == "integrity":
        return _integrity(outcome)
    if outcome.status == 0:
        return CheckVerdict(CheckStatus.PASSED)
    if outcome.status in _SKIPPED[program.kind]:
        return CheckVerdict(CheckStatus.SKIPPED, "".join(_lines(outcome)[-1:]).strip())
    verdict = _failed(outcome)
    parts = _failed_parts(outcome.text) or frozenset({program.name})
    return replace(verdict, failed_parts=parts)


def _failed_parts(text: str) -> frozenset[str]:
    found = (_NOT_OK.match(line) for line in text.split("\n"))
    return frozenset(one[1].strip() for one in found if one and "# SKIP" not in one[1])


def _integrity(outcome: Outcome) -> CheckVerdict:
    report = _report(outcome.text)
    why, trials = str(report.get("why", "")), _trials(report)
    if outcome.status == 0:
        return CheckVerdict(CheckStatus.PASSED, why, trials=trials)
    if outcome.status in _SKIPPED["integrity"]:
        return CheckVerdict(CheckStatus.SKIPPED, why)
    kills = report.get("unexpected_kills", 0)
    is_all = report.get("faults") == 1 and isinstance(kills, int)
    if is_all and trials and p_not_above(trials[1], trials[0], _TOLERATED_SHARE) > SIGNIFICANT:
        what = f"{why}: not shown to be more than {_TOLERATED_SHARE:.0%}"
        return CheckVerdict(CheckStatus.PASSED, what, trials=trials)
    return replace(_failed(outcome, why), kills=kills if is_all else 0, trials=trials)


def _trials(report: Mapping[str, Any]) -> tuple[int, int] | None:
    found = (report.get("trials"), report.get("trials_with_kills"))
    match found:
        case (int(trials), int(killed)) if 0 <= killed <= trials and trials:
            return trials, killed
    return None


def _report(text: str) -> Mapping[str, Any]:
    """Return the program's report, a JSON object in the last line."""
    try:
        return last_object(text.rstrip().rpartition("\n")[2]) or {}
    except BadOutput:
        return {}


def _failed(outcome: Outcome, why: str = "") -> CheckVerdict:
    shown = tuple(_lines(outcome)[-_SHOWN_LINES:])
    return CheckVerdict(CheckStatus.FAILED, why or f"exited with status {outcome.status}", shown)


def _lines(outcome: Outcome) -> list[str]:
    parts = (part.decode("utf-8", "replace") for part in (outcome.stdout, outcome.stderr))
    return [line for part in parts for line in part.splitlines() if line.strip()]
