"""Report sections of a failed test: splats, console tail, how to inspect the guest."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from labctl.testing.bench import Stay
from labctl.transports.console import Complaint

Section = tuple[str, str]  # title and text, as in pytest reports

TAIL_LINES = 40
_SPLAT_LINES = 40
_MOST_SPLATS = 5
# Ends of a trace: the kernel's own marker, or the next kernel message.
_END = re.compile(r"---\[ end |Kernel Offset:|Rebooting in")
_NEAR_LINES = 3


def sections(stay: Stay, lab: Path, first_line: int = 0) -> list[Section]:
    """Return the report sections for a guest of a failed test.

    `first_line` is the number of console lines at the start of the test.
    """
    guest = stay.guest
    guest.console.poll()
    lines = guest.console_tail(lines=guest.console.lines + 1)
    cut = max(0, guest.console.lines - len(lines))  # the beginning of a long log
    first_line = max(0, first_line - cut)
    own = (replace(c, line_number=c.line_number - cut) for c in guest.console.complaints)
    found = splats(lines, [c for c in own if c.line_number > first_line])
    shown = [number for splat in found for number in splat]
    others = [n for n in range(first_line, len(lines)) if n not in shown][-TAIL_LINES:]
    warnings = "\n\n".join("\n".join(lines[n] for n in splat) for splat in found)
    tail = "\n".join(lines[n] for n in others)
    return [
        *([(f"kernel warnings of {guest.name}", warnings)] if warnings else []),
        *(
            [(f"other console output of {guest.name}, last {TAIL_LINES} lines", tail)]
            if tail
            else []
        ),
        (f"how to inspect {guest.name}", _attach(stay, lab)),
    ]


def splats(lines: Sequence[str], complaints: Sequence[Complaint]) -> list[range]:
    """Return the index range in `lines` of each complaint with its trace.

    Complaints inside the trace of another one have no range of their own.
    """
    found: list[range] = []
    starts = [complaint.line_number - 1 for complaint in complaints]
    for first, following in zip(starts, [*starts[1:], len(lines)], strict=False):
        if (found and first < found[-1].stop) or len(found) == _MOST_SPLATS:
            continue
        found.append(range(first, _end(lines, first, following)))
    return found


def _end(lines: Sequence[str], first: int, following: int) -> int:
    """Return the end index of the complaint at `first`; `following` is the next complaint."""
    limit = min(first + _SPLAT_LINES, len(lines))
    for number in range(first + 1, limit):
        if _END.search(lines[number]):
            return number + 1
    if any("call trace:" in line.lower() for line in lines[first:limit]):  # arm64: Call trace
        return limit
    # Without a trace, a complaint has one or two lines.
    return min(first + 1 + _NEAR_LINES, following, limit)


def _attach(stay: Stay, lab: Path) -> str:
    name, folder = stay.guest.name, stay.guest.spec.folder
    option = f"--lab {shlex.quote(str(lab))}"
    lines = [f"console: {folder / 'console.log'}", f"QEMU:    {folder / 'command.txt'}"]
    if stay.is_kept:
        lines += [
            "The guest is still running:",
            f"  labctl exec {option} {name} dmesg",
            f"  labctl down {option} {name}",
        ]
    elif stay.fleet is not None:
        lines.append("The guest is gone: its QEMU has exited.")
    else:
        lines.append("Run `pytest --lab-keep-failed` to keep the guest for `labctl exec`.")
    return "\n".join(lines)
