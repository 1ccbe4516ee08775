"""Why Kconfig dropped or changed a requested option, and whether that is the user's mistake."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labctl.kernels import kconfig_expression
from labctl.kernels.kconfig_expression import LEVELS
from labctl.kernels.kconfig_source import Definition

if TYPE_CHECKING:
    from labctl.kernels.kconfig import Option

_PREFIX = "CONFIG_"
_EXPECTED = {
    "bool": "it is a bool: y or n",
    "tristate": "it is a tristate: y, m or n",
    "int": "it is an int: a decimal number without leading zeros",
    "hex": "it is a hex: a number like 0x1f",
    "string": 'it is a string: "text" in double quotes',
}


@dataclass(frozen=True, slots=True)
class Reasons:
    """What the source and the .config say; `config` has its options without CONFIG_."""

    known: Mapping[str, Sequence[Definition]]
    config: Mapping[str, str]
    requested: Sequence[Option]

    def is_expected(self, option: Option) -> bool:
        """Return whether an option that did not hold was never meant to.

        Such are what Kconfig computes, in a .config that it wrote itself, and a member
        of a choice when a later fragment takes another one.
        """
        name = _bare(option.name)
        if option.value == "y" and self._later_member(option):
            return True
        blocks = self.known.get(name, ())
        asked = any(block.prompts for block in blocks)
        computed = any(block.computed for block in blocks)
        return bool(blocks) and not asked and (computed or option.generated)

    def _later_member(self, option: Option) -> Option | None:
        """Return the requested member of the same choice that won, if it is the later one."""
        choices = self._choices(_bare(option.name))
        for other in self.requested:
            won = other.value == "y" == self.config.get(_bare(other.name))
            if won and other.rank > option.rank and choices & self._choices(_bare(other.name)):
                return other
        return None

    def _choices(self, name: str) -> set[str]:
        return {block.choice for block in self.known.get(name, ()) if block.choice}

    def of(self, option: Option) -> str:
        """Return why an option did not hold, as a clause."""
        name = _bare(option.name)
        blocks = self.known.get(name)
        if not blocks:
            near = difflib.get_close_matches(name, self.known, 1)
            hint = f"; did you mean {_PREFIX}{near[0]}?" if near else ""
            return f"no Kconfig file of this source has it{hint}"
        if not any(block.prompts for block in blocks):
            return "it cannot be asked for: only other options turn it on or off"
        reasons = (
            self._wrong_type(option, blocks),
            self._of_choice(option, name),
            self._selected(name) if option.value == "n" else "",
            self._hidden(option, blocks),
            self._outside(option, blocks),
        )
        return next(filter(None, reasons), "") or self._perhaps(option, blocks)

    def _perhaps(self, option: Option, blocks: Sequence[Definition]) -> str:
        """Return what may be the reason where none was found."""
        if option.value == "n":
            return "something selects it"
        own = dict.fromkeys(_all_of(block.conditions) for block in blocks if block.conditions)
        return f"it depends on {' or '.join(own)}" if own else "what stands around it is off"

    def _wrong_type(self, option: Option, blocks: Sequence[Definition]) -> str:
        types = {block.type for block in blocks if block.type}
        value = option.value
        if value == "m" and "tristate" in types and self.config.get("MODULES", "n") == "n":
            return "without CONFIG_MODULES=y there is no m: ask for y or n"
        fits = {
            "bool": value in {"y", "n"},
            "tristate": value in LEVELS,
            "int": kconfig_expression.number(value) is not None and _is_decimal(value),
            "hex": _is_hex(value),
            "string": value.startswith('"'),
        }
        if any(fits[each] for each in types if each in fits):
            return ""
        return " or ".join(_EXPECTED[each] for each in sorted(types) if each in _EXPECTED)

    def _of_choice(self, option: Option, name: str) -> str:
        choices = self._choices(name)
        others = [
            other
            for other, blocks in self.known.items()
            if other != name and choices & {block.choice for block in blocks}
        ]
        on = [other for other in others if self.config.get(other) == "y"]
        if not choices:
            return ""
        if option.value == "n":
            names = ", ".join(f"{_PREFIX}{other}" for other in others)
            return f"one of its choice must be on: ask for another one ({names})"
        if on and not self._hidden(option, self.known[name]):
            return f"of its choice {_PREFIX}{on[0]} is on"
        return ""

    def _selected(self, name: str) -> str:
        by = [
            f"{_PREFIX}{other}"
            for other, blocks in self.known.items()
            for block in blocks
            for target, condition in block.selects
            if target == name and self.config.get(other, "n") != "n" and self._level(condition)
        ]
        return f"something selects it: {', '.join(dict.fromkeys(by))}" if by else ""

    def _level(self, condition: str) -> int:
        return kconfig_expression.parse(condition).level(self.config) if condition else 2

    def _hidden(self, option: Option, blocks: Sequence[Definition]) -> str:
        """Return what it depends on, with what is missing, if that keeps it from being set."""
        level = max(1, LEVELS.get(option.value, 1) if option.value != "n" else 1)
        asked, missing = [], []
        for block in blocks:
            for prompt in block.prompts:
                conditions = [each for each in (*block.conditions, prompt) if each]
                found = [word for each in conditions for word in self._missing(each, level)]
                if not found:
                    return ""
                asked.append(_all_of(conditions))
                missing.append(", ".join(dict.fromkeys(found)))
        depends = " or ".join(dict.fromkeys(asked))
        return f"it depends on {depends} ({'; or '.join(dict.fromkeys(missing))})"

    def _missing(self, condition: str, level: int) -> list[str]:
        """Return what a condition lacks; of what cannot be asked for also why it is off."""
        found = kconfig_expression.parse(condition).missing(self.config, level)
        return [self._explained(words) for words in found]

    def _explained(self, words: str) -> str:
        blocks = self.known.get(_bare(words.partition(" ")[0]), ())
        if not words.endswith(" is not set") or any(block.prompts for block in blocks):
            return words
        if any(block.computed for block in blocks):
            return f"{words}, which the tools of this host decide"
        defaults = [block.default for block in blocks if block.default not in {"", *LEVELS}]
        why = [w for d in defaults for w in kconfig_expression.parse(d).missing(self.config, 1)]
        return f"{words}, since {why[0]}" if why else words

    def _outside(self, option: Option, blocks: Sequence[Definition]) -> str:
        ranges = [each for block in blocks for each in block.ranges]
        if kconfig_expression.number(option.value) is None or not ranges:
            return ""
        told = (" ".join(self.config.get(w, w) for w in each.split()) for each in ranges)
        return f"its range is {' or '.join(dict.fromkeys(told))}"


def _all_of(conditions: Sequence[str]) -> str:
    if len(conditions) == 1:
        return conditions[0]
    return " && ".join(f"({each})" if "||" in each else each for each in conditions)


def _bare(name: str) -> str:
    return name.removeprefix(_PREFIX)


def _is_decimal(value: str) -> bool:
    digits = value.removeprefix("-")
    return digits.isdecimal() and (digits == "0" or not digits.startswith("0"))


def _is_hex(value: str) -> bool:
    return kconfig_expression.number(f"0x{value.lower().removeprefix('0x')}") is not None
