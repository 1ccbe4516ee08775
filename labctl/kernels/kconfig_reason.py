"""Explain why Kconfig dropped or changed a requested option, and whether that is an error."""

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
    "bool": "expected a bool: y or n",
    "tristate": "expected a tristate: y, m or n",
    "int": "expected an int: a decimal number without leading zeros",
    "hex": "expected a hex: a number like 0x1f",
    "string": 'expected a string: "text" in double quotes',
}


@dataclass(frozen=True, slots=True)
class Reasons:
    """The source's definitions and the final .config; names in `config` lack CONFIG_."""

    known: Mapping[str, Sequence[Definition]]
    config: Mapping[str, str]
    requested: Sequence[Option]

    def is_expected(self, option: Option) -> bool:
        """Return whether the loss of an option is not an error.

        That is so for options that Kconfig computes, if they come from a .config that it
        wrote, and for a member of a choice if a later fragment sets another member.
        """
        name = _bare(option.name)
        if option.value == "y" and self._later_member(option):
            return True
        blocks = self.known.get(name, ())
        asked = any(block.prompts for block in blocks)
        computed = any(block.computed for block in blocks)
        return bool(blocks) and not asked and (computed or option.generated)

    def _later_member(self, option: Option) -> Option | None:
        """Return the requested member of the same choice that is set, if it is a later one."""
        choices = self._choices(_bare(option.name))
        for other in self.requested:
            won = other.value == "y" == self.config.get(_bare(other.name))
            if won and other.rank > option.rank and choices & self._choices(_bare(other.name)):
                return other
        return None

    def _choices(self, name: str) -> set[str]:
        return {block.choice for block in self.known.get(name, ()) if block.choice}

    def of(self, option: Option) -> str:
        """Return why an option is missing from the final .config, as a clause."""
        name = _bare(option.name)
        blocks = self.known.get(name)
        if not blocks:
            near = difflib.get_close_matches(name, self.known, 1)
            hint = f"; did you mean {_PREFIX}{near[0]}?" if near else ""
            return f"no Kconfig file of this source defines it{hint}"
        if not any(block.prompts for block in blocks):
            return "it cannot be set directly, only selected by other options"
        reasons = (
            self._wrong_type(option, blocks),
            self._of_choice(option, name),
            self._selected(name) if option.value == "n" else "",
            self._hidden(option, blocks),
            self._outside(option, blocks),
        )
        return next(filter(None, reasons), "") or self._perhaps(option, blocks)

    def _perhaps(self, option: Option, blocks: Sequence[Definition]) -> str:
        """Return a possible reason if none was found."""
        if option.value == "n":
            return "another option selects it"
        own = dict.fromkeys(_all_of(block.conditions) for block in blocks if block.conditions)
        return f"it depends on {' or '.join(own)}" if own else "an enclosing block is off"

    def _wrong_type(self, option: Option, blocks: Sequence[Definition]) -> str:
        types = {block.type for block in blocks if block.type}
        value = option.value
        if value == "m" and "tristate" in types and self.config.get("MODULES", "n") == "n":
            return "m needs CONFIG_MODULES=y: use y or n"
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
            return f"one member of its choice must be on: set another one ({names})"
        if on and not self._hidden(option, self.known[name]):
            return f"{_PREFIX}{on[0]} of the same choice is on"
        return ""

    def _selected(self, name: str) -> str:
        by = [
            f"{_PREFIX}{other}"
            for other, blocks in self.known.items()
            for block in blocks
            for target, condition in block.selects
            if target == name and self.config.get(other, "n") != "n" and self._level(condition)
        ]
        return f"it is selected by {', '.join(dict.fromkeys(by))}" if by else ""

    def _level(self, condition: str) -> int:
        return kconfig_expression.parse(condition).level(self.config) if condition else 2

    def _hidden(self, option: Option, blocks: Sequence[Definition]) -> str:
        """Return the unmet dependencies, an empty text if there are none."""
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
        """Return the unmet parts of a condition, with reasons for those that cannot be set."""
        found = kconfig_expression.parse(condition).missing(self.config, level)
        return [self._explained(words) for words in found]

    def _explained(self, words: str) -> str:
        blocks = self.known.get(_bare(words.partition(" ")[0]), ())
        if not words.endswith(" is not set") or any(block.prompts for block in blocks):
            return words
        if any(block.computed for block in blocks):
            return f"{words}, which depends on the tools of this host"
        defaults = [block.default for block in blocks if block.default not in {"", *LEVELS}]
        why = [w for d in defaults for w in kconfig_expression.parse(d).missing(self.config, 1)]
        return f"{words}, because {why[0]}" if why else words

    def _outside(self, option: Option, blocks: Sequence[Definition]) -> str:
        ranges = [each for block in blocks for each in block.ranges]
        if kconfig_expression.number(option.value) is None or not ranges:
            return ""
        limits = (" ".join(self.config.get(w, w) for w in each.split()) for each in ranges)
        return f"its range is {' or '.join(dict.fromkeys(limits))}"


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
