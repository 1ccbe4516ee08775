"""Parse the Kconfig files of a kernel source: options, prompts and conditions.

Used only to explain why an option is missing from the .config, which Kconfig itself writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from labctl.arch import Architecture

_TYPE = re.compile(r"(?:def_)?(bool|tristate|int|hex|string)\b")
_QUOTED = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
_PROMPT = re.compile(
    rf"(?:bool|boolean|tristate|int|hex|string|prompt)\s+{_QUOTED}(?:\s+if\s+(.+))?$"
)
_SELECT = re.compile(r"select\s+(\w+)(?:\s+if\s+(.+))?$")
_NAMED = re.compile(r"(?:menu)?config\s+(\w+)$")
_SOURCE = re.compile(r"""source\s+"?([^"]+?)"?$""")
_HELP = re.compile(r"(?:help|---help---)$")
_MOST_BLOCKS = 100  # more than any file of Linux nests
_DEFAULT = re.compile(r"(?:default|def_\w+)\s+(.+)$")


@dataclass(slots=True)
class Definition:
    """One `config` block; `conditions` include those of enclosing blocks and files."""

    name: str
    conditions: list[str]
    choice: str | None
    type: str = ""
    prompts: list[str] = field(default_factory=list)  # the condition of each prompt, or ""
    ranges: list[str] = field(default_factory=list)
    selects: list[tuple[str, str]] = field(default_factory=list)  # (option, condition)
    computed: bool = False  # the value comes from a tool or the environment
    default: str = ""  # the first default expression


@dataclass(slots=True)
class _Block:
    word: str
    conditions: list[str]


@dataclass(slots=True)
class _File:
    """The content of one file, without the conditions under which it is sourced."""

    definitions: list[Definition] = field(default_factory=list)
    sources: dict[str, list[str]] = field(default_factory=dict)


def read(source: Path, arch: Architecture) -> dict[str, list[Definition]]:
    """Return all definitions for an architecture, by the option's name."""
    files = {
        str(path.relative_to(source)): _parse(path.read_text("utf-8", "replace"), arch, str(path))
        for path in _files(source, arch)
    }
    around = _around(files)
    found: dict[str, list[Definition]] = {}
    for name, file in files.items():
        for each in file.definitions:
            each.conditions = [*around.get(name, []), *each.conditions]
            found.setdefault(each.name, []).append(each)
    return found


def _files(source: Path, arch: Architecture) -> Iterator[Path]:
    for path in sorted(source.rglob("Kconfig*")):
        parts = path.relative_to(source).parts
        other = parts[0] == "arch" and parts[1] not in {arch.kbuild, path.name}
        if path.is_file() and not other:
            yield path


def _around(files: dict[str, _File]) -> dict[str, list[str]]:
    """Return the conditions under which each file is sourced, from the top down."""
    around: dict[str, list[str]] = {"Kconfig": []}
    todo = ["Kconfig"]
    while todo:
        name = todo.pop()
        for sourced, conditions in files[name].sources.items() if name in files else ():
            if sourced not in around:  # the first `source` of a file counts
                around[sourced] = [*around[name], *conditions]
                todo.append(sourced)
    return around


def _parse(text: str, arch: Architecture, place: str) -> _File:
    file, blocks = _File(), [_Block("", [])]
    current: Definition | _Block | None = None
    for number, words in enumerate(_statements(text)):
        keyword = words.split(None, 1)[0]
        conditions = [each for block in blocks[:_MOST_BLOCKS] for each in block.conditions]
        if named := _NAMED.match(words):
            inner = blocks[-_MOST_BLOCKS:]
            choice = next((b.word for b in reversed(inner) if b.word.startswith("choice")), None)
            current = Definition(named[1], conditions, choice)
            file.definitions.append(current)
        elif keyword == "if":
            blocks.append(_Block("if", [words[2:].strip()]))
            current = None
        elif keyword in {"menu", "choice"}:
            blocks.append(current := _Block(f"{keyword} {place}:{number}", []))
        elif keyword in {"endif", "endmenu", "endchoice"}:
            del blocks[max(1, len(blocks) - 1) :]  # the first block is the file
            current = None
        elif sourced := _SOURCE.match(words):
            path = re.sub(r"\$\(?SRCARCH\)?", arch.kbuild, sourced[1])
            file.sources.setdefault(path, conditions)
        elif keyword in {"comment", "mainmenu"}:
            current = _Block(keyword, [])
        elif isinstance(current, _Block):
            _take_condition(current.conditions, words)
        elif current is not None:
            _take(current, words)
    return file


def _take(definition: Definition, words: str) -> None:
    """Add one line of an option's block to its definition."""
    if _take_condition(definition.conditions, words):
        return
    if found := _TYPE.match(words):
        definition.type = found[1]
    if found := _PROMPT.match(words):
        definition.prompts.append(found[1] or "")
    if found := _SELECT.match(words):
        definition.selects.append((found[1], found[2] or ""))
    if words.startswith("range "):
        definition.ranges.append(words.removeprefix("range "))
    if found := _DEFAULT.match(words):
        definition.computed |= "$" in found[1]
        definition.default = definition.default or found[1]


def _take_condition(conditions: list[str], words: str) -> bool:
    for start in ("depends on ", "visible if "):
        if words.startswith(start):
            conditions.append(words.removeprefix(start).strip())
            return True
    return False


def _statements(text: str) -> Iterator[str]:
    """Yield the lines without comments and help texts, with continuation lines joined."""
    deep: int | None = None  # indentation of the skipped help text; -1 before its first line
    for line in text.replace("\\\n", " ").split("\n"):
        words = line.strip()
        if not words:
            continue
        indent = len(line.expandtabs()) - len(line.expandtabs().lstrip())
        if deep is not None:
            deep = indent if deep < 0 else deep
            if indent >= deep and indent > 0:
                continue
            deep = None
        if _HELP.match(words):
            deep = -1
        elif not words.startswith("#"):
            yield " ".join(words.split())
