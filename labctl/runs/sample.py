"""`Sample`, one measured number with its context, and its line of JSON. Pure."""

from __future__ import annotations

import json
import math
import operator
import zlib
from collections.abc import Mapping
from datetime import datetime
from itertools import compress
from operator import attrgetter
from typing import Any, NoReturn

import msgspec
from msgspec import field

from labctl.errors import BadOutput, UserError
from labctl.lab.metrics import Scale
from labctl.status import SampleStatus

Scalar = int | float | str
Key = tuple[str, int, str, bool, int, int]
SCHEMA = 1
_STATUSES = tuple(SampleStatus)


# gc=False: samples have no reference cycles, and there can be a million of them.
class Sample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One measured number with its context.

    `block`, `order` and `repetition` count from 0; warm-ups have their own
    count of repetitions. `value` is in seconds where the metric is a time; it is above 0 unless
    `scale` is difference. `values` has those of the experiment's further metrics,
    `units` the unit of each metric that is not a time and has one.
    `disturbed` says how the host disturbed the repetition (`stats.health`); `console` is
    the path of the guest's console log in the run's folder. `fault` says why the guest failed;
    `attempt` counts the failures of the guest in the block before this boot: a repetition that
    a failure prevented is measured again on a fresh boot, with the next attempt.
    All samples of a block have the same `host`; `host_name` is the name of its worker,
    empty if the run measured without a scheduler.
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
    status: SampleStatus
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
    scale: Scale = "ratio"
    values: dict[str, float] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    attempt: int = 0
    fault: str = ""
    host_name: str = ""

    def __post_init__(self) -> None:
        if self.status not in _STATUSES:
            _check_status(self.status)
        if self.value is None and self.status == SampleStatus.OK:
            raise ValueError("value is missing, required with status ok")

    def of_metric(self, metric: str, scale: Scale) -> Sample:
        """Return the sample with a further metric's value as its own; NaN if it has none."""
        value = self.values.get(metric, math.nan) if self.status == SampleStatus.OK else None
        return msgspec.structs.replace(self, metric=metric, scale=scale, value=value, values={})

    @property
    def key(self) -> Key:
        """The key of the sample, unique in a run."""
        own = (self.warmup, self.repetition, self.attempt)
        return (self.experiment, self.block, self.cell, *own)

    def to_json(self) -> str:
        """Return the sample as one line of JSON; raises BadOutput for NaN and infinity."""
        try:
            values = msgspec.structs.asdict(self)
            values = {n: v for n, v in values.items() if n not in NEWER or v != NEWER[n]}
            return json.dumps(values, sort_keys=True, allow_nan=False, separators=(",", ":"))
        except (ValueError, TypeError) as error:
            raise BadOutput(
                f"sample cannot be stored as JSON: {error}",
                where=f"experiment {self.experiment}, cell {self.cell}, block {self.block}",
            ) from error


# Fields with their default, which stand only where it is another value.
NEWER: Mapping[str, object] = {
    "scale": "ratio", "values": {}, "units": {}, "attempt": 0, "fault": "",
    "host_name": "",
}  # fmt: skip
_FIELDS = frozenset(Sample.__struct_fields__)
_MAPPINGS = (
    "setting", "parameters", "read_back", "measurements", "counters", "load", "values", "units",
)  # fmt: skip
_MAPPINGS_OF = attrgetter(*_MAPPINGS)
# What differs between the repetitions of a cell; mappings are compared apart.
_OWN = ("block", "order", "warmup", "repetition", "value", "started_at", *_MAPPINGS)
_SHARED_OF = attrgetter(*(name for name in Sample.__struct_fields__ if name not in _OWN))
# Keys for sorting and counting: a wrong type would be noticed late or never.
_TYPES: tuple[tuple[str, type], ...] = (
    *((name, int) for name in ("block", "order", "repetition", "attempt")),
    *((name, bool) for name in ("warmup", "control")),
    *((name, dict) for name in _MAPPINGS),
    *((name, str) for name in ("experiment", "kernel", "cell", "started_at", "disturbed", "fault")),
)
_HINT = (
    "restore the line or remove it, since damaged runs are not read in part; "
    "`labctl run --resume` measures missing samples again"
)


# The end of a line with a checksum: `,"crc":"1a2b3c4d"}` and the newline.
_CRC_KEY = b',"crc":"'
_CRC_END = _CRC_KEY + b'%08x"}\n'
_CRC_BYTES = len(_CRC_END % 0)


