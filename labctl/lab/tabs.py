"""Report tabs in a YAML file, and replace them by spaces so that the rest is checked too.

YAML forbids tabs in indentation, and a parser stops at the first one. The number of spaces
that a tab stands for is unknown, so likely widths are tried, and the one with the fewest
other errors is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import yaml

from labctl.errors import Problem
from labctl.lab.document import Document, Mark

Cost = tuple[int, int]
_MAX_RUNS = 25
_MAX_INLINE = 200
_MAX_DEPTH = 100
_BLOCK_HEADER = re.compile(r"(?:[:-]|^)\s+[|>][+-]?[1-9]?[+-]?\s*(?:#.*)?$")
_BRACKET = re.compile(r"[\[\]{}]")
_OPENS = re.compile(r"(?::|-|[|>][+-]?[1-9]?[+-]?)\s*(?:#.*)?$")


@dataclass(slots=True)
class Repair:
    """A text without tabs; `tabs` are the (line, column) of those that were errors."""

    text: str
    tabs: list[tuple[int, int]]
    shifts: dict[int, int] = field(default_factory=dict)

    def restore(self, document: Document) -> Document:
        """Return the parsed text with the columns of the original file."""
        return replace(
            document,
            keys={path: self._original(mark) for path, mark in document.keys.items()},
            values={path: self._original(mark) for path, mark in document.values.items()},
            problems=[replace(one, mark=self._original(one.mark)) for one in document.problems],
        )

    def _original(self, mark: Mark) -> Mark:
        return Mark(mark.line, max(1, mark.column - self.shifts.get(mark.line, 0)))


def with_tabs(
    file: str, tabs: Sequence[tuple[int, int]], problems: Sequence[Problem], *, broken: bool
) -> list[Problem]:
    """Return the problems with one added for each line that has a tab.

    If the text does not parse even without tabs, errors after the first tab are left out:
    they may be due to a wrong width.
    """
    hint = "indent by spaces; most editors can do so for YAML files"
    what = "tab in indentation"
    mine = [Problem(file, line, column, "", what, hint) for line, column in tabs]
    first = min(line for line, _ in tabs) if tabs else 0
    return mine + [one for one in problems if not broken or one.line < first]


def is_deep(text: str) -> bool:
    """Return whether a text nests brackets so deeply that `repair` would take long.

    The scanner looks at all open brackets for each token.
    """
    depth = 0
    for found in _BRACKET.finditer(text):
        depth = max(0, depth + (1 if found[0] in "[{" else -1))
        if depth > _MAX_DEPTH:
            return True
    return False


def repair(text: str, cost: Callable[[str], Cost]) -> Repair:
    """Replace the tabs of a YAML text that did not parse; `cost` rates a candidate."""
    lines = text.split("\n")
    widths = dict.fromkeys(_tab_lines(lines))
    runs = _runs(sorted(widths), lines)
    done, before = list(lines), _Before()
    for number, run in enumerate(runs):
        end = runs[number + 1][0] if number + 1 < len(runs) else len(lines)
        before.read(done, run[0])
        candidates = _candidates(lines, before, run)
        best = candidates[0]
        if number < _MAX_RUNS and len(candidates) > 1:
            rest = done[run[-1] + 1 : end]
            prices = [
                cost(_inline("\n".join((*done[: run[0]], *each, *rest)))[0]) for each in candidates
            ]
            best = candidates[prices.index(min(prices))]
        done[run[0] : run[-1] + 1] = best
    fixed, inline = _inline("\n".join(done))
    shifts = {i + 1: len(done[i]) - len(lines[i]) for i in range(len(lines)) if done[i] != lines[i]}
    tabs = [(i + 1, lines[i].index("\t") + 1) for i in widths if not _is_silent(lines[i])]
    tabs += [(line, column) for line, column in inline if line - 1 not in widths]
    return Repair(fixed, sorted(tabs), shifts)


def _is_silent(line: str) -> bool:
    return line.strip() == "" or line.lstrip().startswith("#")


def _leading(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" \t"))]


def _tab_lines(lines: Sequence[str]) -> Iterator[int]:
    """Yield the indices of lines with a tab in their indentation, outside block scalars."""
    block: int | None = None
    for i, line in enumerate(lines):
        spaces = len(line) - len(line.lstrip(" "))
        if block is not None:
            if line.strip() == "" or spaces > block:
                continue
            block = None
        if "\t" in _leading(line):
            yield i
        if _BLOCK_HEADER.search(line) and not _is_silent(line):
            block = spaces


def _runs(numbers: Sequence[int], lines: Sequence[str]) -> list[list[int]]:
    """Group consecutive lines; blank lines between them belong to the run."""
    runs: list[list[int]] = []
    for i in numbers:
        if runs and all(_is_silent(lines[j]) for j in range(runs[-1][-1] + 1, i)):
            runs[-1] += range(runs[-1][-1] + 1, i + 1)
        else:
            runs.append([i])
    return runs


@dataclass(slots=True)
class _Before:
    """The lines before a run: each is read once, or many runs would take quadratic time."""

    last: str | None = None
    depths: set[int] = field(default_factory=set)
    _read: int = 0

    def read(self, lines: Sequence[str], end: int) -> None:
        for number in range(self._read, end):
            if not _is_silent(lines[number]):
                self.last = lines[number]
                self.depths.add(len(_leading(self.last)))
        self._read = end


def _candidates(lines: Sequence[str], before: _Before, run: Sequence[int]) -> list[list[str]]:
    """Return the possible indentations of a run of lines, the likeliest first."""
    following = (lines[number] for number in range(run[-1] + 1, len(lines)))
    after = next((line for line in following if not _is_silent(line)), "")
    previous = len(_leading(before.last)) if before.last is not None else 0
    deeper = before.last is not None and _OPENS.search(before.last) is not None
    bases = [previous + 2, previous + 4] if deeper else [previous]
    bases += [len(_leading(after))] if "\t" not in _leading(after) else []
    bases += sorted(before.depths, reverse=True)
    first = next((lines[i] for i in run if not _is_silent(lines[i])), lines[run[0]])
    ways: list[list[str]] = []
    for base in bases[:8]:
        for step in (2, 4) if len(run) > 1 else (2,):
            shift = base - _width(first, step)
            ways.append([_spaced(lines[i], _width(lines[i], step) + shift) for i in run])
    for step in (2, 4, 8):
        ways.append([_spaced(lines[i], _width(lines[i], step)) for i in run])
    unique: list[list[str]] = []
    for way in ways:
        if way not in unique:
            unique.append(way)
    return unique


def _width(line: str, step: int) -> int:
    leading = _leading(line)
    return leading.count("\t") * step + leading.count(" ")


def _spaced(line: str, width: int) -> str:
    return " " * max(0, width) + line.lstrip(" \t")


def _inline(text: str) -> tuple[str, list[tuple[int, int]]]:
    """Replace each tab at which the scanner stops, after a dash, colon or value, by a space."""
    places: list[tuple[int, int]] = []
    if "\t" not in text:
        return text, places
    for _ in range(_MAX_INLINE):
        try:
            for _token in yaml.scan(text, Loader=yaml.BaseLoader):
                pass
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            if mark is None or text[mark.index : mark.index + 1] != "\t":
                break
            text = f"{text[: mark.index]} {text[mark.index + 1 :]}"
            if not any(line == mark.line + 1 for line, _ in places):
                places.append((mark.line + 1, mark.column + 1))
        except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
            break
        else:
            break
    return text, places
