"""The text of `labctl plan`: what a run would do, on one screen for each experiment."""

from __future__ import annotations

import textwrap

from labctl.reports import words
from labctl.reports.plan_types import WARM_UP, PlannedExperiment, Power
from labctl.units import counted

_COLUMNS = 96
# Of 40 lines, those that the order and the list of guests may take.
_MAX_ORDER_LINES = 16
_MAX_GUEST_LINES = 8


def text(content: PlannedExperiment, *, commands: bool = False) -> str:
    """Return the text of one experiment.

    It has at most 40 lines; with `commands` the command of each guest is added.
    """
    blocks = content.blocks
    measured = sum(not name.endswith(f"({WARM_UP})") for name in content.first_block)
    count = words.between(str(blocks.min), str(blocks.max))
    expected = words.between(*map(words.duration, content.expected_seconds))
    also = f"; also {', '.join(content.further_metrics)}" if content.further_metrics else ""
    lines = [
        f"experiment {content.name}: {counted(len(content.cells), 'cell')}, "
        f"baseline {content.baseline}, {count} blocks of {counted(measured, 'measurement')}",
        f"metric: {content.metric}, {content.better} is better{also}",
        f"expected: {expected} ({content.expected_from})",
        *_power(content.power),
        *_accelerator(content),
        "",
        *_guests(content, commands=commands),
        "",
        *_order(content),
    ]
    return "\n".join(lines)


def _accelerator(content: PlannedExperiment) -> list[str]:
    if content.accel is None:
        return []
    accel, reason, placement = content.accel, content.accel_reason, content.placement
    if reason:
        accel += f" (KVM does not work: {reason})"
    if reason and content.accel == "kvm":
        accel += "; `run` would fail with this error, `accel: auto` would use tcg"
    lines = _wrapped(f"accelerator: {accel}")
    return [*lines, f"guest: {words.placement(placement)}"] if placement else lines


def _guests(content: PlannedExperiment, *, commands: bool) -> list[str]:
    guests = content.guests
    if commands:
        return ["guests of a block:", *(f"  {one.name}: {one.command}" for one in guests)]
    names = [one.name for one in guests]
    return _at_most(
        _MAX_GUEST_LINES, _wrapped(f"guests of a block ({len(names)}): {', '.join(names)}")
    )


def _order(content: PlannedExperiment) -> list[str]:
    kinds: dict[str, list[str]] = {}
    for repetition in content.first_block:
        cell, _, kind = repetition.rpartition(" (")
        kinds.setdefault(kind.removesuffix(")"), []).append(cell)
    lines: list[str] = []
    for kind, cells in kinds.items():
        lines += _wrapped(f"  {kind}: {', '.join(cells)}")
    return [
        f"order of block 1 (seed {content.seed}):",
        *_at_most(_MAX_ORDER_LINES, lines),
    ]


def _at_most(count: int, lines: list[str]) -> list[str]:
    if len(lines) <= count:
        return lines
    return [*lines[: count - 1], f"    ... {len(lines) - count + 1} more lines in --json"]


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(
        line, _COLUMNS, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )


def _power(power: Power | None) -> list[str]:
    if power is None:
        return []
    each = [
        f"{counted(one.blocks, 'block')} {words.percent(one.effect)}"
        for one in power.smallest_effect
    ]
    return [
        f"minimum detectable effect (80 % power): {', '.join(each)} "
        f"(with the spread of {power.origin})"
    ]
