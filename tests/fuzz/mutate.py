"""Inputs made from a parser's corpus: seeded mutations, and long repetitions."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate

_LONGEST_BYTES = 1 << 14
_DIGITS, _SEPARATOR = re.compile(rb"[0-9]+"), re.compile(rb'[ \n,:"]')
# Numbers that are too large, empty or negative; what begins and ends things in our formats.
TOKENS = (
    b"", b"0", b"-1", b"1e999", b"NaN", b"9" * 20, b"9" * 400, b"9" * 5000, b"0-99999999999",
    b"\0", b"\xff", b"\xc0", b"\xdb", b"\r\n", b"\n\n", b"\n", b"\t", b" ", b"\xc2\xa0",
    b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\\ud800", b"\\", b"\x1b[2J", b"[", b"]", b"{", b"}",
    b"[" * 5000, b'{"a":' * 3000, b"(" * 2000, b'"', b"'", b"`", b"$", b":", b": ", b",", b";",
    b"*", b"&a ", b"*a", b"<<: ", b"- ", b"? ", b"!!", b"@", b"<", b">", b"#", b"%", b"=", b"=?",
    b"?=", b"../", b"/dev/null", b"null", b"true", b"[]", b"{}",
    "\N{ARABIC-INDIC DIGIT FIVE}".encode(), "\N{SUPERSCRIPT TWO}".encode(),
)  # fmt: skip


# Most inputs are short: many more of them are parsed in the same time.
_SHORT_BYTES, _OFTEN = 300, 8
_PICKED = tuple(t for t in TOKENS for _ in range(_OFTEN if len(t) < _SHORT_BYTES else 1))


def mutated(seeds: Sequence[bytes], source: random.Random) -> bytes:
    """Return a seed, the shorter the more often, changed in one to six places."""
    weights = _weights(tuple(map(len, seeds)))
    data = bytearray(source.choices(seeds, cum_weights=weights)[0])
    for _ in range(source.choice((1, 1, 1, 2, 2, 3, 4, 6))):
        change = source.choice(_CHANGES)
        change(data, source, seeds)
    return bytes(data[: _LONGEST_BYTES * 2])


@cache
def _weights(lengths: tuple[int, ...]) -> list[float]:
    return list(accumulate(_SHORT_BYTES / max(length, _SHORT_BYTES) for length in lengths))


def repeated(seeds: Sequence[bytes], source: random.Random) -> tuple[bytes, bytes, bytes]:
    """Return a beginning, a short unit to repeat, and an end."""
    data = source.choice(seeds)
    start = source.randrange(len(data) + 1)
    kind = source.randrange(4)
    if kind == 0:
        unit = source.choice([t for t in TOKENS if 0 < len(t) < 20])
    elif kind == 1:  # whole lines
        lines = data.splitlines(keepends=True) or [b"\n"]
        at = source.randrange(len(lines))
        start = sum(map(len, lines[:at]))
        unit = b"".join(lines[at : at + source.randint(1, 3)])
    else:
        unit = data[start : start + source.randint(1, 8)] or b" "
    return (
        data[:start],
        unit,
        source.choice((b"", data[start:], b"x", b"\n", source.choice(TOKENS))),
    )


def _place(data: bytearray, source: random.Random) -> int:
    return source.randrange(len(data) + 1)


def _flip(data: bytearray, source: random.Random, _: Sequence[bytes]) -> None:
    if data:
        data[source.randrange(len(data))] ^= 1 << source.randrange(8)


def _set(data: bytearray, source: random.Random, _: Sequence[bytes]) -> None:
    if data:
        data[source.randrange(len(data))] = source.randrange(256)


def _insert(data: bytearray, source: random.Random, _: Sequence[bytes]) -> None:
    at = _place(data, source)
    data[at:at] = source.choice(_PICKED)


def _remove(data: bytearray, source: random.Random, _: Sequence[bytes]) -> None:
    at = _place(data, source)
    del data[at : at + source.choice((1, 2, 4, 16, 64, 1000))]


def _double(data: bytearray, source: random.Random, _: Sequence[bytes]) -> None:
    at = _place(data, source)
    piece = bytes(data[at : at + source.choice((1, 4, 4, 32, 32, 200))])
    data[at:at] = piece * source.choice((1, 1, 2, 2, 2, 9, 9, 60))


def _number(data: bytearray, source: random.Random, _: Sequence[bytes]) -> None:
    """Replace a run of digits."""
    found = _DIGITS.search(data, _place(data, source)) or _DIGITS.search(data)
    if found:
        data[found.start() : found.end()] = source.choice(TOKENS[:9])


def _word(data: bytearray, source: random.Random, _: Sequence[bytes]) -> None:
    """Replace what is between two separators."""
    at = _place(data, source)
    found = _SEPARATOR.search(data, at)
    data[at : found.start() if found else len(data)] = source.choice(_PICKED)


def _splice(data: bytearray, source: random.Random, seeds: Sequence[bytes]) -> None:
    other = source.choice(seeds)
    at, of = _place(data, source), source.randrange(len(other) + 1)
    data[at:at] = other[of : of + source.choice((8, 64, 512))]


def _lines(data: bytearray, source: random.Random, _: Sequence[bytes]) -> None:
    lines = bytes(data).splitlines(keepends=True)
    source.shuffle(lines)
    data[:] = b"".join(lines)


_Change = Callable[[bytearray, random.Random, Sequence[bytes]], None]
_CHANGES: tuple[_Change, ...] = (
    _flip, _set, _insert, _insert, _remove, _double, _number, _number, _word, _word, _splice,
    _lines,
)  # fmt: skip
