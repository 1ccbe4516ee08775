"""Failures of samples by kind: cause, count, and console log. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from labctl.printable import printable
from labctl.runs.sample import Key, Sample
from labctl.stats.kinds import Whose
from labctl.stats.retried import replaced
from labctl.status import HOST_FAULTS, SampleStatus

# The cause of each status: a missing program is not a failure of the kernel.
_WHOSE: Mapping[str, Whose] = {
    **dict.fromkeys(
        (SampleStatus.BOOT_FAILED, SampleStatus.PANIC, SampleStatus.SPLAT, SampleStatus.HUNG),
        Whose.KERNEL,
    ),
    SampleStatus.LOST: Whose.GUEST,
    **dict.fromkeys((SampleStatus.DEADLINE, SampleStatus.BAD_OUTPUT), Whose.WORKLOAD),
    SampleStatus.TUNABLE_REFUSED: Whose.TUNABLE,
    **dict.fromkeys((SampleStatus.EXERCISED, SampleStatus.NOT_EXERCISED), Whose.SERIES),
}
_CAUSES: Mapping[Whose, str] = {
    Whose.KERNEL: "its kernel failed",
    Whose.GUEST: "its guest was lost",
    Whose.WORKLOAD: "its workload failed",
    Whose.TUNABLE: "a tunable was rejected",
    Whose.SERIES: "its series was entered where it should stay out",
}
NOT_FAILURES = frozenset({SampleStatus.OK, SampleStatus.SKIPPED, SampleStatus.NOT_EXERCISED})
_REASON_LENGTH = 200
# What differs between failures of one kind: addresses, process ids, times.
_VARYING = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b|\d+", re.ASCII | re.IGNORECASE)
_BLANKS = re.compile(r"\s+")


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Samples of an experiment that failed in the same way."""

    status: Annotated[str, Meta(description="Status of the samples.")]
    whose: Annotated[Whose, Meta(description="What the failure is blamed on.")]
    reason: Annotated[str, Meta(description="First words of the first sample's message.")]
    count: Annotated[int, Meta(description="Samples that failed in this way.")]
    cells: Annotated[tuple[str, ...], Meta(description="Ids of their cells.")]
    block: Annotated[int, Meta(description="Block of the first one.")]
    console: Annotated[str, Meta(description="Console log of its guest; empty if not on record.")]
    fault: Annotated[
        str, Meta(description="Fault of the guest, see the page on samples; empty without one.")
    ] = ""
    retried: Annotated[
        int, Meta(description="Samples of them that a fresh boot measured again.")
    ] = 0


def failures_of(samples: Iterable[Sample]) -> tuple[Failure, ...]:
    """Return the failures of one experiment by kind, the most frequent first.

    Count as `Cell.not_ok` does: warm-ups only if they failed, skipped samples never; and faults
    of the host, also if a fresh boot took the place of the guest.
    """
    kinds: dict[tuple[str, str], list[Sample]] = {}
    every = list(samples)
    failed = [sample for sample in every if sample.status != SampleStatus.OK]
    again = {sample.key for sample in replaced(every)} if failed else set()
    for sample in filter(_is_reported, failed):
        reason = first_words(sample)
        kinds.setdefault((sample.status, _VARYING.sub("#", reason)), []).append(sample)
    found = [_failure(status, alike, again) for (status, _), alike in kinds.items()]
    return tuple(sorted(found, key=lambda one: -one.count))


def first_words(sample: Sample) -> str:
    """Return the beginning of a sample's message, as one printable line.

    After the first line comes the console log, except in messages of a workload.
    """
    text = sample.message.strip()
    if _WHOSE.get(sample.status) is not Whose.WORKLOAD:
        text = text.partition("\n")[0]
    line = _BLANKS.sub(" ", text[: 4 * _REASON_LENGTH])
    line = printable(line).strip()
    return line if len(line) <= _REASON_LENGTH else f"{line[: _REASON_LENGTH - 1]}…"


def whose(status: str, fault: str = "") -> Whose:
    """Return the cause of a status, and of the fault of the guest."""
    return Whose.HOST if fault in HOST_FAULTS else _WHOSE.get(status, Whose.WORKLOAD)


def whose_failures(not_ok: Mapping[str, int]) -> str:
    """Return the causes and counts of failures, as `Cell.not_ok` counts them."""
    parts = []
    for who, cause in _CAUSES.items():
        counts = [
            f"{count} {status}"
            for status, count in not_ok.items()
            if status not in NOT_FAILURES and whose(status) == who
        ]
        if counts:
            parts.append(f"{cause} ({', '.join(counts)})")
    return " and ".join(parts)


def _is_reported(sample: Sample) -> bool:
    if sample.status in (SampleStatus.OK, SampleStatus.SKIPPED):
        return False
    return not (sample.warmup and sample.status in NOT_FAILURES)


def _failure(status: str, alike: Sequence[Sample], again: Collection[Key]) -> Failure:
    first = alike[0]
    return Failure(
        status=status,
        whose=whose(status, first.fault),
        reason=first_words(first),
        count=len(alike),
        cells=tuple(dict.fromkeys(sample.cell for sample in alike)),
        block=first.block,
        console=first.console,
        fault=first.fault,
        retried=sum(sample.key in again for sample in alike),
    )
