"""The figures of a run of the suite, for the terminal and for docs/explanation/reliability.md."""

from __future__ import annotations

from dataclasses import dataclass

import kills
import reliability
from tabulate import tabulate

HEAD = """\
## Commands broken off

What labctl leaves when it is killed, when its disk fails, or when the host loses power. Written
by `tox -e chaos -- --write`; do not edit.

Each case copies a lab, breaks off one command at a drawn call, waits 5 s at most for its
processes to end, then runs the next commands of a user: each interrupted run is resumed, and its
samples are compared with those of a run that nothing disturbed.

| case | what happens at the drawn call |
|---|---|
| kill | SIGKILL, before a call that changes a file, starts or ends a process, locks, or talks to \
a guest |
| torn write | SIGKILL, when half of the data is written |
| child killed | SIGKILL of a process that the command started, or of a child of it: a guest, \
make, a compiler, git, a pytest worker |
| disk full | this call and all later ones that need space in the lab fail with ENOSPC |
| read-only | this call and all later ones that change the lab fail with EROFS |
| read-only folder | this call and all later ones that change names in its folder fail with EACCES |
| power cut | the lab has only what fsync(2) wrote before this call: file contents, and the names \
in folders |
| power cut, journal | names also survive in their order up to a drawn call, and of data that was \
not synced nothing, all, a part, or zeros |
"""
TAIL = """\
- **broken off**: cases in which the drawn call came; the number of calls varies a little, and a \
disk without space harms no command that writes nothing more.
- **samples**: samples that were on record after the fault, and compared.
- **lost**: samples that labctl had finished before the fault and that are gone after it, or that \
the resumed run does not measure.
- **doubled**: samples that the resumed run measured twice.
- **left behind**: processes that still run 5 s after the fault; sockets, temporary files and \
processes after the next commands.
- **interrupted, resumed**: runs that the fault left unfinished, and those of them that \
`labctl run --resume` finished with the samples of an undisturbed run.
- **findings**: cases with any of these, with a damaged document, a traceback, or a next command \
that fails.

The guests are fakes that answer as QEMU and the agent do: the cases are about labctl. Calls of
programs that labctl starts, as make, are not counted. A power cut removes a work tree as a whole,
or damages any of its files, unless labctl has synced it; a build after an edit has to give the
same images as in a fresh lab. The drives of a host may lie about what they wrote; the model
assumes that fsync(2) is true.

To repeat a case: `python tests/chaos --seed SEED --command COMMAND --mode MODE --at CALL`. The
suite prints this line for each finding. Threads and waiting shift the calls a little.
"""
COLUMNS = ("is_broken_off", "samples", "lost", "doubled", "orphans", "unfinished", "resumed")
HEADINGS = ("broken off", "samples", "lost", "doubled", "left behind", "interrupted", "resumed",
            "findings")  # fmt: skip
ALL = "**all**"


@dataclass(frozen=True)
class Played:
    """What a run of the suite did."""

    results: list[kills.Result]
    seed: int
    seconds: float
    command: str


def summary(played):
    """Return one line for the terminal."""
    whole = _counts(played.results)
    parts = [f"{count} {name}" for name, count in zip(HEADINGS, whole, strict=True)]
    return f"{len(played.results)} cases, seed {played.seed}: {', '.join(parts)}"


def page(played):
    """Return the section of the page."""
    where = reliability.where(played.command, played.seconds, played.seed)
    by_command = _table("command", [one.name for one in kills.COMMANDS], "command", played.results)
    by_mode = _table("case", list(kills.MODES), "mode", played.results)
    return f"{HEAD}\n{where}\n\n{by_command}\n\n{by_mode}\n\n{TAIL}"


def write(played):
    """Write the section of the page."""
    reliability.put("chaos", page(played))


def _table(heading, names, key, results):
    groups = {name: [one for one in results if getattr(one, key) == name] for name in names}
    none = [name for name, own in groups.items() if not own]
    played = {name: own for name, own in groups.items() if own}
    rows = [[name, len(own), *_counts(own)] for name, own in [*played.items(), (ALL, results)]]
    table = tabulate(rows, [heading, "cases", *HEADINGS], tablefmt="github")
    return table + (f"\n\nNot among these cases: {', '.join(none)}." if none else "")


def _counts(results):
    found = sum(1 for one in results if one.faults)
    return [*(sum(getattr(one, name) for one in results) for name in COLUMNS), found]
