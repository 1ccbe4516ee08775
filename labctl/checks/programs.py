"""What `labctl verify` runs in a guest, and how the end of each program is judged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from labctl.transports import Outcome

Status = Literal["passed", "failed", "skipped", "known"]
Kind = Literal["integrity", "stress-ng", "selftests"]

# In the order in which they run: what finds most comes first.
SCENARIOS = (
    "stale", "free", "exit", "kill", "fork", "backlog", "memcg", "oom", "failslab", "hotplug",
)  # fmt: skip
_SIZE = "32MiB"
_BACKLOG_SIZE = "512MiB"
_PROCESSES = 4
_GRACE_SECONDS = 240.0  # under translation and with KASAN, a process may need a minute to end
# Exit statuses that say: this cannot be tried here. kselftest.h; stress-ng(1), EXIT STATUS.
_SKIPPED: Mapping[Kind, frozenset[int]] = {
    "integrity": frozenset({4}),
    "selftests": frozenset({4}),
    "stress-ng": frozenset({3, 4}),
}
_TOLD_LINES = 20


@dataclass(frozen=True, slots=True)
class Program:
    """A program of a guest: the check's name, its words, and how long it may take."""

    kind: Kind
    name: str
    argv: tuple[str, ...]
    timeout_seconds: float

    @property
    def check(self) -> str:
        """The name of the check that it is."""
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Judgement:
    """How a program ended; `failed_parts` names the tests in it that failed, if it tells."""

    status: Status
    why: str = ""
    details: tuple[str, ...] = ()
    failed_parts: frozenset[str] = frozenset()


def integrity(seconds: int, held_back_bytes: int) -> list[Program]:
    """Return the lab's own scenarios, each of `seconds`."""
    return [
        Program(
            "integrity",
            name,
            ("integrity", name, "--seconds", str(seconds),
             "--size", _BACKLOG_SIZE if name == "backlog" else _SIZE,
             "--processes", str(_PROCESSES), "--held-back", str(held_back_bytes)),
            seconds + _GRACE_SECONDS,
        )
        for name in SCENARIOS
    ]  # fmt: skip


def judge(program: Program, outcome: Outcome) -> Judgement:
    """Say what the end of a program means."""
    if program.kind == "integrity":
        return _integrity(outcome)
    if outcome.status == 0:
        return Judgement("passed")
    if outcome.status in _SKIPPED[program.kind]:
        return Judgement("skipped", _last_line(outcome))
    return _failed(outcome)


def _integrity(outcome: Outcome) -> Judgement:
    why = _why(outcome.text)
    if outcome.status == 0:
        return Judgement("passed", why)
    if outcome.status in _SKIPPED["integrity"]:
        return Judgement("skipped", why)
    return _failed(outcome, why)


def _why(text: str) -> str:
    """Return what the report, one JSON object in the last line, gives as its reason."""
    lines = text.strip().splitlines()
    try:
        report = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return ""
    return str(report.get("why", "")) if isinstance(report, dict) else ""


def _failed(outcome: Outcome, why: str = "") -> Judgement:
    output = (outcome.stdout + outcome.stderr).decode("utf-8", "replace").splitlines()
    told = tuple(output[-_TOLD_LINES:])
    return Judgement("failed", why or f"ended with status {outcome.status}", told)


def _last_line(outcome: Outcome) -> str:
    output = (outcome.stdout + outcome.stderr).decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(output) if line.strip()), "")
