"""Parse a quilt `series` file: patches in order, with options for patch(1)."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

_STRIP = re.compile(r"(?:-p|--strip=)([0-9]{1,4}|ab)")
_HINT = "known options: -pN (components to strip, 1 by default), -R (apply in reverse)"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line that names a patch, relative to the file's folder; `line` counts from 1.

    `strip` is the N of -pN, `reverse` whether the patch is applied in reverse (-R).
    """

    line: int
    name: str
    strip: int = 1
    reverse: bool = False


class SeriesFault(Exception):
    """A line that is invalid, or not supported by labctl."""

    def __init__(self, line: int, what: str, hint: str) -> None:
        super().__init__(what)
        self.line = line
        self.what = what
        self.hint = hint


def entries(content: bytes) -> list[Entry]:
    """Return the patches in a `series` file.

    Raises:
        SeriesFault: a line is invalid, or names a patch for the second time.
    """
    found: list[Entry] = []
    for number, raw in enumerate(content.split(b"\n"), 1):
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise SeriesFault(number, "line is not UTF-8 text", "rename the patch") from error
        words = re.split(r"(?:^|\s)#", text, maxsplit=1)[0].split()
        if words:
            found.append(_entry(number, words))
    seen: dict[str, int] = {}
    for entry in found:
        first = seen.setdefault(posixpath.normpath(entry.name), entry.line)
        if first != entry.line:
            what = f"duplicate patch {entry.name}, first in line {first}"
            raise SeriesFault(entry.line, what, "remove one of the two lines")
    return found


def _entry(number: int, words: list[str]) -> Entry:
    name, *options = words
    if name.startswith("-"):
        raise SeriesFault(number, f"expected a patch before {name}", "example: fix.patch -p1")
    if not name.isprintable():
        raise SeriesFault(number, f"invalid file name {name!a}", "rename the patch")
    strip, reverse = "1", False
    while options:
        word = options.pop(0)
        if word in {"-p", "--strip"} and options:
            word = f"-p{options.pop(0)}"
        if word.startswith("-Rp"):
            reverse, word = True, word.replace("-Rp", "-p")
        if word in {"-R", "--reverse"}:
            reverse = True
        elif given := _STRIP.fullmatch(word):
            strip = given[1]
        elif word.startswith("-"):
            raise SeriesFault(number, f"unsupported option {word}", _HINT)
        else:
            hint = f"names of patches cannot contain blanks; {_HINT}"
            raise SeriesFault(number, f"expected an option, got {word!r}", hint)
    return Entry(number, name, 1 if strip == "ab" else int(strip), reverse)
