"""Expressions of the Kconfig language, and which part of one keeps an option off.

Documentation/kbuild/kconfig-language.rst, "Menu dependencies": values are n, m and y.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEVELS = {"n": 0, "m": 1, "y": 2}
_TOKEN = re.compile(r"""(\(|\)|&&|\|\||!=|<=|>=|[=<>!]|"[^"]*"|'[^']*'|[\w.$-]+)""")
_LONGEST = 1 << 14
_DEEPEST = 100
_CALL = "$()"  # stands for a macro, whose value is unknown


@dataclass(frozen=True, slots=True)
class Expression:
    """An operator with its operands, or a symbol or constant."""

    word: str
    parts: tuple[Expression, ...] = ()

    def level(self, config: Mapping[str, str]) -> int:
        """Return 0, 1 or 2 for n, m or y; macros count as y, as their value is unknown."""
        if not self.parts:
            text = config.get(self.word, self.word if self.word in LEVELS else "n")
            return 2 if _CALL in self.word else LEVELS.get(text, 0)
        levels = [part.level(config) for part in self.parts]
        if self.word == "!":
            return 2 - levels[0]
        if self.word in {"&&", "||"}:
            return min(levels) if self.word == "&&" else max(levels)
        return 2 if self._compared(config) else 0

    def _compared(self, config: Mapping[str, str]) -> bool:
        texts = [config.get(part.word, part.word.strip("\"'")) for part in self.parts]
        left, right = (text.strip('"') for text in texts)
        numbers = [number(text) for text in (left, right)]
        if None in numbers:
            return (left == right) is (self.word not in {"!=", "<", ">"})
        low, high = (each or 0 for each in numbers)
        return {
            "=": low == high,
            "!=": low != high,
            "<": low < high,
            ">": low > high,
            "<=": low <= high,
            ">=": low >= high,
        }[self.word]

    def missing(self, config: Mapping[str, str], level: int) -> list[str]:
        """Return clauses that say what keeps it below a level; none if it is not."""
        if self.level(config) >= level:
            return []
        if self.word == "&&":
            return list(dict.fromkeys(w for p in self.parts for w in p.missing(config, level)))
        if self.word == "||":
            either = [" and ".join(part.missing(config, level)) for part in self.parts]
            return [" or ".join(dict.fromkeys(either))]
        if self.word == "!" and not self.parts[0].parts:
            name = self.parts[0].word
            return [f"CONFIG_{name} is {config.get(name, 'n')}"]
        if self.parts:
            named = (part.word for part in self.parts if part.word in config)
            values = "".join(f": CONFIG_{name} is {config[name]}" for name in named)
            return [f"{self} is false{values}"]
        value = config.get(self.word, "n")
        return [f"CONFIG_{self.word} is {'not set' if value == 'n' else value}"]

    def __str__(self) -> str:
        if len(self.parts) == 1:
            return f"{self.word}{self.parts[0]}"
        return f" {self.word} ".join(map(str, self.parts)) if self.parts else self.word


def number(text: str) -> int | None:
    """Return a decimal or hexadecimal number, None if the text is not a number."""
    try:
        return int(text, 16 if text.lower().startswith(("0x", "-0x")) else 10)
    except ValueError:
        return None


def parse(text: str) -> Expression:
    """Return an expression; an invalid one counts as y."""
    if len(text) > _LONGEST:
        return Expression(_CALL)
    reader = _Reader(_tokens(_without_calls(text)))
    found = reader.either()
    return Expression(_CALL) if reader.wrong or reader.tokens else found


def _without_calls(text: str) -> str:
    """Replace each `$(macro,…)` by one word; its parentheses may be nested."""
    done = ""
    while "$(" in text:
        before, _, rest = text.partition("$(")
        depth, at = 1, 0
        while depth and at < len(rest):
            depth += {"(": 1, ")": -1}.get(rest[at], 0)
            at += 1
        done, text = f'{done}{before}"{_CALL}"', rest[at:]
    return done + text


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text.partition("#")[0])


class _Reader:
    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = list(tokens)
        self.wrong = False
        self._depth = 0

    def _take(self, *wanted: str) -> str:
        return self.tokens.pop(0) if self.tokens and self.tokens[0] in wanted else ""

    def either(self) -> Expression:
        parts = [self.both()]
        while self._take("||"):
            parts.append(self.both())
        return Expression("||", tuple(parts)) if len(parts) > 1 else parts[0]

    def both(self) -> Expression:
        parts = [self.one()]
        while self._take("&&"):
            parts.append(self.one())
        return Expression("&&", tuple(parts)) if len(parts) > 1 else parts[0]

    def one(self) -> Expression:
        self._depth += 1
        try:
            return self._one()
        finally:
            self._depth -= 1

    def _one(self) -> Expression:
        if self._depth > _DEEPEST:
            self.wrong = True
            return Expression(_CALL)
        if self._take("!"):
            return Expression("!", (self.one(),))
        if self._take("("):
            inside = self.either()
            self.wrong |= not self._take(")")
            return inside
        if not self.tokens:
            self.wrong = True
            return Expression(_CALL)
        word = Expression(self.tokens.pop(0))
        operator = self._take("=", "!=", "<", ">", "<=", ">=")
        if not operator:
            return word
        other = Expression(self.tokens.pop(0) if self.tokens else "")
        return Expression(operator, (word, other))
