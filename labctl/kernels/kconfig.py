"""Merge kconfig fragments, and check every requested option in the final .config."""

from __future__ import annotations

import hashlib
import itertools
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from labctl import files
from labctl.arch import X86_64, Architecture
from labctl.errors import UserError
from labctl.kernels import kconfig_source
from labctl.kernels.kconfig_expression import number
from labctl.kernels.kconfig_reason import Reasons

_SET = re.compile(r"^(CONFIG_\w+)=(.*)$")
_UNSET = re.compile(r"^#\s*(CONFIG_\w+) is not set(?:\s+#.*)?$")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_VALUE = re.compile(rf"[ymn]|-?[0-9]+|(?:0[xX])?[0-9a-fA-F]+|{_STRING.pattern}")
_COMMENTED = re.compile(rf"({_VALUE.pattern})\s+#.*")
_ESCAPED = re.compile(r"\\(.)")
# The first line of a .config written by Kconfig, which also has computed options.
_GENERATED = "# Automatically generated file; DO NOT EDIT."
_LOST = "add the option's dependencies to a fragment, or remove or override the option"
# Options that a fragment does not name are off, but a defconfig omits those on by default.
_DEFCONFIG = "use the .config that `make NAME_defconfig` writes instead of a defconfig"
_DIGEST_DIGITS = 8
_MOST_TOLD = 40
_MOST_BYTES = 2**24  # a whole .config has 300 kB


@dataclass(frozen=True, slots=True)
class Option:
    """A requested option with its position; `value` is "n" for not set.

    `generated` is true for an option from a .config that Kconfig wrote. `rank` is its
    position among all requested options: Kconfig sets the last one of a choice. `earlier`
    is the option that this one overrides.
    """

    name: str
    value: str
    file: Path
    line: int
    generated: bool = field(default=False, compare=False)
    rank: int = field(default=0, compare=False)
    earlier: Option | None = field(default=None, compare=False)


