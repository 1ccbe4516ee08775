"""The smallest effect that matters: a share of a ratio, or an absolute difference. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from labctl import units
from labctl.lab.metrics import Scale, is_time
from labctl.lab.quantity import KNOWN_UNITS, LARGEST, NUMBER, quantity

EFFECT_PATTERN = r"^[0-9]{1,18}(?:\.[0-9]{1,12})?(?:[eE][-+]?[0-9]{1,3})? ?[^\s0-9]*$"
_WRITTEN = re.compile(rf"({NUMBER})[ \t]*([^\s0-9][^\s]*)?")
_EXAMPLE = "2%, or 100 pages for a difference"


@dataclass(frozen=True, slots=True)
class Effect:
    """An effect as written: its number and its unit, which is empty without one."""

    number: float
    unit: str = ""

    def __str__(self) -> str:
        """Return it as a user writes it."""
        return f"{self.number:.12g}{'' if self.unit in ('', '%') else ' '}{self.unit}"

    def on(self, scale: Scale, metric: str, unit: str | None = None, command: str = "") -> float:
        """Return the effect as a fraction, or in the base unit of the metric's values.

        `unit` is that of the metric in lab.yaml, which a number without a unit has.

        Raises:
            UnitError: it does not fit the scale or the metric.
        """
        return self._share() if scale == "ratio" else self._difference(metric, unit, command)

    def _share(self) -> float:
        if self.unit not in ("", "%"):
            hint = "example: 2%; an absolute value needs `scale: difference`"
            raise units.UnitError(f"expected a share, got {units.quote(str(self))}", hint)
        found = self.number / 100 if self.unit else self.number
        if found >= 1:
            hint = "an absolute value needs `scale: difference`"
            raise units.UnitError(f"expected less than 1, got {self}", hint)
        return found

    def _difference(self, metric: str, unit: str | None, command: str) -> float:
        expects_time = is_time(metric, command)
        if self.unit == "%":
            hint = (
                "example: 2ms" if expects_time else "example: 100, in the metric's unit, or 5 MB/s"
            )
            what = f"expected an absolute value, as {metric} has `scale: difference`, got {self}"
            raise units.UnitError(what, hint)
        own = self.unit or unit or ""
        if expects_time and not own:
            hint = f"did you mean {self}ms or {self}s?"
            raise units.UnitError(f"unit is missing: {metric} is a time", hint)
        found = quantity(f"{self.number!r} {own}")
        if found is None:
            raise units.UnitError(f"unknown unit {units.quote(own)}", f"known: {KNOWN_UNITS}")
        if self.unit and bool(found.is_time) != expects_time:
            kind = "a time" if expects_time else "not a time"
            raise units.UnitError(
                f"expected the unit of {metric}, got {units.quote(self.unit)}",
                f"{metric} is {kind}",
            )
        return found.value


def effect(value: object) -> Effect:
    """Return the effect that a value of lab.yaml stands for: `2%`, `0.02`, `100 pages`, `2ms`.

    Raises:
        UnitError: it is not a number above 0, or its unit is unknown.
    """
    if isinstance(value, Effect):
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise units.UnitError(f"expected {_EXAMPLE}, got {units.kind(value)}")
    match = _WRITTEN.fullmatch(str(value).strip())
    if match is None:
        what = f"expected an effect, got {units.quote(str(value))}"
        raise units.UnitError(what, f"example: {_EXAMPLE}")
    number, unit = float(match[1]), match[2] or ""
    if unit not in ("", "%") and quantity(f"1 {unit}") is None:
        raise units.UnitError(f"unknown unit {units.quote(unit)}", f"known: {KNOWN_UNITS}")
    if not 0 < number <= LARGEST:
        limit = f"expected more than 0 and at most {LARGEST:g}"
        raise units.UnitError(f"{limit}, got {units.quote(match[0]).strip(chr(39))}")
    return Effect(number, unit)


def _schema(description: str, *words: str | None) -> WithJsonSchema:
    kinds: list[dict[str, Any]] = [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": EFFECT_PATTERN},
    ]
    more: list[dict[str, Any]] = [{"enum": list(words)}] if words else []
    return WithJsonSchema({"anyOf": [*kinds, *more], "description": description})


def _effect_or_none(value: object) -> Effect | None:
    return None if value is None or str(value) == "none" else effect(value)


MinimumEffect = Annotated[
    Effect, BeforeValidator(effect), _schema("an effect: 2%; with a difference 100 pages")
]
StopEffect = Annotated[
    Effect | None,
    BeforeValidator(_effect_or_none),
    _schema("half width of an interval: 3%; with a difference 150 pages; or none", "none", None),
]
