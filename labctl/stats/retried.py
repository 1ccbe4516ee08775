"""Samples of guests that failed, which a fresh boot of the same block measured again. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from labctl.runs.sample import Sample
from labctl.status import CRASHES, HOST_FAULTS, SampleStatus

_UNMEASURED = CRASHES | {SampleStatus.SKIPPED}


def replaced(samples: Sequence[Sample]) -> list[Sample]:
    """Return the failures of one experiment that a later attempt measured again.

    A failed warm-up counts as measured again with any warm-up of a later attempt.
    """
    if not any(sample.attempt for sample in samples):
        return []  # the usual case; there may be a million samples
    last: dict[tuple[object, ...], int] = {}
    for sample in samples:
        if sample.status not in _UNMEASURED:
            key = _key(sample)
            last[key] = max(last.get(key, 0), sample.attempt)
    return [
        sample
        for sample in samples
        if sample.status in CRASHES and last.get(_key(sample), 0) > sample.attempt
    ]


def not_the_kernels(samples: Sequence[Sample]) -> list[Sample]:
    """Return the failures by a fault of the host that were measured again.

    They are no failures of the cell: the host ended a boot, and another took its place.
    """
    return [sample for sample in replaced(samples) if sample.fault in HOST_FAULTS]


def counts(samples: Sequence[Sample]) -> Mapping[str, int]:
    """Return the number of failures that were measured again, by the fault of the guest."""
    found = Counter(sample.fault or sample.status for sample in replaced(samples))
    return dict(sorted(found.items()))


def _key(sample: Sample) -> tuple[object, ...]:
    repetition = -1 if sample.warmup else sample.repetition
    return sample.cell, sample.block, repetition
