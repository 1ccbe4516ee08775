"""Explain why a text in a program's output is not a number, or only a part of one. Pure."""

from __future__ import annotations

import re

from labctl.lab.quantity import KNOWN_UNITS, NUMBER, quantity
from labctl.units import quote

_SEEN_CHARACTERS = 60
# Separators of thousands that are in use, also the narrow and the usual no-break space.
# A plain space also separates columns: _in_groups distinguishes them.
_SEPARATORS = ",.'\u2019_\u00a0\u202f\u2009"
_GROUPED = re.compile(rf"[-+]?[0-9]{{1,3}}(?P<by>[ {_SEPARATORS}])[0-9]{{3}}((?P=by)[0-9]{{3}})*")
_FRACTION = re.compile(r"[.,][0-9]+")
_COMMA = re.compile(r"[-+]?[0-9]+,[0-9]+")
_NUMBER = re.compile(NUMBER)
# What continues a number before or after a match.
_BEFORE = re.compile(rf"[0-9][{_SEPARATORS}]?$|(?:^|[\s:=(])[-.]$")
_AFTER = re.compile(rf"[{_SEPARATORS}]?[0-9]+|[eE][-+]?[0-9]+|[^\W\d_]+[\w/]*|%")
_UNIT_AFTER = re.compile(r" ?([^\W\d_][\w/]*|%)")
# Also words for a minimum and other things: only a unit if nothing separates it.
_OFTEN_NO_UNIT = frozenset({"min", "mins", "h", "s", "B"})
_LOOKED_AT = 64
_FIRST_GROUP = re.compile(r"[-+]?[0-9]{1,3}")
_LATER_GROUP = re.compile(r"[0-9]{3}(?![0-9])")
_GROUPS_BEFORE = re.compile(r"(?<![^\s=(:])(?<![0-9]:)[-+]?[0-9]{1,3}(?: [0-9]{3})* $")
_GROUPS_AFTER = re.compile(r"(?: [0-9]{3}(?![0-9]))+(?:[.,][0-9]+)?")


def fault(text: str, unit: str | None = None) -> str:
    """Return what is wrong with a text that is not one number; `unit` is the declared one."""
    expected = "one number with a known unit or none"
    if unit:
        expected = f"one number without a unit (`unit:` is {unit})"
    why = why_no_number(text) or f"units: {KNOWN_UNITS}"
    return f"expected {expected}, got {quote(text, _SEEN_CHARACTERS)} ({why})"


def why_no_number(text: str) -> str:
    """Return which separators or which unit a text has; "" if it is no number at all."""
    text = text.strip()[:_LOOKED_AT]
    grouped = _GROUPED.match(text)
    if grouped:
        number, by = grouped[0], grouped["by"]
        rest = text[grouped.end() :]
        fraction = _FRACTION.match(rest)
        digits = number.replace(by, "")
        if fraction and fraction[0][0] != by:
            return f"thousands separators: print {digits}.{fraction[0][1:]}"
        if by == "," and number.count(by) == 1:
            return (
                f"thousands separators or a decimal comma: print {digits} or "
                f"{number.replace(by, '.')}"
            )
        if by != "." or number.count(by) > 1:
            return f"thousands separators: print {digits}"
    comma = _COMMA.match(text)
    if comma:
        return f"decimal comma: print {comma[0].replace(',', '.')}, for example with LC_ALL=C"
    found = _NUMBER.match(text)
    word = re.match(r" ?([^\W\d_][\w/]*)", text[found.end() :]) if found else None
    if word and quantity(f"1 {word[1]}") is None:
        return f"unknown unit {quote(word[1], 20)}; known: {KNOWN_UNITS}"
    return ""


def continued(pattern: re.Pattern[str], line: str, match: re.Match[str], unit: str | None) -> str:
    """Return why the number that a pattern's group matched is only a part of one, else "".

    `unit` is the declared one. What the pattern itself requires beside its group is
    intended, except for a unit other than the declared one.
    """
    start, end = match.span(1)
    if not _NUMBER.fullmatch(match[1].strip()):
        return ""  # with a unit, or not a number
    before = _BEFORE.search(line[max(start - 2, 0) : start])
    if before and not _requires(pattern, line, match, start - 1):
        begin = re.search(r"\S*$", line[:start])
        seen = line[begin.start() if begin else start : end]
        return f"{_matched(match, seen)}: match the whole number"
    grouped = _in_groups(pattern, line, match)
    if grouped:
        return (
            f"{_matched(match, grouped)}: thousands separators: print {grouped.replace(' ', '')}; "
            "for columns, match the space beside the group too"
        )
    after = line[end : end + _LOOKED_AT]
    found = _UNIT_AFTER.match(after)
    own = quantity(f"1 {found[1]}") if found else None
    if found and own and not (found[0][0] == " " and found[1] in _OFTEN_NO_UNIT):
        seen = f"{match[1]}{found[0]}"
        if unit is not None:
            if own != quantity(f"1 {unit}"):
                return f"{quote(seen)} has the unit {found[1]}, but `unit:` is {unit}"
            return ""
        if not _requires(pattern, line, match, end + len(found[0]) - len(found[1])):
            hint = f"add `unit: {found[1]}`, or match the unit too"
            return f"{_matched(match, seen)}: {hint}"
        return ""
    rest = _AFTER.match(after)
    if rest and not _requires(pattern, line, match, end):
        word = re.match(r"\S*", line[start : start + _LOOKED_AT])
        seen = word[0] if word else ""
        return f"{_matched(match, seen)}: {why_no_number(seen) or 'match the whole number'}"
    return ""


def _in_groups(pattern: re.Pattern[str], line: str, match: re.Match[str]) -> str:
    """Return the number with spaces between thousands that a group matched in part, else ""."""
    (start, end), value = match.span(1), match[1]
    head = tail = ""
    before = _GROUPS_BEFORE.search(line[max(start - _LOOKED_AT, 0) : start])
    if before and _LATER_GROUP.match(value) and not _requires(pattern, line, match, start - 1):
        head = before[0]
    after = _GROUPS_AFTER.match(line[end : end + _LOOKED_AT])
    is_group = _LATER_GROUP if head else _FIRST_GROUP
    if after and is_group.fullmatch(value) and not _requires(pattern, line, match, end):
        tail = after[0]
    return f"{head}{value}{tail}" if head or tail else ""


def _matched(match: re.Match[str], seen: str) -> str:
    return f"the pattern matched only {quote(match[1])} of {quote(seen, _SEEN_CHARACTERS)}"


def _requires(pattern: re.Pattern[str], line: str, match: re.Match[str], index: int) -> bool:
    """Whether the pattern matches only with just this character at an index of the line."""
    return not any(
        each.span(1) == match.span(1)
        for other in ("x," if line[index] == " " else " x")
        for each in pattern.finditer(f"{line[:index]}{other}{line[index + 1 :]}")
    )