def of_arch(fragments: Iterable[Path], arch: Architecture) -> list[Path]:
    """Return the fragments to use for an architecture.

    If NAME.arm64.config exists in the folder of NAME.config, it replaces it for arm64
    kernels; likewise for every architecture except x86_64.
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
    options, generated = [], False
    for count, line in enumerate(text.split("\n"), 1):
        words = line.strip()
        generated = generated or words == _GENERATED
        found = _SET.match(words) or _UNSET.match(words)
        if found:
            value = found[2].strip() if found.re is _SET else "n"
            if commented := _COMMENTED.fullmatch(value):  # Kconfig accepts some comments
                value = commented[1]
            _check_value(found[1], value, f"{file}:{count}")
            options.append(Option(found[1], value, file, count, generated))
        elif words and not words.startswith("#"):
            raise UserError(
                f"invalid kconfig line {words!r}",
                where=f"{file}:{count}",
                hint="expected CONFIG_NAME=y, CONFIG_NAME=n or # CONFIG_NAME is not set",
            )
    return options


def _check_value(name: str, value: str, where: str) -> None:
    if _VALUE.fullmatch(value):
        return
    raise UserError(
        f"invalid value {value!r} of {name}",
        where=where,
        hint='expected y, m, n, a number, or "text" in double quotes',
    )


def values(config: str) -> dict[str, str]:
    """Return the options of a .config that are set; other lines are ignored."""
    found = (_SET.match(line.strip()) for line in config.split("\n"))
    return {match[1]: match[2] for match in found if match}


def without(config: str, options: Iterable[Option]) -> str:
    """Return a .config without the lines of some options."""
    names = {option.name for option in options}
    lines = config.splitlines(keepends=True)
    found = ((line, _SET.match(line.strip()) or _UNSET.match(line.strip())) for line in lines)
    return "".join(line for line, match in found if match is None or match[1] not in names)


def read_values(config: Path | None) -> dict[str, str] | None:
    """Return the options of a .config that are set, None if it is missing or unreadable."""
    try:
        return None if config is None else values(config.read_text("utf-8", "replace"))
    except OSError:
        return None


def merge(fragments: Iterable[Path]) -> list[Option]:
    """Return the options of several fragments; the last value of an option wins.

    A fragment may be a whole .config, compressed by gzip or not.

    Raises:
        UserError: a fragment cannot be read or parsed.
    """
    merged: dict[str, Option] = {}
    ranks = itertools.count()
    for path in fragments:
        try:
            text = _text(path)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(
                f"kconfig fragment cannot be read: {getattr(error, 'strerror', None) or error}",
                where=str(path),
            ) from None
        for option in parse(text, path):
            earlier = merged.get(option.name)
            merged[option.name] = replace(option, rank=next(ranks), earlier=earlier)
    return list(merged.values())


def _text(path: Path) -> str:
    """Return the text of a fragment or .config, which may be compressed as /proc/config.gz is."""
    return files.read_limited(path, _MOST_BYTES, unpack=True).decode("utf-8-sig", "surrogateescape")


def overridden(options: Iterable[Option]) -> str:
    """Return a line for the build log for each value that a later fragment overrides."""
    lines = []
    for option in options:
        before = option.earlier
        if before is not None and before.value != option.value:
            lines.append(
                f"labctl: {before.file}:{before.line}: {before.name}={before.value} is overridden"
                f" by {option.file}:{option.line}: {option.name}={option.value}\n"
            )
    return "".join(lines)


def render(options: Iterable[Option]) -> str:
    """Return options as a file for KCONFIG_ALLCONFIG, in the order of the fragments."""
    return "".join(
        f"# {o.name} is not set\n" if o.value == "n" else f"{o.name}={o.value}\n"
        for o in sorted(options, key=lambda option: option.rank)
    )


def digest(options: Iterable[Option], arch: Architecture = X86_64) -> str:
    """Return a short hash of the options, independent of their order.

    It ends in the architecture's name, unless that is x86_64.
    """
    text = "\n".join(sorted(f"{o.name}={o.value}" for o in options))
    name = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGEST_DIGITS]
    return name if arch is X86_64 else f"{name}-{arch.name}"


def check(
    requested: Sequence[Option], config: str, source: Path, arch: Architecture = X86_64
) -> None:
    """Compare the requested options with the final .config.

    Raises:
        UserError: Kconfig dropped or changed options; names each with the likely reason.
    """
    result = values(config)
    lost = [o for o in requested if not holds(o.value, result.get(o.name))]
    if not lost:
        return
    bare = {name.removeprefix("CONFIG_"): value for name, value in result.items()}
    reasons = Reasons(kconfig_source.read(source, arch), bare, requested)
    lost = [option for option in lost if not reasons.is_expected(option)]
    lines = [
        f"\n  {option.file}:{option.line}: {option.name}={option.value}"
        f" became {result.get(option.name, 'n')}: {reasons.of(option)}"
        for option in lost[:_MOST_TOLD]
    ]
    count = len(lost)
    if count:
        is_defconfig = any("defconfig" in option.file.name for option in lost)
        more = f"\n  and {count - _MOST_TOLD} more" if count > _MOST_TOLD else ""
        raise UserError(
            f"{count} requested kconfig option{'s' if count > 1 else ''} missing from the final"
            f" .config:{''.join(lines)}{more}",
            hint=_DEFCONFIG if is_defconfig else _LOST,
        )


def holds(wanted: str, got: str | None) -> bool:
    """Return whether two values mean the same; None is an option that is not set."""
    if got is None or wanted == got:
        return got is not None or wanted in {"n", '""'}
    if _STRING.fullmatch(wanted) and _STRING.fullmatch(got):
        return _ESCAPED.sub(r"\1", wanted) == _ESCAPED.sub(r"\1", got)
    numbers = number(wanted), number(got)
    if None not in numbers and numbers[0] == numbers[1]:
        return True
    return got.lower() == f"0x{wanted.lower()}"  # the 0x of a hex is optional
