"""What may leave for a terminal, a table or a page: text, without what a terminal acts on."""

from __future__ import annotations

import codecs
import re

_LAYOUT = "\t\n"
# Select Graphic Rendition (ECMA-48, 8.3.117): colours, bold, underlined.
_COLOUR = re.compile(r"(\x1b\[[0-9;:]{0,64}m)")
_BEGUN = re.compile(r"\x1b(?:\[[0-9;:]{0,64})?\Z")
COLOURS_OFF = "\x1b[0m"


def printable(text: str, keep: str = "") -> str:
    """Return text with `?` for each character that is not printable, but for those to keep."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else "?" for c in text)


def layout(text: str) -> str:
    """Return printable text that keeps its tabs and ends of line."""
    return printable(text, _LAYOUT)


def coloured(text: str) -> str:
    """Return text as `layout` does, with its colours: no other escape sequence is left."""
    parts = _COLOUR.split(text)
    return "".join(part if i % 2 else layout(part) for i, part in enumerate(parts))


class Coloured:
    """As `coloured`, for UTF-8 that comes in pieces."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, data: bytes) -> str:
        """Return what may be shown of the next piece; what is cut at its end is kept."""
        text = self._rest + self._decoder.decode(data)
        begun = _BEGUN.search(text)
        end = begun.start() if begun else len(text)
        self._rest = text[end:]
        return coloured(text[:end])
