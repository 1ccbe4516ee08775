"""A shell script that writes and reads small files in one round trip. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from labctl.errors import BadOutput, TunableRefused
from labctl.transports import Outcome

SECONDS = 20.0
# One write(2) per value, since sysfs handles each write separately; names and texts are
# separated by NUL, which neither contains.
_SCRIPT = r"""
w() {
  [ -e "$1" ] || { echo "$1: no such file" >&2; exit 9; }
  printf '%s\n' "$2" > "$1" || { echo "$1 rejected '$2'" >&2; exit 9; }
}
r() { [ -r "$1" ] && printf '\0%s\0' "$1" && tr '\0' ' ' < "$1"; }
"""


def script(writes: Mapping[str, str], reads: Sequence[str]) -> str:
    """Return a shell script that writes small files and then reads files."""
    calls = [f"w {shlex.quote(path)} {shlex.quote(text)}" for path, text in writes.items()]
    calls += [f"r {shlex.quote(path)}" for path in reads]
    return "\n".join([_SCRIPT, *calls, "true"])


def answer(outcome: Outcome, where: str) -> dict[str, str]:
    """Return the text of each file that was read; missing files are left out.

    Raises:
        TunableRefused: a file to write does not exist or rejects its value.
        BadOutput: the script printed something else.
    """
    if outcome.status != 0:
        reason = outcome.stderr.decode("utf-8", "replace").strip()
        raise TunableRefused(reason or "a file rejected its value", where=where)
    words = outcome.stdout.decode("utf-8", "replace").split("\0")[1:]
    if len(words) % 2:
        raise BadOutput("the script that reads files printed something else", where=where)
    return dict(zip(words[::2], words[1::2], strict=True))
