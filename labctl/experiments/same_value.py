"""Compare the value read from a kernel file with the value written, by meaning. Pure.

The kernel may print a value in another form: with tabs, leading zeros, as a mask or a list
of CPUs, as Y or 1. Two texts are the same value only if they are in one of the kernel's
formats.
"""

from __future__ import annotations

import re
from decimal import Decimal

# Longer texts are only compared literally.
_LONGEST = 4096
_MOST_CPUS = 2**16
_CHOICE = re.compile(r"(?<!\S)\[([^\[\]]+)\](?!\S)")

_DECIMAL = re.compile(r"[-+]?[0-9]{1,40}(?:\.[0-9]{1,40})?", re.ASCII)
_OCTAL = re.compile(r"0[0-7]{1,40}", re.ASCII)
_HEX = re.compile(r"0[xX]([0-9a-fA-F]{1,32})", re.ASCII)
_MASK = re.compile(r"[0-9a-fA-F]{1,8}(?:,[0-9a-fA-F]{8})*", re.ASCII)
_HEX_LOOKS = re.compile(r"[a-fA-F]|^0[0-9]{7}(?:,|$)|,[0-9]{8}", re.ASCII)
_SIZE = re.compile(r"([0-9]{1,20})([kKmMgGtT])", re.ASCII)
_RANGE = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6})(?::([0-9]{1,6})/([0-9]{1,6}))?)?", re.ASCII)
# memparse() of lib/cmdline.c
_FACTORS = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
# kstrtobool() of lib/kstrtox.c, and the forms that files print; letters that are digits of
# a mask are excluded.
_ON = frozenset(("1", "y", "yes", "true", "on", "enabled"))
_OFF = frozenset(("0", "n", "no", "false", "off", "disabled"))


def holds(text: str, value: str) -> bool:
    """Return whether a file that reads as `text` holds `value`.

    A choice such as `always madvise [never]` holds the bracketed word.
    """
    text, value = text.strip(), value.strip()
    if text == value:
        return True
    if max(len(text), len(value)) > _LONGEST:
        return False
    chosen = _CHOICE.findall(text)
    if len(chosen) == 1:
        return _same_words(chosen[0], value)
    return _same_words(text, value)


def _same_words(text: str, value: str) -> bool:
    read, written = text.split(), value.split()
    return len(read) == len(written) and all(map(_same_word, read, written))


def _same_word(read: str, written: str) -> bool:
    return (
        read == written
        or bool(_numbers(read) & _numbers(written))
        or _is_same(_switch(read), _switch(written))
        or _is_same(_mask(read), _mask(written))
        or _is_same(_unmistakable(read), _unmistakable(written))
        or _is_same(_cpus(read), _cpus(written))
    )


def _is_same(one: object, other: object) -> bool:
    return one is not None and one == other


def _numbers(word: str) -> set[Decimal]:
    """Return the possible values of a word: a leading zero is padding or means octal."""
    found = set()
    if _DECIMAL.fullmatch(word):
        found.add(Decimal(word))
        if _OCTAL.fullmatch(word):
            found.add(Decimal(int(word, 8)))
    elif hexadecimal := _HEX.fullmatch(word):
        found.add(Decimal(int(hexadecimal[1], 16)))
    elif size := _SIZE.fullmatch(word):
        found.add(Decimal(int(size[1]) * _FACTORS[size[2].lower()]))
    return found


def _switch(word: str) -> bool | None:
    word = word.lower()
    return True if word in _ON else False if word in _OFF else None


def _mask(word: str) -> int | None:
    """Parse a hexadecimal mask in groups of 32 bits: `00000000,0000000f`."""
    return int(word.replace(",", ""), 16) if _MASK.fullmatch(word) else None


def _unmistakable(word: str) -> int | None:
    """Parse a number that is unambiguously hexadecimal: `0x33`, `00000033` or `ff`."""
    if hexadecimal := _HEX.fullmatch(word):
        return int(hexadecimal[1], 16)
    return _mask(word) if _HEX_LOOKS.search(word) else None


def _cpus(word: str) -> set[int] | None:
    """Parse a list of CPUs or nodes: `0-3,8`, `0-15:1/2`."""
    found: set[int] = set()
    for part in word.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            return None
        first, last = int(match[1]), int(match[2] or match[1])
        used, group = int(match[3] or 1), int(match[4] or 1)
        if not (first <= last < _MOST_CPUS and 0 < used <= group):
            return None
        found.update(n for n in range(first, last + 1) if (n - first) % group < used)
    return found
