"""The types of lab.yaml's values: what an author may write, and what labctl reads from it. Pure.

A type has a converter from the raw text (`3GiB`, `2%`, `5min`) to a number, limits, and
its part of the JSON Schema.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from labctl import units
from labctl.lab.document import Text
from labctl.units import Scalar

LOCAL_DISTANCE = 10
LEAST_NODE_BYTES = 64 * units.MIB
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
# A folder's name holds both an experiment's and a guest's name, and has at most 255 bytes.
LONGEST_NAME = 100
SCHEDULER_PATTERN = r"^((tls|tcp)://\S+:\d+|.+\.json)$"
WORD_PATTERN = r"^[A-Za-z][A-Za-z0-9_]*$"
GUEST_PATH_PATTERN = r"^/?[^/\x00-\x1f]+(/[^/\x00-\x1f]+)*$"


def _scalar(value: object) -> Scalar:
    if isinstance(value, Text):
        return str(value) if value.quoted else units.scalar(str(value))
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        return value
    raise units.UnitError(f"expected one value, got {units.kind(value)}")


def _none(value: object) -> object:
    return None if isinstance(value, Text) and value == "none" else value


def _version(value: object) -> object:
    return 1 if value == "1" else value


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise units.UnitError(f"expected true or false, got {units.kind(value)}")


def _numbers(value: object) -> tuple[int, ...]:
    if not isinstance(value, list | tuple):
        raise units.UnitError(
            f"expected a list of numbers, got {units.kind(value)}", "example: [0, 1]"
        )
    found = tuple(units.count(one) for one in value)
    if not found or min(found) < 0:
        raise units.UnitError("expected at least one number, counted from 0", "example: [0, 1]")
    for number in found:
        if found.count(number) > 1:
            raise units.UnitError(f"duplicate value {number}", "remove one of them")
    return found


def _page_size(value: object) -> int | None:
    if value is None or value == "none":
        return None
    found = units.size(value)
    if found not in (2 * units.MIB, units.GIB):
        raise units.UnitError(f"expected 2MiB, 1GiB or none, got {units.format_size(found)}")
    return found


def _node_memory(value: object) -> int:
    found = units.size(value)
    if found == 0 or (found >= LEAST_NODE_BYTES and found % units.MIB == 0):
        return found
    least = units.format_size(LEAST_NODE_BYTES)
    is_bare = re.fullmatch("[0-9]+", str(value)) is not None
    given = units.quote(str(value)).strip("'")
    raise units.UnitError(
        f"expected 0, or whole MiB of at least {least}, got {given}",
        f"the unit is missing: did you mean {value}MiB?" if is_bare else None,
    )


def _count_or_auto(value: object) -> object:
    if value == "auto":
        return value
    count = units.count(value)
    # Checked here, since a union reports one error for each of its members.
    if not isinstance(count, int) or count < 1:
        raise units.UnitError(f"expected at least 1, got {count}")
    if count > units.GIB:
        raise units.UnitError(f"expected at most {units.GIB}, got {count}")
    return count


def _choice(value: object) -> object:
    return _none(value) if value in ("auto", "none", None) else _numbers(value)


def _schema(pattern: str, number: str, description: str, **limits: float) -> WithJsonSchema:
    text = {"type": "string", "pattern": pattern}
    return WithJsonSchema({"anyOf": [{"type": number, **limits}, text], "description": description})


def size_schema(description: str) -> WithJsonSchema:
    """Return the JSON Schema of a size."""
    return _schema(units.SIZE_PATTERN, "integer", description, minimum=0)


_SIZE = size_schema("a size: 1536MiB, 3GiB")
_COUNT = _schema(units.COUNT_PATTERN, "integer", "a whole number: 4, 64Ki", minimum=0)
_SHARE = _schema(units.SHARE_PATTERN, "number", "a share: 2% or 0.02", minimum=0)
_DURATION = _schema(units.DURATION_PATTERN, "number", "a duration: 300s, 5min", minimum=0)
_NO_HALF_WIDTH = WithJsonSchema(
    {
        "anyOf": [
            {"type": "number", "minimum": 0},
            {"type": "string", "pattern": f"{units.SHARE_PATTERN}|^none$"},
            {"type": "null"},
        ],
        "description": "half width of a confidence interval, 3%; or none",
    }
)

_FLAG = WithJsonSchema({"type": "boolean", "description": "true or false"})
_PAGE = WithJsonSchema(
    {"enum": ["2MiB", "1GiB", "none", None], "description": "2MiB, 1GiB or none"}
)
_NUMBERS: dict[str, Any] = {"type": "array", "items": {"type": "integer", "minimum": 0}}


def _choice_schema(description: str) -> WithJsonSchema:
    words = {"enum": ["auto", "none", None]}
    return WithJsonSchema({"anyOf": [words, _NUMBERS], "description": description})


Version = Annotated[Literal[1], BeforeValidator(_version), WithJsonSchema({"const": 1})]
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=LONGEST_NAME)]
# labctl reads a name like 6.1 as text; an editor's YAML parser reads a number.
Reference = Annotated[str, WithJsonSchema({"type": ["string", "number"]})]
Word = Annotated[str, Field(pattern=WORD_PATTERN)]
GuestPath = Annotated[str, Field(pattern=GUEST_PATH_PATTERN, max_length=1000)]
Value = Annotated[
    Scalar,
    BeforeValidator(_scalar),
    WithJsonSchema({"type": ["string", "number", "boolean"], "description": "16Ki, 3GiB, never"}),
]
Bytes = Annotated[int, BeforeValidator(units.size), _SIZE]
Count = Annotated[int, BeforeValidator(units.count), _COUNT]
Positive = Annotated[Count, Field(ge=1, le=units.GIB)]
Natural = Annotated[Count, Field(ge=0, le=units.GIB)]
PositiveOrAuto = Annotated[
    Literal["auto"] | int,
    BeforeValidator(_count_or_auto),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": f"{units.COUNT_PATTERN}|^auto$"},
            ],
            "description": "a whole number, 5; or auto",
        }
    ),
]
BlockCount = Annotated[Count, Field(ge=2, le=10_000)]
Distance = Annotated[Count, Field(ge=LOCAL_DISTANCE, le=254)]
Confidence = Annotated[
    float, BeforeValidator(units.share), _SHARE, Field(ge=0.5, lt=1, title="share")
]
Share = Annotated[float, BeforeValidator(units.share), _SHARE, Field(gt=0, lt=1, title="share")]
HalfWidth = Annotated[Share | None, BeforeValidator(_none), _NO_HALF_WIDTH]
Seconds = Annotated[float, BeforeValidator(units.duration), _DURATION, Field(gt=0)]
Flag = Annotated[bool, BeforeValidator(_flag), _FLAG]
PageSize = Annotated[int | None, BeforeValidator(_page_size), _PAGE]
HostNodes = Annotated[
    Literal["auto"] | tuple[int, ...] | None,
    BeforeValidator(_choice),
    _choice_schema("host NUMA nodes, [0, 1]; auto or none"),
]
HostCpus = Annotated[
    Literal["auto"] | tuple[int, ...] | None,
    BeforeValidator(_choice),
    _choice_schema("host CPUs, [2, 3, 4, 5]; auto or none"),
]
NodeMemory = Annotated[Bytes, Field(ge=LEAST_NODE_BYTES, multiple_of=units.MIB)]
ObserverName = Literal[
    "vmstat", "psi", "interrupts", "slab", "buddyinfo", "lock_stat", "functions", "perf", "stacks"
]
# As NodeMemory, or 0.
OwnMemory = Annotated[int, BeforeValidator(_node_memory), _SIZE]


class Model(BaseModel):
    """A frozen part of a lab; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
