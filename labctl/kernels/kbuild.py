"""Which files kbuild leaves out in a configuration, as far as the Makefiles say so plainly."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

# A list with the name of an option, such as obj-$(CONFIG_SMP), or with anything else.
_LIST = re.compile(r"\s*[\w-]+-(?:\$[({](CONFIG_\w+)[)}]|\S+?)\s*[:+?]?=(.*)")


def switched_off(source: Path, values: Mapping[str, str], name: str) -> str | None:
    """Return the option that is off and without which a C file is not compiled, or None.

    `values` are the options of the .config that are set. None also if no Makefile names the
    file or its folders, if one names it without an option, or by several options of which
    one is on. Conditional parts of a Makefile count as if they were always there.
    """
    path = PurePosixPath(name)
    wanted = path.with_suffix(".o").name
    for folder in path.parents:
        if off := _switched_off(source / folder, values, wanted):
            return off
        wanted = f"{folder.name}/"
    return None


def _switched_off(folder: Path, values: Mapping[str, str], wanted: str) -> str | None:
    off = None
    for option, members in _lists(folder):
        if wanted in members:
            if option is None or values.get(option) in ("y", "m"):
                return None
            off = off or option
    return off


def _lists(folder: Path) -> Iterator[tuple[str | None, list[str]]]:
    """Yield the lists of objects and folders in a folder's Makefile, each with its option."""
    files = [file for file in (folder / "Kbuild", folder / "Makefile") if file.is_file()]
    if files:  # kbuild prefers a Kbuild file
        text = files[0].read_text("utf-8", "replace").replace("\\\n", " ")
        for line in text.splitlines():
            if found := _LIST.match(line):
                yield found[1], found[2].split("#")[0].split()
