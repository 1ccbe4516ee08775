"""Small files of a machine, written and read in one round trip. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from labctl.errors import KnobRefused
from labctl.transports import Outcome

SECONDS = 20.0
# One write(2) a value, since sysfs would see pieces; names and texts are set
# apart by NUL, which neither holds.
_SCRIPT = r"""
w() {
  [ -e "$1" ] || { echo "$1: no such file" >&2; exit 9; }
  printf '%s\n' "$2" > "$1" || { echo "$1 rejected '$2'" >&2; exit 9; }
}
r() { [ -r "$1" ] && printf '\0%s\0' "$1" && tr '\0' ' ' < "$1"; }
"""


def script(writes: Mapping[str, str], reads: Sequence[str]) -> str:
    """Return what a shell must run to write small files and then read some."""
    calls = [f"w {shlex.quote(path)} {shlex.quote(text)}" for path, text in writes.items()]
    calls += [f"r {shlex.quote(path)}" for path in reads]
    return "\n".join([_SCRIPT, *calls, "true"])


def answer(outcome: Outcome, where: str) -> dict[str, str]:
    """Return the text of each file that was read; those that do not exist are left out.

    Raises:
        KnobRefused: a file to be written does not exist or does not take its value.
    """
    if outcome.status != 0:
        reason = outcome.stderr.decode("utf-8", "replace").strip()
        raise KnobRefused(reason or "a file rejected its value", where=where)
    words = outcome.stdout.decode("utf-8", "replace").split("\0")[1:]
    return dict(zip(words[::2], words[1::2], strict=True))
