"""Quote and split kernel command lines. Pure.

Linux (lib/cmdline.c, kernel/params.c) lets double quotes protect blanks and has no escape
for a double quote itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from labctl import units
from labctl.units import Scalar

# COMMAND_LINE_SIZE of x86 and arm64, less the final NUL. Linux silently drops the rest.
LONGEST_BYTES = 2047
_WORD = re.compile(r'(?:"[^"]*"?|[^\s"])+')
_PLAIN = re.compile(r"[!-~]*", re.ASCII)


def parameter(name: str, value: Scalar) -> str:
    """Return a parameter as one word of the command line: `dyndbg="file a.c +p"`."""
    text = units.text(value)
    # A letter in UTF-8 may contain a byte that Linux treats as a blank.
    return f"{name}={text}" if _PLAIN.fullmatch(text) else f'{name}="{text}"'


def parameters(values: Iterable[tuple[str, Scalar]]) -> str:
    """Return parameters as a command line."""
    return " ".join(parameter(name, value) for name, value in values)


def words(line: str) -> list[str]:
    """Return the words of a command line, including their quotes."""
    return _WORD.findall(line)


def value_fault(value: Scalar) -> tuple[str, str] | None:
    """Return (error, hint) if a value cannot be a parameter's, else None."""
    text = units.text(value)
    if '"' in text:
        return (
            f"double quote in parameter value {units.quote(text)}: Linux has no escape for it",
            "remove the quotes: labctl adds them around blanks",
        )
    if not text.isprintable():
        return (
            f"control character in parameter value {units.quote(text)}",
            "write the value in one line, without tabs",
        )
    return None


def line_fault(line: str) -> tuple[str, str] | None:
    """Return (error, hint) if a text cannot be part of a command line, else None."""
    if line.count('"') % 2:
        return (
            "unclosed double quote: Linux would read all that follows as one parameter",
            'example of a value with blanks: dyndbg="file a.c +p"',
        )
    if not line.replace("\n", " ").replace("\t", " ").isprintable():
        return "control character in a command line", "separate parameters by blanks"
    return None
