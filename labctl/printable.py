"""Make text safe to print: replace control characters and escape sequences."""

from __future__ import annotations

import codecs
import re

_LAYOUT = "\t\n"
# Select Graphic Rendition (ECMA-48, 8.3.117): colours, bold, underlined.
_COLOUR = re.compile(r"(\x1b\[[0-9;:]{0,64}m)")
_BEGUN = re.compile(r"\x1b(?:\[[0-9;:]{0,64})?\Z")
COLOURS_OFF = "\x1b[0m"


def printable(text: str, keep: str = "") -> str:
    """Return text with each character that is neither printable nor in `keep` as `?`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else "?" for c in text)


def layout(text: str) -> str:
    """Return printable text, with tabs and newlines kept."""
    return printable(text, _LAYOUT)


def coloured(text: str) -> str:
    """Return text as `layout` does, but keep colours (SGR escape sequences)."""
    parts = _COLOUR.split(text)
    return "".join(part if i % 2 else layout(part) for i, part in enumerate(parts))


class Coloured:
    """`coloured` for a stream of UTF-8."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, data: bytes) -> str:
        """Return the printable text of `data`; an incomplete sequence waits for the next call."""
        text = self._rest + self._decoder.decode(data)
        begun = _BEGUN.search(text)
        end = begun.start() if begun else len(text)
        self._rest = text[end:]
        return coloured(text[:end])
