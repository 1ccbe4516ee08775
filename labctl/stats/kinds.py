"""The words that documents use for verdicts, causes of failures and findings. Pure."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """What the statistics say of a cell; `BASELINE` marks the cell that others are compared to."""

    FASTER = "faster"
    SLOWER = "slower"
    SAME = "same"
    UNDECIDED = "undecided"
    BASELINE = "baseline"

    @property
    def is_difference(self) -> bool:
        """Whether the cell was shown to differ by more than the minimum effect."""
        return self in (Verdict.FASTER, Verdict.SLOWER)


class Whose(StrEnum):
    """What a failure is blamed on."""

    KERNEL = "kernel"
    GUEST = "guest"
    HOST = "host"
    WORKLOAD = "workload"
    TUNABLE = "tunable"
    SERIES = "series"


class FindingKind(StrEnum):
    """What a nightly run found, the most serious kind first."""

    REGRESSED = "regressed"
    CRASHES = "crashes"
    BROKEN = "broken"
    IMPROVED = "improved"
    ALARM = "alarm"
    NOT_CONFIRMED = "not-confirmed"
    NOT_THE_KERNEL = "not-the-kernel"

    @property
    def is_problem(self) -> bool:
        """Whether the exit status of `labctl nightly` is 1 because of it."""
        return self is FindingKind.REGRESSED or self.is_failure

    @property
    def is_failure(self) -> bool:
        """Whether guests or checks failed; the other kinds are changes of a ratio."""
        return self in (FindingKind.CRASHES, FindingKind.BROKEN)
