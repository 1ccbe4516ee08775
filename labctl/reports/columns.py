"""Columns of samples for CSV and Parquet: each counter of an observer has its own. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labctl.observers.observer import is_observed
from labctl.runs.sample import Sample


def names(samples: Sequence[Sample]) -> list[str]:
    """Return the names of all counters of observers."""
    return sorted({name for sample in samples for name in sample.counters if is_observed(name)})


def title(counter: str) -> str:
    """Return the name of a counter's column."""
    return f"counter.{counter}"


def value(sample: Sample, field: str) -> Any:  # noqa: ANN401
    """Return a field of a sample; `counters` has only those without their own column."""
    found = getattr(sample, field)
    if field == "counters":
        return {name: count for name, count in found.items() if not is_observed(name)}
    return found
