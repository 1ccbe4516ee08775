"""The records of nights.jsonl, as frozen structs. Pure.

A field that is `UNSET` has no key in the file: this kind of record has none, or an older
labctl did not write it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import date
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from labctl.lab.metrics import Better
from labctl.runs.types import Count, Host, Kernel, Settings, Share
from labctl.stats.cells import failures
from labctl.stats.crash_rates import CrashRate
from labctl.stats.failures import Failure
from labctl.stats.kinds import Verdict

SCHEMA = 1
_LEAST_BLOCKS = 2  # one block has no spread
_FINITE = 1e300

Key = tuple[str, str]  # experiment, cell
Kind = Literal["night", "again", "against"]
Ratio = Annotated[float, Meta(gt=0, le=_FINITE)]
Spread = Annotated[float, Meta(ge=0, le=_FINITE)]


class KernelChecks(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a kernel's checks; `failed` has the reason of each failed check."""

    passed: bool
    failed: dict[str, str]


class CellFailures(msgspec.Struct, frozen=True, kw_only=True):
    """The identity of a cell, and its samples that are not ok, counted by status."""

    experiment: str
    cell: str
    kernel: str
    setting: Settings
    failed: dict[str, int]
    failures: tuple[Failure, ...] | UnsetType = UNSET

    @property
    def key(self) -> Key:
        """The key of the cell in a history."""
        return self.experiment, self.cell

    @property
    def has_failed(self) -> bool:
        """Whether a guest of the cell failed."""
        return failures(self.failed) > 0


class CellRecord(CellFailures, frozen=True, kw_only=True):
    """One cell of a run, compared with its baseline.

    `setup` has what must be equal for two nightly runs to be comparable. A cell is
    `suspect` if the A/A control of its experiment differs.
    """

    workload: str | None
    command: str | UnsetType | None = UNSET
    metric: str | UnsetType | None = UNSET
    better: Better | UnsetType | None = UNSET
    baseline: str
    confidence: Share
    minimum_effect: Share
    setup: dict[str, str]
    blocks: Count
    ratio: Ratio | None
    ci: tuple[float, float] | None
    sd_log: Spread | None
    verdict: Verdict
    reason: str
    suspect: bool

    @property
    def log_ratio(self) -> float | None:
        """The log of the ratio; None if the cell failed, has one block or is suspect."""
        if self.has_failed or self.suspect or self.blocks < _LEAST_BLOCKS or self.sd_log is None:
            return None
        return None if self.ratio is None else math.log(self.ratio)

    @property
    def error(self) -> float:
        """The standard error of `log_ratio`."""
        return (self.sd_log or 0.0) / math.sqrt(max(self.blocks, 1))


class Crashes(CrashRate, frozen=True, kw_only=True):
    """The crash rate of a kernel in an experiment."""

    experiment: str
    baseline: str


class NightlyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One run: the nightly run itself, a repeat of it, or its kernels against earlier ones.

    `of` is the id of the nightly run that a repeat belongs to, `against` the date of the
    nightly run whose kernel was measured beside today's.
    """

    schema: Literal[1] = 1
    kind: Kind
    night: str
    run: str
    at: str
    host: Host
    hosts: dict[str, Host] | UnsetType = UNSET  # by id, those of workers
    accel: str
    kernels: dict[str, Kernel]
    cells: tuple[CellRecord, ...]
    baselines: tuple[CellFailures, ...] | UnsetType = UNSET
    commits: dict[str, str | None] | UnsetType = UNSET
    checks: dict[str, KernelChecks] | UnsetType = UNSET
    crashes: tuple[Crashes, ...] | UnsetType = UNSET
    of: str | UnsetType = UNSET
    against: str | UnsetType = UNSET

    def image(self, kernel: str) -> str:
        """Return the hash of a kernel's image; KeyError if it is not on record."""
        found = self.kernels[kernel].image
        if not found:
            raise KeyError(kernel)
        return found


def encode(record: NightlyRecord) -> bytes:
    """Return a record as one line; raise ValueError for a number that JSON lacks."""
    data = msgspec.to_builtins(record)
    text = json.dumps(data, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return f"{text}\n".encode()


def decode(line: bytes) -> NightlyRecord:
    """Return the record of one line.

    Raises:
        ValueError: the line is not JSON, a key is missing, or a value is invalid.
    """
    try:
        data = json.loads(line)
        if isinstance(data, dict) and data.get("schema") != SCHEMA:
            raise ValueError(f"schema: expected {SCHEMA}, got {data.get('schema')!r}")
        record = msgspec.convert(data, NightlyRecord)
    except (RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from error
    for fault in _faults(record):
        raise ValueError(fault)
    return record


def _faults(record: NightlyRecord) -> Iterator[str]:
    """Yield what types alone do not show."""
    try:
        date.fromisoformat(record.night)
    except ValueError:
        yield f"night: expected a date such as 2026-01-31, got {record.night!r}"
    if record.kind != "night" and record.of is UNSET:
        yield f"missing key `of` in a record of kind {record.kind}"
    if record.kind == "against" and record.against is UNSET:
        yield "missing key `against` in a record of kind against"
    for number, cell in enumerate(record.cells):
        if not getattr(record.kernels.get(cell.kernel), "image", None):
            yield f"no image of kernel {cell.kernel!r} - at `$.cells[{number}].kernel`"
