"""The JSON object in a program's output. Pure; linear in the length of the text.

An object starts at the beginning of a line and ends at the end of a line. The last one
counts. A malformed one is an error: an earlier object, or one inside it, is not the result.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from labctl.errors import BadOutput
from labctl.units import quote, rough_size

# An object is kept with its sample.
_LONGEST = 2**20
_DEEPEST = 64
_LONGEST_INTEGER = 2**64
_LONGEST_NUMBER_CHARACTERS = 400

_BEGIN = re.compile(r"^[ \t\r]*(\{)(?=\s*[\"}])", re.MULTILINE)
# A JSON string has no line break, so a stray quote affects only its own line.
_TOKEN = re.compile(r'"(?:[^"\\\n]|\\[^\n])*"?|[{}\[\]]')
_LINE_END = re.compile(r"[ \t\r]*(?:\n|\Z)")
_CLOSES = {"}": "{", "]": "["}


def last_object(text: str) -> dict[str, Any] | None:
    """Return the last JSON object on lines of its own, None if there is none.

    Raises:
        BadOutput: the object is malformed, or has a number that is not finite, a duplicate
            key or brackets nested too deep.
    """
    begins = {match.start(1) for match in _BEGIN.finditer(text)}
    if not begins:
        return None
    found = _outermost(text, begins)
    if found is None:
        return None
    if found.end is None:
        raise _bad(text, found, "is not closed")
    if not _LINE_END.match(text, found.end):
        raise _bad(text, found, "is followed by other text on its last line")
    if found.end - found.start > _LONGEST:
        raise _bad(text, found, f"is longer than {rough_size(_LONGEST)}")
    if found.height > _DEEPEST:
        raise _bad(text, found, f"has brackets nested {found.height} deep; at most {_DEEPEST}")
    try:
        content: dict[str, Any] = _DECODER.decode(text[found.start : found.end])
        # A lone half of a surrogate pair is text that no file can hold.
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise _bad(text, found, "contains a lone surrogate in a string") from error
    except json.JSONDecodeError as error:
        line = text.count("\n", 0, found.start) + error.lineno
        raise _bad(text, found, f"is malformed in line {line}: {error.msg}") from error
    except ValueError as error:
        raise _bad(text, found, str(error)) from error
    return content


@dataclass(slots=True)
class _Brackets:
    """A pair of brackets: `end` is behind the closing one, None if there is none."""

    start: int
    end: int | None = None
    height: int = 1


def _outermost(text: str, begins: set[int]) -> _Brackets | None:
    """Return the last brackets, in no others, that begin where an object may."""
    stack: list[_Brackets] = []
    all_of: list[_Brackets] = []
    waiting = {"{": 0, "[": 0}
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in waiting:
            opened = _Brackets(match.start())
            stack.append(opened)
            all_of.append(opened)
            waiting[token] += 1
        elif token in _CLOSES and waiting[_CLOSES[token]]:
            _close(text, stack, waiting, _CLOSES[token], match.end())
    last, reached = None, 0
    for each in all_of:
        if each.start < reached:
            continue
        reached = each.end or reached
        if each.start in begins:
            last = each
            if each.end is None:
                break
    return last


def _close(text: str, stack: list[_Brackets], waiting: dict[str, int], kind: str, end: int) -> None:
    """Close the innermost bracket of a kind; those within it that were not closed never are."""
    height = 0
    while True:
        closed = stack.pop()
        waiting[text[closed.start]] -= 1
        closed.height = max(closed.height, height + 1)
        height = closed.height
        if text[closed.start] == kind:
            closed.end = end
            break
    if stack:
        stack[-1].height = max(stack[-1].height, height + 1)


def _bad(text: str, found: _Brackets, what: str) -> BadOutput:
    line = text.count("\n", 0, found.start) + 1
    seen = quote(text[found.start : found.start + 200], 60)
    return BadOutput(f"the workload's JSON object in line {line} {what}: {seen}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"has the duplicate key {quote(key)}")
            seen.add(key)
    return content


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER_CHARACTERS or abs(int(digits)) >= _LONGEST_INTEGER:
        raise ValueError(f"contains an integer of more than 64 bits ({quote(digits)})")
    return int(digits)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"contains a number that is too large ({quote(text)})")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"contains {constant}, expected a number")


_DECODER = json.JSONDecoder(
    parse_constant=_refuse, parse_int=_integer, parse_float=_float, object_pairs_hook=_unique
)
