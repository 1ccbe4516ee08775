"""The kernel's command line: words, with double quotes around blanks and no escapes. Pure.

As lib/cmdline.c and kernel/params.c of Linux read it: a double quote begins or ends a
stretch in which blanks do not end the word; there is no way to write a double quote itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from labctl import units
from labctl.units import Scalar

# COMMAND_LINE_SIZE of x86 and of arm64, less the final NUL. The rest is cut off in silence.
LONGEST_BYTES = 2047
_WORD = re.compile(r'(?:"[^"]*"?|[^\s"])+')
_PLAIN = re.compile(r"[!-~]*", re.ASCII)


def parameter(name: str, value: Scalar) -> str:
    """Return a parameter as one word of the command line: `dyndbg="file a.c +p"`."""
    text = units.text(value)
    # In UTF-8 a letter may have a byte that Linux takes for a blank.
    return f"{name}={text}" if _PLAIN.fullmatch(text) else f'{name}="{text}"'


def parameters(values: Iterable[tuple[str, Scalar]]) -> str:
    """Return parameters as a command line."""
    return " ".join(parameter(name, value) for name, value in values)


def words(line: str) -> list[str]:
    """Return the words of a command line, with their quotes."""
    return _WORD.findall(line)


def value_fault(value: Scalar) -> tuple[str, str] | None:
    """Return why a value cannot be a parameter's, and a hint; None if it can."""
    text = units.text(value)
    if '"' in text:
        return (
            f"{units.quote(text)} holds a double quote, which Linux cannot read in a parameter",
            "labctl quotes blanks itself: write the value as it is meant",
        )
    if not text.isprintable():
        return (
            f"{units.quote(text)} holds a control character",
            "a parameter's value is one line, without tabs",
        )
    return None


def line_fault(line: str) -> tuple[str, str] | None:
    """Return why a text cannot be a part of a command line, and a hint; None if it can."""
    if line.count('"') % 2:
        return (
            "a double quote is not closed: it would swallow the parameters behind it",
            'quote a value with blanks as Linux reads it: dyndbg="file a.c +p"',
        )
    if not line.replace("\n", " ").replace("\t", " ").isprintable():
        return "it holds a control character", "parameters are set apart by blanks"
    return None
