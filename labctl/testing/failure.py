"""What a failed test tells of its guests: splats, the end of the console, how to get in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from labctl.testing.bench import Stay
from labctl.transports.console import Complaint

Section = tuple[str, str]  # its title and its text, as pytest reports have them

TAIL_LINES = 40
_SPLAT_LINES = 40
_MOST_SPLATS = 5
# What ends a trace: the kernel's own mark, or the next thing it says of itself.
_END = re.compile(r"---\[ end |Kernel Offset:|Rebooting in")
_NEAR_LINES = 3


def sections(stay: Stay, lab: Path, first_line: int = 0) -> list[Section]:
    """Return what is worth knowing of a guest of a failed test.

    `first_line` is how many lines its console had when the test began.
    """
    guest = stay.guest
    guest.console.poll()
    lines = guest.console_tail(lines=guest.console.lines + 1)
    found = splats(lines, [c for c in guest.console.complaints if c.line_number > first_line])
    shown = [number for splat in found for number in splat]
    others = [n for n in range(first_line, len(lines)) if n not in shown][-TAIL_LINES:]
    told = "\n\n".join("\n".join(lines[n] for n in splat) for splat in found)
    tail = "\n".join(lines[n] for n in others)
    return [
        *([(f"what the kernel of {guest.name} complained of", told)] if told else []),
        *([(f"the rest of the console of {guest.name}, its end", tail)] if tail else []),
        (f"how to look at {guest.name}", _attach(stay, lab)),
    ]


def splats(lines: Sequence[str], complaints: Sequence[Complaint]) -> list[range]:
    """Return where each complaint and its trace are in `lines`, as indexes.

    Complaints within the trace of another one are told with it.
    """
    found: list[range] = []
    starts = [complaint.line_number - 1 for complaint in complaints]
    for first, following in zip(starts, [*starts[1:], len(lines)], strict=False):
        if (found and first < found[-1].stop) or len(found) == _MOST_SPLATS:
            continue
        found.append(range(first, _end(lines, first, following)))
    return found


def _end(lines: Sequence[str], first: int, following: int) -> int:
    """Return where what is said at `first` is over; `following` is the next complaint's place."""
    limit = min(first + _SPLAT_LINES, len(lines))
    for number in range(first + 1, limit):
        if _END.search(lines[number]):
            return number + 1
    if any("call trace:" in line.lower() for line in lines[first:limit]):  # arm64: Call trace
        return limit
    # Without a trace it is a line or two, and what follows is something else.
    return min(first + 1 + _NEAR_LINES, following, limit)


def _attach(stay: Stay, lab: Path) -> str:
    name, folder = stay.guest.name, stay.guest.spec.folder
    option = f"--lab {shlex.quote(str(lab))}"
    lines = [f"console: {folder / 'console.log'}", f"QEMU:    {folder / 'command.txt'}"]
    if stay.is_kept:
        lines += [
            "It is kept as it is:",
            f"  labctl exec {option} {name} dmesg",
            f"  labctl down {option} {name}",
        ]
    elif stay.fleet is not None:
        lines.append("Nothing could be kept: its QEMU has ended.")
    else:
        lines.append("`pytest --lab-keep-failed` keeps it for `labctl exec`.")
    return "\n".join(lines)
