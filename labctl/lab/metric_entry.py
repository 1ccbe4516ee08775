"""A metric under `metrics:` of a workload as written, and the check of its keys. Pure."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from labctl.lab.document import KeyPath
from labctl.lab.effect import MinimumEffect
from labctl.lab.metrics import WALL_TIME, Better, Scale, is_time
from labctl.lab.problems import Findings
from labctl.lab.quantity import KNOWN_UNITS, quantity
from labctl.lab.types import Model

_PATH = re.compile(r"\$(\.[^.\[\]\s]+|\[-?[0-9]+\])+")
_PART = re.compile(r"\.([^.\[\]]+)|\[(-?[0-9]+)\]")


SCALE = Field(
    None,
    description="How kernels are compared: ratio, or difference for values that may be zero or"
    " negative, and for counts. With difference, `minimum_effect` is an absolute value."
    " Default: ratio.",
)


class MetricEntry(Model):
    """A metric: how it is found in the output of the command, and how it is compared."""

    parse: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="Regular expression with one group, matched against each line of the output;"
        " the last match counts. Or the path of a number in JSON, such as"
        " $.results[0].rate. If omitted, a key of the last JSON object, or a line"
        " `NAME: NUMBER UNIT`. Example: 'rate: ([0-9.]+)'.",
    )
    unit: str | None = Field(
        None,
        description="Unit of the number, such as us, MB/s or ops/s. If omitted, the unit that"
        " follows the number in the matched group, or none.",
    )
    better: Better | None = Field(
        None,
        description="Direction of improvement: lower or higher. Required unless the metric is a"
        " time: the default is lower for times.",
    )
    scale: Scale | None = SCALE
    minimum_effect: MinimumEffect | None = Field(
        None,
        description="Smallest change of this metric that matters: a share, such as 2%, or with"
        " `scale: difference` a value with the metric's unit. An experiment's `statistics:` come"
        " first. If omitted, the share of `statistics:`. Example: 100 pages.",
    )


def is_path(parse: str) -> bool:
    """Whether `parse` is a path in JSON."""
    return parse.startswith("$")


def path_parts(path: str) -> list[str | int]:
    """Return the keys and indexes of a path in JSON."""
    return [key or int(index) for key, index in _PART.findall(path)]


def check_metric(name: str, entry: MetricEntry, path: KeyPath, found: Findings) -> None:
    """Record the errors of one metric."""
    if name == WALL_TIME and entry.parse is not None:
        hint = "rename it: labctl measures this metric itself"
        found.add(path, f"{WALL_TIME} is the run time of the command", hint, at_key=True)
    if entry.parse is not None and found.sound(*path, "parse"):
        _check_parse(entry.parse, (*path, "parse"), found)
    if entry.unit is None or not found.sound(*path, "unit"):
        return
    if entry.parse is None:
        hint = "add `parse:`, or let the workload print the unit after the number"
        found.add((*path, "unit"), "requires `parse`", hint)
        return
    of_unit = quantity(f"1 {entry.unit}")
    if of_unit is None:
        found.add((*path, "unit"), "unknown unit", f"known: {KNOWN_UNITS}")
    elif bool(of_unit.is_time) != is_time(name):
        kind = "a unit of time" if of_unit.is_time else "not a unit of time"
        what = f"{entry.unit} is {kind}, but the metric's name says otherwise"
        end = f"{name}_time" if of_unit.is_time else f"{name}_rate"
        found.add((*path, "unit"), what, f"rename the metric, for example {end}")


def _check_parse(parse: str, path: KeyPath, found: Findings) -> None:
    if is_path(parse):
        if not _PATH.fullmatch(parse):
            found.add(path, "invalid path in JSON", "example: $.results[0].rate")
        return
    try:
        groups = re.compile(parse).groups
    except re.error as error:
        found.add(path, f"invalid regular expression: {error}", "example: 'rate: ([0-9.]+)'")
        return
    if groups != 1:
        hint = "put parentheses around the number, and (?:...) around other groups"
        found.add(path, f"expected one group, got {groups}", hint)
