"""Kconfig fragments: merged, and every requested option looked up in the result."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import UserError
from labctl.lab_arch import X86_64, Architecture

_SET = re.compile(r"^(CONFIG_\w+)=(.*)$")
_UNSET = re.compile(r"^# (CONFIG_\w+) is not set$")
_DEFINED = re.compile(r"^[ \t]*(?:menu)?config[ \t]+(\w+)[ \t]*$", re.MULTILINE)
_DEPENDS = re.compile(r"^[ \t]+depends on[ \t]+(.+)$", re.MULTILINE)
_PROMPT = re.compile(
    r'^[ \t]+(?:(?:def_)?(?:bool|tristate|int|hex|string)|prompt)[ \t]+"', re.MULTILINE
)
_DIGEST_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Option:
    """One requested option and where it was requested; `value` is "n" for not set."""

    name: str
    value: str
    file: Path
    line: int


def of_arch(fragments: Iterable[Path], arch: Architecture) -> list[Path]:
    """Return the fragments that a kernel of an architecture takes.

    Where NAME.arm64.config lies beside NAME.config, an arm64 kernel takes it in its
    place; so with every architecture but x86_64, whose fragments have no such ending.
    """
    if arch is X86_64:
        return list(fragments)
    own = ((path, path.with_suffix(f".{arch.name}{path.suffix}")) for path in fragments)
    return [mine if mine.is_file() else path for path, mine in own]


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


def values(config: str) -> dict[str, str]:
    """Return the options of a .config that are on, whatever else stands in it."""
    found = (_SET.match(line.strip()) for line in config.splitlines())
    return {match[1]: match[2] for match in found if match}


def read_values(config: Path | None) -> dict[str, str] | None:
    """Return the options of a .config that are on, None if it is not there or not readable."""
    try:
        return None if config is None else values(config.read_text("utf-8", "replace"))
    except OSError:
        return None


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


def digest(options: Iterable[Option], arch: Architecture = X86_64) -> str:
    """Return a short name of what the options ask for, whatever their order.

    It ends in the architecture's name, if that is not x86_64.
    """
    text = "\n".join(sorted(f"{o.name}={o.value}" for o in options))
    name = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_DIGITS]
    return name if arch is X86_64 else f"{name}-{arch.name}"


def check(
    requested: Sequence[Option], config: str, source: Path, arch: Architecture = X86_64
) -> None:
    """Compare what was requested with the .config that came of it.

    Raises:
        UserError: names every option that Kconfig dropped or changed, and why it may have.
    """
    result = {o.name: o.value for o in parse(config, Path(".config"))}
    lost = [o for o in requested if result.get(o.name, "n") != o.value]
    if not lost:
        return
    known = _definitions(source, arch)
    lines = [
        f"  {option.file}:{option.line}: {option.name}={option.value}"
        f" became {result.get(option.name, 'n')}: {_reason(option, known)}"
        for option in lost
    ]
    count = len(lost)
    raise UserError(
        f"{count} requested kconfig option{'s' if count > 1 else ''} did not hold:\n"
        + "\n".join(lines),
        hint="add what the option depends on to the fragment, or drop the option",
    )


def _reason(option: Option, known: dict[str, list[str]]) -> str:
    name = option.name.removeprefix("CONFIG_")
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        return "no Kconfig file of this source has it" + (
            f"; did you mean CONFIG_{near[0]}?" if near else ""
        )
    blocks = known[name]
    if not any(_PROMPT.search(block) for block in blocks):
        return "it cannot be asked for: only other options turn it on or off"
    depends = " or ".join(
        dict.fromkeys(" && ".join(_DEPENDS.findall(block)) for block in blocks if block)
    )
    if option.value == "n":
        return "something selects it" + (f" (it depends on {depends})" if depends else "")
    return f"it depends on {depends}" if depends else "what stands around it is off"


def _definitions(source: Path, arch: Architecture) -> dict[str, list[str]]:
    """Return all options of a source, each with the text of its definitions."""
    found: dict[str, list[str]] = {}
    for path in _kconfig_files(source, arch):
        text = path.read_text("utf-8", "replace")
        for match in _DEFINED.finditer(text):
            body = re.match(r"(?:\n(?:[ \t].*)?)*", text[match.end() :])
            found.setdefault(match[1], []).append(body[0] if body else "")
    return found


def _kconfig_files(source: Path, arch: Architecture) -> Iterator[Path]:
    """Yield the Kconfig files that a kernel of an architecture reads."""
    for path in source.rglob("Kconfig*"):
        parts = path.relative_to(source).parts
        if path.is_file() and not (parts[0] == "arch" and parts[1] not in {arch.kbuild, path.name}):
            yield path
