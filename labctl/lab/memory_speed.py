"""Latency and bandwidth of the nodes' memory, as lab.yaml states them for ACPI's HMAT. Pure.

The table (Heterogeneous Memory Attribute Table, ACPI 6.5, section 5.2.28) describes; it does
not make the emulated memory slower. Linux reads its memory tiers from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import cache
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter, WithJsonSchema, WrapValidator

from labctl import units

# The table has 16-bit multiples of a base unit; the largest number means unreachable.
MOST_UNITS = 65_534
LATENCY, BANDWIDTH = "latency", "bandwidth"
EXAMPLES = {LATENCY: "[80ns, 250ns]", BANDWIDTH: "[40GiB/s, 8GiB/s]"}
LATENCY_PATTERN = r"^[0-9]{1,6}(\.[0-9]{1,3})? ?(ns|us)$"
BANDWIDTH_PATTERN = units.SIZE_PATTERN.removesuffix("$") + "/s$"
_LATENCY = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) ?(ns|us)?", re.ASCII)
_NANOSECONDS = {"ns": 1, "us": 1000}
_A_SECOND = "/s"

# One value for each node, or a row for each node with vCPUs.
Values = tuple[int, ...] | tuple[tuple[int, ...], ...]


def _latency(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    given = value if isinstance(value, str) else ""
    found = _LATENCY.fullmatch(given)
    if found is None:
        what = f"expected a latency, got {_told(value)}"
        raise units.UnitError(what, f"example: {EXAMPLES[LATENCY]}")
    number, unit = found.groups()
    if unit is None:
        raise units.UnitError(
            f"expected a latency, got {_told(value)}",
            f"the unit is missing: did you mean {number}ns?",
        )
    nanoseconds = Decimal(number) * _NANOSECONDS[unit]
    if nanoseconds != int(nanoseconds) or not 1 <= nanoseconds <= MOST_UNITS:
        what = f"expected a whole number of ns from 1 to {MOST_UNITS}, got {given}"
        raise units.UnitError(what, "ACPI's table has 16-bit values")
    return int(nanoseconds)


def _bandwidth(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    given = value if isinstance(value, str) else ""
    if not given.endswith(_A_SECOND):
        hint = f"the unit is missing: did you mean {given}/s?" if _is_size(given) else None
        what = f"expected a bandwidth, got {_told(value)}"
        raise units.UnitError(what, hint or f"example: {EXAMPLES[BANDWIDTH]}")
    try:
        found = units.size(given.removesuffix(_A_SECOND).rstrip())
    except units.UnitError as error:
        raise units.UnitError(
            f"expected a bandwidth, got {_told(value)}", f"example: {EXAMPLES[BANDWIDTH]}"
        ) from error
    if found <= 0 or found % units.MIB:
        raise units.UnitError(f"expected whole MiB/s, at least 1MiB/s, got {given}")
    return found


def _is_size(text: str) -> bool:
    return re.fullmatch(units.SIZE_PATTERN, text) is not None and not text.isdecimal()


def _told(value: object) -> str:
    return units.quote(value) if isinstance(value, str) else units.kind(value)


def _values(noun: str, one: Any) -> Callable[[object, object], Any]:  # noqa: ANN401 - a type
    """Return a validator. An error names the place in the list, not the type tried."""

    @cache
    def adapter(*, is_matrix: bool) -> TypeAdapter[Any]:
        row = tuple[one, ...]
        return TypeAdapter(tuple[row, ...] if is_matrix else row)

    def validate(value: object, _: object) -> Any:  # noqa: ANN401 - Values
        if value is None:
            return None
        if not isinstance(value, list | tuple) or not value:
            got = units.kind(value) if not isinstance(value, list | tuple) else "an empty list"
            what = f"expected a list with the {noun} of each node's memory, got {got}"
            raise units.UnitError(what, f"example: {EXAMPLES[noun]}")
        is_matrix = any(isinstance(item, list | tuple) for item in value)
        return adapter(is_matrix=is_matrix).validate_python(value)

    return validate


def _schema(pattern: str, description: str) -> WithJsonSchema:
    text: dict[str, Any] = {"type": "string", "pattern": pattern}
    row = {"type": "array", "minItems": 1, "items": text}
    matrix = {"type": "array", "minItems": 1, "items": row}
    return WithJsonSchema({"anyOf": [row, matrix], "description": description})


Latency = Annotated[int, BeforeValidator(_latency)]
Bandwidth = Annotated[int, BeforeValidator(_bandwidth)]
Latencies = Annotated[
    Values | None,
    WrapValidator(_values(LATENCY, Latency)),
    _schema(LATENCY_PATTERN, "latencies: [80ns, 250ns], or rows of them"),
]
Bandwidths = Annotated[
    Values | None,
    WrapValidator(_values(BANDWIDTH, Bandwidth)),
    _schema(BANDWIDTH_PATTERN, "bandwidths: [40GiB/s, 8GiB/s], or rows of them"),
]


def rows(values: Values, initiators: int) -> list[tuple[int, ...]]:
    """Return the values as a matrix with a row for each node with vCPUs."""
    return [row for row in values if isinstance(row, tuple)] or [
        tuple(one for one in values if isinstance(one, int))
    ] * initiators


def mistakes(
    noun: str, values: Values, initiators: int, nodes: int
) -> Iterator[tuple[tuple[int, ...], str, str]]:
    """Yield what QEMU rejects: where in the list, what is wrong, and a hint.

    `initiators` is the number of nodes with vCPUs, `nodes` that of all nodes.
    """
    is_matrix = isinstance(values[0], tuple)
    if is_matrix and len(values) != initiators:
        what = f"expected {units.counted(initiators, 'row')}, got {len(values)}"
        yield (), what, "write one row per node with vCPUs, with the value of each node's memory"
        return
    for number, row in enumerate(values if is_matrix else [values]):
        if isinstance(row, tuple) and len(row) != nodes:
            place = (number,) if is_matrix else ()
            what = f"expected {units.counted(nodes, 'value')}, got {len(row)}"
            yield place, what, "write one value for the memory of each node"
            return
    if noun == BANDWIDTH:
        yield from _too_different(rows(values, 1))


def _too_different(matrix: Sequence[Sequence[int]]) -> Iterator[tuple[tuple[int, ...], str, str]]:
    every = [value for row in matrix for value in row]
    joined = 0
    for value in every:
        joined |= value
    # The base unit of the table: the largest power of two that divides all values.
    unit = joined & -joined
    if max(every) // unit > MOST_UNITS:
        shown = units.format_size(max(every))
        what = (
            f"{shown}/s is more than {MOST_UNITS} times {units.format_size(unit)}/s, the largest"
            " power of two that divides all values"
        )
        yield (), what, "round the values, for example to whole GiB/s"
