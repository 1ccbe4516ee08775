"""Samples on disk: one JSON object a line, appended, never rewritten."""

from __future__ import annotations

import errno
import json
import math
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from labctl.errors import BadOutput, HostError, UserError
from labctl.results import lines

Scalar = int | float | str
Key = tuple[str, int, str, bool, int]
SCHEMA = 1
STATUSES = (
    "ok",
    "boot-failed",
    "panic",
    "splat",
    "hung",
    "deadline",
    "lost",
    "bad-output",
    "knob-refused",
    "not-exercised",
    "exercised",
    "skipped",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One number, with all that is needed to believe it.

    `block`, `order` and `repetition` count from 0; warm-ups have their own
    count of repetitions. `value` is in seconds where the metric is a time.
    `disturbed` says how the host disturbed the repetition (`results.health`).
    Raises ValueError for a status outside the closed list, and for an `ok`
    without a value.
    """

    run: str
    experiment: str
    workload: str
    metric: str
    block: int
    order: int
    repetition: int
    warmup: bool
    kernel: str
    label: str
    control: bool
    cell: str
    setting: dict[str, Scalar]
    parameters: dict[str, Scalar]
    status: str
    value: float | None
    boot_id: str
    image: str
    series: str | None
    host: str
    accel: str
    started_at: str
    read_back: dict[str, str] = field(default_factory=dict)
    measurements: dict[str, Any] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    load: dict[str, float] = field(default_factory=dict)
    disturbed: str = ""
    message: str = ""
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r} is none of {', '.join(STATUSES)}")
        if self.status == "ok" and self.value is None:
            raise ValueError("a sample that is ok has a value")

    @property
    def key(self) -> Key:
        """What makes the sample the only one of its kind in a run."""
        return (self.experiment, self.block, self.cell, self.warmup, self.repetition)

    def to_json(self) -> str:
        """Return the sample as one line of JSON; raises BadOutput for NaN and infinity."""
        try:
            return json.dumps(asdict(self), sort_keys=True, allow_nan=False, separators=(",", ":"))
        except (ValueError, TypeError) as error:
            raise BadOutput(
                f"a sample holds what JSON cannot: {error}",
                where=f"experiment {self.experiment}, cell {self.cell}, block {self.block}",
            ) from error


_FIELDS = frozenset(each.name for each in fields(Sample))
_SCALARS = ("setting", "parameters")
_MAPPINGS = (*_SCALARS, "read_back", "measurements", "counters", "load")
# What sorts samples and is counted with; of a wrong type it would be noticed late, or never.
_TYPES: tuple[tuple[str, type], ...] = (
    *((name, int) for name in ("block", "order", "repetition")),
    *((name, bool) for name in ("warmup", "control")),
    *((name, dict) for name in _MAPPINGS),
    *((name, str) for name in ("experiment", "kernel", "cell", "started_at", "disturbed")),
)
_HINT = (
    "a run is read as a whole or not at all: restore the line, or delete it; "
    "`labctl run --resume` measures again what is missing"
)


class Store:
    """The samples of one run, in `folder`/samples.jsonl.

    `torn` tells, once `samples` was called, what it left out at the end of the file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "samples.jsonl"
        self.torn = ""
        self._checked_bytes = -1  # up to here the file is known to hold whole lines

    def append(self, sample: Sample) -> None:
        """Write one sample so that it stays: on return it is on the disk.

        Raises HostError when the disk is full or fails (the file then ends
        where it ended before), BadOutput for a sample that JSON cannot hold.
        """
        line = (sample.to_json() + "\n").encode()
        try:
            self._checked_bytes = lines.append(self.path, line, self._checked_bytes)
        except OSError as error:
            raise HostError(
                f"a sample could not be written: {error.strerror or error}",
                where=str(self.path),
                hint="make room on the disk, then go on with labctl run --resume"
                if error.errno in (errno.ENOSPC, errno.EDQUOT)
                else None,
            ) from error

    def samples(self) -> list[Sample]:
        """Return all samples in the order of their writing, without a torn last line.

        Raises UserError naming file and line for a line that is no sample and
        for a sample that is there twice.
        """
        samples: list[Sample] = []
        self.torn = ""
        size = 0
        seen: dict[object, set[object]] = {}
        shared: dict[object, Any] = {}
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(lines.whole_lines(file), start=1):
                    size += len(line)
                    sample = _parse(line, shared, where=f"{self.path}:{number}")
                    of_cell = seen.setdefault(
                        (sample.experiment, sample.cell, sample.warmup), set()
                    )
                    if (sample.block, sample.repetition) in of_cell:
                        self._refuse_twice(samples, sample, number)
                    of_cell.add((sample.block, sample.repetition))
                    samples.append(sample)
                if size < file.tell():
                    self.torn = (
                        f"{self.path}:{len(samples) + 1}: the last line is torn "
                        f"({file.tell() - size} bytes) and left out: its sample was being written "
                        "when the run or the machine stopped"
                    )
        except FileNotFoundError:
            return []
        except OSError as error:
            raise HostError(f"cannot be read: {error.strerror}", where=str(self.path)) from error
        return samples

    def _refuse_twice(self, samples: list[Sample], sample: Sample, number: int) -> NoReturn:
        first = next(n for n, each in enumerate(samples, start=1) if each.key == sample.key)
        raise UserError(
            f"the same sample as in line {first}: experiment "
            f"{sample.experiment}, block {sample.block}, cell {sample.cell}, "
            f"{'warm-up' if sample.warmup else 'repetition'} {sample.repetition}",
            where=f"{self.path}:{number}",
            hint="nothing tells which is the true one, so the run is not read: delete one of them",
        )

    def keys(self) -> set[Key]:
        """Return the keys of all samples that are finished, of whatever status."""
        return {sample.key for sample in self.samples()}


def _parse(line: bytes, shared: dict[object, Any], *, where: str) -> Sample:
    """Return a line's sample; equal values of several lines are kept once, in `shared`."""
    try:
        data = _DECODER.decode(line.decode())
        if not isinstance(data, dict):
            raise ValueError("it is not a JSON object")
        if data.get("schema") != SCHEMA:
            raise ValueError(f"its schema is {data.get('schema')!r}, this labctl reads {SCHEMA}")
        unknown = sorted(data.keys() - _FIELDS)
        if unknown:
            raise ValueError(f"unknown field {', '.join(unknown)}")
        for name, kind in _TYPES:
            if type(data.get(name, kind())) is not kind:
                raise ValueError(f"{name} {data[name]!r} is not of type {kind.__name__}")
        value = data.get("value")
        if value is not None and not _is_number(value):
            raise ValueError(f"value {value!r} is not a number")
        if value is not None and value <= 0:
            raise ValueError(f"value {value!r} is not above 0, so that it has no ratio")
        _share(data, shared)
        sample = Sample(**data)
        datetime.fromisoformat(sample.started_at)
    except (ValueError, TypeError, AttributeError) as error:
        text = str(error).replace("Sample.__init__() ", "")
        raise UserError(f"this line is not a sample: {text}", where=where, hint=_HINT) from error
    return sample


def _share(data: dict[str, Any], shared: dict[object, Any]) -> None:
    """Put what `shared` has already in the place of its equals, so that a million fit."""
    for name, each in data.items():
        if isinstance(each, str):
            data[name] = shared.setdefault(each, each)
    for name in _MAPPINGS:
        values = data.get(name, {})
        if not values or name in _SCALARS:
            data[name] = shared.setdefault(tuple(values.items()), values)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
