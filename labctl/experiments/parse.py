"""Parse a metric by its entry under `metrics:`: a regular expression or a path in JSON."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

from labctl.errors import BadOutput
from labctl.experiments import apart
from labctl.experiments.cpu_limit import cpu_limit
from labctl.experiments.json_output import last_object
from labctl.experiments.number_faults import continued, fault
from labctl.lab.metric_entry import is_path, path_parts
from labctl.lab.quantity import Quantity, quantity
from labctl.units import quote

_SEEN_CHARACTERS = 60
# A pattern may need a time that grows faster than its line.
_LONGEST_LINE = 4096
_MATCH_SECONDS = 5.0


def parsed(text: str, name: str, parse: str, unit: str | None = None) -> Quantity:
    """Return the value of a metric in a program's output; the last match counts.

    `parse` and `unit` are those of a metric in lab.yaml.

    Raises:
        BadOutput: nothing matches, or the match is not a number with a known unit, or only
            a part of one.
    """
    if is_path(parse):
        value = _at_path(text, name, parse)
    else:
        in_main = threading.current_thread() is threading.main_thread()
        match = last_match if in_main else apart.last_match
        value = match(text, name, parse, unit, cpu_seconds=_MATCH_SECONDS)
    found = quantity(f"{value} {unit}" if unit else value)
    if found is None:
        raise BadOutput(f"{name}: {fault(value, unit)}")
    return found


def last_match(text: str, name: str, parse: str, unit: str | None, *, cpu_seconds: float) -> str:
    """Return the last match of a pattern, as text. Only for the main thread.

    Raises:
        BadOutput: nothing matches, only a part of a number, or not within the CPU time.
    """
    what = f"{name}: {quote(parse, 100)} takes more than {cpu_seconds:g} s of CPU time"
    with cpu_limit(cpu_seconds, f"{what} on this output: avoid repeats inside repeats"):
        return _last_match(text, name, parse, unit)


def answer(request: str) -> str:
    """Return the answer to a request of `apart.last_match`: the match, and why there is none."""
    text, name, parse, unit, seconds = json.loads(request)
    try:
        return json.dumps([last_match(text, name, parse, unit, cpu_seconds=seconds), None])
    except BadOutput as error:
        return json.dumps([None, error.what])


def _last_match(text: str, name: str, parse: str, unit: str | None) -> str:
    pattern = re.compile(parse)
    for whole in reversed(text.splitlines()):
        line = whole[:_LONGEST_LINE]
        matches = list(pattern.finditer(line))
        if not matches:
            continue
        value = (matches[-1][1] or "").strip()
        why = continued(pattern, line, matches[-1], unit) if value else ""
        if why:
            raise BadOutput(f"{name}: {why}")
        return value
    last = text.rstrip().rpartition("\n")[2]
    end = f"; last line: {quote(last, _SEEN_CHARACTERS)}" if last else ": it is empty"
    raise BadOutput(f"{name}: no line of the output matches {quote(parse, 100)}{end}")


def _at_path(text: str, name: str, parse: str) -> str:
    try:
        value: Any = last_object(text)
        if value is None:
            value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadOutput(f"{name}: the workload printed no JSON: {error}") from error
    for part in path_parts(parse):
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError) as error:
            what = f"{name}: {parse} is not in the workload's JSON"
            raise BadOutput(f"{what}: {part!r} is missing") from error
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise BadOutput(f"{name}: expected a number at {parse}, got {quote(str(value), 60)}")
    return str(value)
