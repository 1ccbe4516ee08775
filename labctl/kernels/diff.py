"""What a patch says it touches, read from its text."""

from __future__ import annotations

import re
from collections.abc import Iterator

_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_FILE = re.compile(r"(?:---|\+\+\+) ([^\t]+)")
_GIT = re.compile(r"diff --git a/(.+) b/(.+)$")
_MOVED = re.compile(r"(?:rename|copy) (?:from|to) (.+)")
_BINARY = ("GIT binary patch", "Binary files ")


class BinaryDiff(Exception):
    """The patch holds a binary change, which only git can apply."""


def touched(text: str, strip: int) -> set[str]:
    """Return the files that a patch reads or writes, relative to the tree.

    Raises:
        BinaryDiff: it holds a binary change.
    """
    found: set[str] = set()
    for line in _headers(text.splitlines()):
        if line.startswith(_BINARY):
            raise BinaryDiff
        if file := _FILE.match(line):
            if file[1].strip() != "/dev/null":
                found.add("/".join(file[1].strip().split("/")[strip:]))
        elif git := _GIT.match(line):
            found |= {git[1], git[2]} if git[1] == git[2] else set()
        elif moved := _MOVED.match(line):
            found.add(moved[1].strip())
    return {name for name in found if name}


def _headers(lines: list[str]) -> Iterator[str]:
    """Yield the lines outside of hunks: a removed line `-- x` looks like a file's header."""
    old = new = 0
    for line in lines:
        if old > 0 or new > 0:
            old -= line[:1] in {"-", " ", ""}
            new -= line[:1] in {"+", " ", ""}
        elif hunk := _HUNK.match(line):
            old, new = (1 if count is None else int(count) for count in hunk.groups())
        else:
            yield line
