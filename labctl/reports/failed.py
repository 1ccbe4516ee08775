"""Why samples failed, in sentences: one a kind. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_MOST_KINDS = 8
_MOST_CELLS = 4


def lines(experiment: Mapping[str, Any]) -> list[str]:
    """Return a line for each kind of failure of an experiment: how often, whose, why, where."""
    found = experiment.get("failures") or []  # a document of an older labctl has none
    told = [_line(each) for each in found[:_MOST_KINDS]]
    rest = found[_MOST_KINDS:]
    if rest:
        samples = sum(each["count"] for each in rest)
        told.append(f"failed: {samples} more in {len(rest)} more ways, see `labctl report --json`")
    return told


def of_cell(experiment: Mapping[str, Any], cell: str) -> list[str]:
    """Return why a cell's samples failed, for a place that names the cell."""
    found = experiment.get("failures") or []
    return [short(each) for each in found if cell in each["cells"]][:_MOST_KINDS]


def short(failure: Mapping[str, Any]) -> str:
    """Return whose failure it was, why, and where its console is."""
    console = f"; console: {failure['console']}" if failure["console"] else ""
    reason = f": {failure['reason']}" if failure["reason"] else ""
    return f"{failure['status']} ({failure['whose']}){reason}{console}"


def _line(failure: Mapping[str, Any]) -> str:
    count = failure["count"]
    return f"failed: {count} {short(failure)} ({_where(failure['cells'], failure['block'])})"


def _where(cells: Sequence[str], block: int) -> str:
    more = len(cells) - _MOST_CELLS
    names = ", ".join(cells[:_MOST_CELLS]) + (f" and {more} more" if more > 0 else "")
    return f"{names}; first in block {block}"
