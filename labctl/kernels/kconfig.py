"""Kconfig fragments: merged, and every requested option looked up in the result."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import UserError

_SET = re.compile(r"^(CONFIG_\w+)=(.*)$")
_UNSET = re.compile(r"^# (CONFIG_\w+) is not set$")


@dataclass(frozen=True, slots=True)
class Option:
    """One requested option and where it was requested; `value` is "n" for not set."""

    name: str
    value: str
    file: Path
    line: int


def parse(text: str, file: Path) -> list[Option]:
    """Return the options of a fragment or a .config.

    Raises:
        UserError: a line is neither an option, a comment nor empty.
    """
    options = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.strip()
        found = _SET.match(words) or _UNSET.match(words)
        if found:
            value = found[2] if found.re is _SET else "n"
            options.append(Option(found[1], value, file, number))
        elif words and not words.startswith("#"):
            raise UserError(
                f"{words!r} is not a kconfig line",
                where=f"{file}:{number}",
                hint="CONFIG_NAME=y, CONFIG_NAME=n or # CONFIG_NAME is not set",
            )
    return options


def merge(fragments: Iterable[Path]) -> list[Option]:
    """Return the options of several fragments; of one named twice, the last wins.

    Raises:
        UserError: a fragment cannot be read or parsed.
    """
    merged: dict[str, Option] = {}
    for path in fragments:
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"the kconfig fragment cannot be read: {error}", where=str(path)
            ) from None
        for option in parse(text, path):
            merged[option.name] = option
    return list(merged.values())


def render(options: Sequence[Option]) -> str:
    """Return options as the text that KCONFIG_ALLCONFIG takes."""
    return "".join(
        f"# {o.name} is not set\n" if o.value == "n" else f"{o.name}={o.value}\n" for o in options
    )


def check(requested: Sequence[Option], config: str, source: Path) -> None:
    """Compare what was requested with the .config that came of it.

    Raises:
        UserError: names every option that Kconfig dropped or changed, and why it may have.
    """
    result = {o.name: o.value for o in parse(config, Path(".config"))}
    lost = [o for o in requested if result.get(o.name, "n") != o.value]
    if not lost:
        return
    known = _known(source, {o.name.removeprefix("CONFIG_") for o in lost})
    lines = []
    for option in lost:
        name = option.name.removeprefix("CONFIG_")
        became = result.get(option.name, "n")
        why = (
            "its dependencies are not met, or something selects it"
            if name in known
            else "no Kconfig file of this source has it"
        )
        lines.append(
            f"  {option.file}:{option.line}: {option.name}={option.value} became {became}: {why}"
        )
    count = len(lost)
    raise UserError(
        f"{count} requested kconfig option{'s' if count > 1 else ''} did not hold:\n"
        + "\n".join(lines),
        hint="add what the option depends on to the fragment, or drop the option",
    )


def _known(source: Path, names: set[str]) -> set[str]:
    """Return those names that some Kconfig file of the source defines."""
    pattern = re.compile(rf"^\s*(?:menu)?config ({'|'.join(map(re.escape, names))})\s*$", re.M)
    found: set[str] = set()
    for path in source.rglob("Kconfig*"):
        if path.is_file():
            found |= set(pattern.findall(path.read_text("utf-8", "replace")))
    return found
