"""Which files kbuild leaves out in a configuration, as far as the Makefiles say so plainly."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# A list with the name of an option, such as obj-$(CONFIG_SMP), or with anything else.
_LIST = re.compile(r"\s*[\w-]+-(?:\$[({](CONFIG_\w+)[)}]|\S+?)\s*[:+?]?=(.*)")
_CONDITION = re.compile(r"\s*(else\b|endif\b)?\s*(?:(ifdef|ifndef|ifeq|ifneq)\b\s*([^#]*))?")
_SIDES = re.compile(r"\((.*),(.*)\)|\"(.*)\"\s+\"(.*)\"|'(.*)'\s+'(.*)'")
_OPTION = re.compile(r"\$[({](CONFIG_\w+)[)}]")
_Values = Mapping[str, str]


@dataclass(slots=True)
class _Block:
    """A conditional part of a Makefile.

    `holds` is true in the branch that make reads, false in others, and None where it depends
    on more than options. `taken` is the same of all branches so far. `why` names the options.
    """

    holds: bool | None
    taken: bool | None
    why: str

    def branch(self, holds: bool | None, why: str) -> None:
        """Begin the next branch, whose own condition is `holds`."""
        if self.taken:
            self.holds = False
        elif self.taken is None or holds is None:
            self.holds = self.taken = None
        else:
            self.holds = self.taken = holds
            self.why = why


def left_out(source: Path, values: _Values, name: str) -> str | None:
    """Return why a C file is not compiled, such as "CONFIG_SMP is off", or None.

    `values` are the options of the .config that are set. None also if no Makefile names the
    file or its folders, if one names it without an option, or by several options of which
    one is on. Conditions that are not about options alone count as if they held.
    """
    path = PurePosixPath(name)
    wanted = path.with_suffix(".o").name
    for folder in path.parents:
        if why := _left_out(source / folder, values, wanted):
            return why
        wanted = f"{folder.name}/"
    return None


def _left_out(folder: Path, values: _Values, wanted: str) -> str | None:
    first = None
    for why, members in _lists(folder, values):
        if wanted in members:
            if why is None:
                return None
            first = first or why
    return first


def _lists(folder: Path, values: _Values) -> Iterator[tuple[str | None, list[str]]]:
    """Yield the lists of objects and folders in a folder's Makefile, and why each is unused."""
    files = [file for file in (folder / "Kbuild", folder / "Makefile") if file.is_file()]
    if not files:
        return
    blocks: list[_Block] = []
    # kbuild prefers a Kbuild file.
    for line in files[0].read_text("utf-8", "replace").replace("\\\n", " ").splitlines():
        if found := _LIST.match(line):
            option = found[1]
            off = option is not None and values.get(option) not in ("y", "m")
            unused = [block.why for block in blocks if block.holds is False]
            unused += [_state([option], values)] if off else []
            yield next(iter(unused), None), found[2].split("#")[0].split()
        else:
            _condition(line, values, blocks)


def _condition(line: str, values: _Values, blocks: list[_Block]) -> None:
    """Open, continue or end a block, if the line of a Makefile does that."""
    found = _CONDITION.match(line)
    if found is None or not any(found.groups()):
        return
    if found[1] == "endif":
        del blocks[-1:]
        return
    holds, why = _evaluate(found[2], found[3].strip(), values) if found[2] else (True, "")
    if not found[1]:
        blocks.append(_Block(holds, holds, why))
    elif blocks:
        blocks[-1].branch(holds, why)


def _evaluate(kind: str, text: str, values: _Values) -> tuple[bool | None, str]:
    """Return whether a condition holds, None if it is not about options alone, and the options."""
    if kind in ("ifdef", "ifndef"):
        options = [text] if re.fullmatch(r"CONFIG_\w+", text) else []
        holds = bool(values.get(text)) == (kind == "ifdef") if options else None
    else:
        options = _OPTION.findall(text)
        parts = _SIDES.fullmatch(_OPTION.sub(lambda found: values.get(found[1], ""), text))
        sides = [side.strip() for side in parts.groups() if side is not None] if parts else ["$"]
        plain = not any("$" in side for side in sides)
        holds = (sides[0] == sides[1]) == (kind == "ifeq") if plain else None
    return holds, _state(options, values)


def _state(options: list[str], values: _Values) -> str:
    names = {"y": "on", "": "off"}
    each = ((name, values.get(name, "")) for name in dict.fromkeys(options))
    return ", ".join(f"{name} is {names.get(value, value)}" for name, value in each)
