"""Samples on disk: one JSON object a line, appended, never rewritten."""

from __future__ import annotations

import errno
import json
import math
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Any, NoReturn

import msgspec
from msgspec import field
from msgspec.structs import force_setattr

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


# Without the collector of cycles: a sample has none, and there may be a million of them.
class Sample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One number, with all that is needed to believe it.

    `block`, `order` and `repetition` count from 0; warm-ups have their own
    count of repetitions. `value` is in seconds where the metric is a time.
    `disturbed` says how the host disturbed the repetition (`results.health`), `console`
    where its guest's console is, from the run's folder.
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
    console: str = ""
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"unknown status {self.status!r}, expected {', '.join(STATUSES)}")
        if self.status == "ok" and self.value is None:
            raise ValueError("value is missing, required with status ok")

    @property
    def key(self) -> Key:
        """What makes the sample the only one of its kind in a run."""
        return (self.experiment, self.block, self.cell, self.warmup, self.repetition)

    def to_json(self) -> str:
        """Return the sample as one line of JSON; raises BadOutput for NaN and infinity."""
        try:
            values = msgspec.structs.asdict(self)
            return json.dumps(values, sort_keys=True, allow_nan=False, separators=(",", ":"))
        except (ValueError, TypeError) as error:
            raise BadOutput(
                f"sample cannot be stored as JSON: {error}",
                where=f"experiment {self.experiment}, cell {self.cell}, block {self.block}",
            ) from error


_FIELDS = frozenset(Sample.__struct_fields__)
_TEXTS = (
    "run", "experiment", "workload", "metric", "kernel", "label", "cell", "status", "boot_id",
    "image", "series", "host", "accel", "disturbed", "message", "console",
)  # fmt: skip
_TEXTS_OF = attrgetter(*_TEXTS)
_MAPPINGS = ("setting", "parameters", "read_back", "measurements", "counters", "load")
_MAPPINGS_OF = attrgetter(*_MAPPINGS)
# What sorts samples and is counted with; of a wrong type it would be noticed late, or never.
_TYPES: tuple[tuple[str, type], ...] = (
    *((name, int) for name in ("block", "order", "repetition")),
    *((name, bool) for name in ("warmup", "control")),
    *((name, dict) for name in _MAPPINGS),
    *((name, str) for name in ("experiment", "kernel", "cell", "started_at", "disturbed")),
)
_HINT = (
    "restore the line or delete it, since damaged runs are not read in part; "
    "`labctl run --resume` measures missing samples again"
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
                f"cannot write sample: {error.strerror or error}",
                where=str(self.path),
                hint="free disk space, then continue with `labctl run --resume`"
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
        seen: dict[tuple[object, ...], set[int]] = {}
        shared: dict[object, Sample] = {}
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(lines.whole_lines(file), start=1):
                    size += len(line)
                    sample = _parse(line) or _parse_slowly(line, where=f"{self.path}:{number}")
                    _share(sample, shared)
                    visit = (sample.experiment, sample.block, sample.cell, sample.warmup)
                    of_visit = seen.get(visit)
                    if of_visit is None:
                        of_visit = seen[visit] = set()
                    elif sample.repetition in of_visit:
                        self._refuse_twice(samples, sample, number)
                    of_visit.add(sample.repetition)
                    samples.append(sample)
                if size < file.tell():
                    self.torn = (
                        f"{self.path}:{len(samples) + 1}: last line is incomplete "
                        f"({file.tell() - size} bytes) and ignored: the run or the machine "
                        "stopped while writing it"
                    )
        except FileNotFoundError:
            return []
        except OSError as error:
            raise HostError(f"cannot read file: {error.strerror}", where=str(self.path)) from error
        return samples

    def _refuse_twice(self, samples: list[Sample], sample: Sample, number: int) -> NoReturn:
        first = next(n for n, each in enumerate(samples, start=1) if each.key == sample.key)
        raise UserError(
            f"duplicate of the sample in line {first}: experiment "
            f"{sample.experiment}, block {sample.block}, cell {sample.cell}, "
            f"{'warm-up' if sample.warmup else 'repetition'} {sample.repetition}",
            where=f"{self.path}:{number}",
            hint="delete one of the two lines: labctl cannot tell which is valid",
        )

    def keys(self) -> set[Key]:
        """Return the keys of all samples that are finished, of whatever status."""
        return {sample.key for sample in self.samples()}


def _parse(line: bytes) -> Sample | None:
    """Return a line's sample, None for what is none at first sight."""
    try:
        sample = _SAMPLES.decode(line)
        datetime.fromisoformat(sample.started_at)
    except (msgspec.MsgspecError, ValueError):
        return None
    is_good = sample.schema == SCHEMA and (sample.value is None or sample.value > 0)
    return sample if is_good else None


def _parse_slowly(line: bytes, *, where: str) -> Sample:
    """Return a line's sample, or raise UserError that says precisely why it is none."""
    try:
        data = _DECODER.decode(line.decode())
        if not isinstance(data, dict):
            raise ValueError("not a JSON object")
        if data.get("schema") != SCHEMA:
            raise ValueError(f"schema: expected {SCHEMA}, got {data.get('schema')!r}")
        unknown = sorted(data.keys() - _FIELDS)
        if unknown:
            raise ValueError(f"unknown field {', '.join(unknown)}")
        for name, kind in _TYPES:
            if type(data.get(name, kind())) is not kind:
                raise ValueError(f"{name}: expected {kind.__name__}, got {data[name]!r}")
        value = data.get("value")
        if value is not None and not _is_number(value):
            raise ValueError(f"value: expected a number, got {value!r}")
        if value is not None and value <= 0:
            raise ValueError(f"value: expected a number above 0, got {value!r}")
        sample = msgspec.convert(data, Sample)
        datetime.fromisoformat(sample.started_at)
    except (ValueError, msgspec.MsgspecError) as error:
        raise UserError(f"invalid sample: {error}", where=where, hint=_HINT) from error
    return sample


def _share(sample: Sample, shared: dict[object, Sample]) -> None:
    """Put what an earlier sample of the same texts has in the place of its equals.

    So that a million samples fit.
    """
    first = shared.setdefault(_TEXTS_OF(sample), sample)
    if first is sample:
        return
    for name, text in zip(_TEXTS, _TEXTS_OF(first), strict=True):
        force_setattr(sample, name, text)
    for name, values, earlier in zip(
        _MAPPINGS, _MAPPINGS_OF(sample), _MAPPINGS_OF(first), strict=True
    ):
        if values == earlier:
            force_setattr(sample, name, earlier)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"expected a number, got {constant}")


_DECODER = json.JSONDecoder(parse_constant=_refuse)  # tells NaN by its name
_SAMPLES = msgspec.json.Decoder(Sample)
