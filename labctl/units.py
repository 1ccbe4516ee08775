"""Parse and format sizes, counts, shares and durations.

Every parser takes the raw text of a lab.yaml value, or a number, and raises `UnitError`,
whose hint is an example.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

from labctl.printable import printable

Scalar = int | float | str

KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40
_BINARY = {"Ki": KIB, "Mi": MIB, "Gi": GIB, "Ti": TIB}
_SECONDS = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "sec": Decimal(1),
    "min": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}

# The number of digits is limited, as int() rejects thousands of digits.
_NUMBER = r"[0-9]{1,18}(?:\.[0-9]{1,12})?"
SIZE_PATTERN = rf"^{_NUMBER} ?(?:[KMGT]iB?|B)?$"
COUNT_PATTERN = rf"^{_NUMBER}(?:[KMGT]i)?$"
SHARE_PATTERN = rf"^{_NUMBER} ?%?$"
DURATION_PATTERN = rf"^{_NUMBER} ?(?:ms|s|sec|min|h|d)?$"

_QUANTITY = re.compile(rf"([+-]?)({_NUMBER}) ?([A-Za-z%]*)", re.ASCII)
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})", re.ASCII)
_DECIMAL = re.compile(r"-?[0-9]{1,15}\.[0-9]{1,15}", re.ASCII)
_SIZE_LIKE = re.compile(r"-?[0-9][0-9._]* ?(?:[kmgt]i?b?|b)", re.ASCII | re.IGNORECASE)


class UnitError(ValueError):
    """An invalid value; the text is one sentence, `hint` shows an example."""

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.hint = hint


def _split(text: str, noun: str, example: str) -> tuple[Decimal, str]:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise UnitError(f"expected {noun}, got {quote(text)}", f"example: {example}")
    sign, number, unit = match.groups()
    return Decimal(sign + number), unit


def _whole(value: Decimal, text: str, noun: str, example: str) -> int:
    if value != value.to_integral_value():
        raise UnitError(f"expected a whole {noun}, got {quote(text)}", f"example: {example}")
    return int(value)


def quote(text: str, limit: int = 40) -> str:
    """Return `text` in quotes, on one line, cut to `limit` characters.

    Control characters become `?`.
    """
    line = " ".join(text.split(maxsplit=limit))[: limit + 1].rstrip()
    line = printable(line)
    return f"'{line if len(line) <= limit else line[: limit - 1] + '…'}'"


def size(value: object) -> int:
    """Return bytes: `3GiB`, `1536MiB`, `1.5GiB`, `4096`."""
    example = "1536MiB or 3GiB"
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = _text(value, "a size", example)
    number, unit = _split(text, "a size", example)
    if unit in ("", "B"):
        return _whole(number, text, "number of bytes", example)
    factor = _BINARY.get(unit.removesuffix("B") if unit != "B" else unit)
    if factor is None:
        raise UnitError(f"expected a size, got {quote(text)}", _size_hint(number, unit, example))
    return _whole(number * factor, text, "number of bytes", example)


def _size_hint(number: Decimal, unit: str, example: str) -> str:
    letter = unit[:1].upper()
    if letter in "KMGT" and unit.lower().removesuffix("b").removesuffix("i") == letter.lower():
        return f"units are powers of 1024: did you mean {number}{letter}iB?"
    return f"example: {example}"


def count(value: object) -> int:
    """Return a whole number: `4`, `64Ki`, `1Mi`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    noun, example = "a whole number", "4 or 64Ki"
    text = _text(value, noun, example)
    number, unit = _split(text, noun, example)
    if unit and unit not in _BINARY:
        raise UnitError(f"expected {noun}, got {quote(text)}", f"example: {example}")
    return _whole(number * _BINARY.get(unit, 1), text, "number", example)


def share(value: object) -> float:
    """Return a fraction: `2%` and `0.02` are the same."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    noun, example = "a share", "2% or 0.02"
    text = _text(value, noun, example)
    number, unit = _split(text, noun, example)
    if unit not in ("", "%"):
        raise UnitError(f"expected {noun}, got {quote(text)}", f"example: {example}")
    return float(number / 100 if unit else number)


def duration(value: object) -> float:
    """Return seconds: `300`, `300s`, `5min`, `1.5h`, `500ms`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    noun, example = "a duration", "300s or 5min"
    text = _text(value, noun, example)
    number, unit = _split(text, noun, example)
    if unit and unit not in _SECONDS:
        raise UnitError(f"expected {noun}, got {quote(text)}", f"example: {example}")
    return float(number * _SECONDS.get(unit, Decimal(1)))


def scalar(text: str) -> Scalar:
    """Return the value of a setting or parameter, typed by its form.

    `16Ki` and `3GiB` are ints, `4` is an int, `0.5` a float; everything else
    (`never`, `off`, `1:30`, `0x10`, `007`) stays text.

    Raises:
        UnitError: the text resembles a size but is invalid (`3GB`); it would
            otherwise reach the guest as text.
    """
    if _INTEGER.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text):
        return float(text)
    if _SIZE_LIKE.fullmatch(text):
        try:
            return size(text)
        except UnitError as error:
            hint = f"{error.hint}; put it in quotes if it is text"
            raise UnitError(str(error), hint) from error
    return text


def text(value: Scalar) -> str:
    """Return a value as text for a kernel or a program: 0.00001, never 1e-05."""
    return f"{Decimal(repr(value)):f}" if isinstance(value, float) else str(value)


def _text(value: object, noun: str, example: str) -> str:
    if isinstance(value, str):
        return value
    raise UnitError(f"expected {noun}, got {kind(value)}", f"example: {example}")


def kind(value: object) -> str:
    """Return the kind of a value from a file, for "expected …, got a list"."""
    if isinstance(value, dict):
        return "a mapping (keys and values)"
    if isinstance(value, list | tuple):
        return "a list"
    return "nothing" if value is None else f"the text {quote(str(value))}"


def format_size(value: int) -> str:
    """Return bytes with the largest unit that divides them: 3221225472 is `3GiB`."""
    for unit, factor in reversed(_BINARY.items()):
        if value and value % factor == 0:
            return f"{value // factor}{unit}B"
    return f"{value}B"


def rough_size(count_bytes: float) -> str:
    """Return bytes in the largest unit that fits, with three digits or all before the point.

    Examples: `7.75 GiB`, `1020 MiB`, `512 bytes`.
    """
    for unit, factor in reversed(_BINARY.items()):
        if count_bytes >= factor:
            value = count_bytes / factor
            return f"{value:.3g} {unit}B" if value < 999.5 else f"{value:.0f} {unit}B"
    return f"{count_bytes:.0f} bytes"


def format_count(value: int) -> str:
    """Return a number with the largest unit that divides it: 262144 is `256Ki`."""
    for unit, factor in reversed(_BINARY.items()):
        if value and value % factor == 0:
            return f"{value // factor}{unit}"
    return str(value)


def quoted(names: Sequence[str], most: int = 3) -> str:
    """Return the first names in quotes, and how many more there are."""
    shown = ", ".join(quote(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 block, 2 blocks."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def format_duration(seconds: float) -> str:
    """Return seconds in the largest unit that keeps them whole: 300 is `5min`."""
    for unit, factor in (("h", 3600), ("min", 60)):
        if seconds and seconds % factor == 0:
            return f"{seconds / factor:.0f}{unit}"
    return f"{Decimal(repr(seconds)).normalize():f}s"
