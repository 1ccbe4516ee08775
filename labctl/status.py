"""`SampleStatus`: how one repetition of a workload ended. Pure."""

from __future__ import annotations

from enum import StrEnum


class SampleStatus(StrEnum):
    """The status of a sample; a failure of a guest has the status of its sample."""

    OK = "ok"
    BOOT_FAILED = "boot-failed"
    PANIC = "panic"
    SPLAT = "splat"
    HUNG = "hung"
    DEADLINE = "deadline"
    LOST = "lost"
    BAD_OUTPUT = "bad-output"
    TUNABLE_REFUSED = "knob-refused"  # as stored runs have it
    NOT_EXERCISED = "not-exercised"
    EXERCISED = "exercised"
    SKIPPED = "skipped"


# The guest is lost: later measurements in it are not reliable.
CRASHES = frozenset(
    {
        SampleStatus.BOOT_FAILED,
        SampleStatus.PANIC,
        SampleStatus.SPLAT,
        SampleStatus.HUNG,
        SampleStatus.LOST,
    }
)