def sealed(sample: Sample) -> bytes:
    """Return a sample as a line of JSON with the CRC-32 of what precedes it; raises BadOutput."""
    body = sample.to_json().encode()[:-1]
    return body + _CRC_END % zlib.crc32(body)


def _unsealed(line: bytes) -> tuple[bytes, bool]:
    """Return a line without its checksum, and whether that matches.

    Samples of older versions of labctl have none.
    """
    end = line[-_CRC_BYTES:]
    if not end.startswith(_CRC_KEY):
        return line, True
    body = line[:-_CRC_BYTES]
    return body + b"}", end == _CRC_END % zlib.crc32(body)


def parse(line: bytes, where: str) -> Sample:
    """Return the sample of a line of JSON; `where` is its file and line.

    Raises:
        UserError: the line is not a valid sample.
    """
    return parse_valid(line) or _parse_slowly(line, where)


def parse_valid(line: bytes) -> Sample | None:
    """Return the sample of a line of JSON, None if it may be invalid: `parse` says why."""
    content, is_unchanged = _unsealed(line)
    if not is_unchanged:
        return None
    try:
        sample = _SAMPLES.decode(content)
        datetime.fromisoformat(sample.started_at)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    value = sample.value
    # msgspec reads 1e999 as an error, not as infinity.
    has_value = value is None or value > 0 or sample.scale == "difference"
    return sample if sample.schema == SCHEMA and has_value else None


def _parse_slowly(line: bytes, where: str) -> Sample:
    """Return the sample of a line, or raise an error that names the field at fault."""
    try:
        content, is_unchanged = _unsealed(line)
        data = _DECODER.decode(content.decode())
        if not isinstance(data, dict):
            raise ValueError("not a JSON object")
        # A program that wrote the line again also changed its spaces.
        is_unchanged = data.pop("crc", None) is None and is_unchanged
        if data.get("schema") != SCHEMA:
            raise ValueError(f"schema: expected {SCHEMA}, got {data.get('schema')!r}")
        unknown = sorted(data.keys() - _FIELDS)
        if unknown:
            raise ValueError(f"unknown field {', '.join(unknown)}")
        for name, kind in _TYPES:
            if type(data.get(name, kind())) is not kind:
                raise ValueError(f"{name}: expected {kind.__name__}, got {data[name]!r}")
        if "status" in data:
            _check_status(data["status"])
        _check_values(data)
        sample = msgspec.convert(data, Sample)
        datetime.fromisoformat(sample.started_at)
        if not is_unchanged:
            raise ValueError("checksum mismatch: the line changed after it was written")
    except (ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise UserError(f"invalid sample: {error}", where=where, hint=_HINT) from error
    return sample


def _check_values(data: Mapping[str, Any]) -> None:
    numbers = {"value": data.get("value"), **data.get("values", {})}
    for name, value in numbers.items():
        if value is not None and not _is_number(value):
            raise ValueError(f"{name}: expected a number, got {value!r}")
    value = numbers["value"]
    if value is not None and value <= 0 and data.get("scale") != "difference":
        raise ValueError(f"value: expected a number above 0, got {value!r}")


Shared = dict[tuple[object, ...], tuple[Sample, tuple[object, ...]]]


def share(sample: Sample, shared: Shared) -> Sample:
    """Return the sample with the strings and mappings of an equal earlier one.

    A million samples then fit in memory. `shared` has the first sample of each kind, and its
    mappings.
    """
    key, values = _SHARED_OF(sample), _MAPPINGS_OF(sample)
    known = shared.get(key)
    if known is None:
        shared[key] = sample, values
        return sample
    first, earlier = known
    own = {}
    if values != earlier:
        differ = map(operator.ne, values, earlier)
        own = dict(compress(zip(_MAPPINGS, values, strict=True), differ))
    return msgspec.structs.replace(
        first,
        block=sample.block,
        order=sample.order,
        warmup=sample.warmup,
        repetition=sample.repetition,
        value=sample.value,
        started_at=sample.started_at,
        **own,
    )


def _check_status(status: object) -> None:
    if status not in _STATUSES:
        raise ValueError(f"unknown status {status!r}, expected {', '.join(SampleStatus)}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"expected a number, got {constant}")


_DECODER = json.JSONDecoder(parse_constant=_refuse)  # names NaN in its error
_SAMPLES = msgspec.json.Decoder(Sample)
