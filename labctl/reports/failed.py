"""Failures of samples as sentences, one for each kind. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from labctl.stats.failures import Failure

_MOST_KINDS = 8
_MOST_CELLS = 4


def lines(found: Sequence[Failure]) -> list[str]:
    """Return one line for each kind of failure: count, status, cause, reason, cells."""
    lines = [_line(each) for each in found[:_MOST_KINDS]]
    rest = found[_MOST_KINDS:]
    if rest:
        samples = sum(each.count for each in rest)
        lines.append(f"failed: {samples} more in {len(rest)} more ways, see `labctl report --json`")
    return lines


def of_cell(found: Sequence[Failure], cell: str) -> list[str]:
    """Return the reasons of one cell's failures; `cell` is its id."""
    return [short(each) for each in found if cell in each.cells][:_MOST_KINDS]


def short(failure: Failure) -> str:
    """Return status, cause, reason and console log of a failure."""
    console = f"; console: {failure.console}" if failure.console else ""
    reason = f": {failure.reason}" if failure.reason else ""
    return f"{failure.status} ({failure.whose}){reason}{console}"


def _line(failure: Failure) -> str:
    count = failure.count
    return f"failed: {count} {short(failure)} ({_where(failure.cells, failure.block)})"


def _where(cells: Sequence[str], block: int) -> str:
    more = len(cells) - _MOST_CELLS
    names = ", ".join(cells[:_MOST_CELLS]) + (f" and {more} more" if more > 0 else "")
    return f"{names}; first in block {block}"
