"""Read a folder of patches: with a quilt `series` file, or as `git format-patch` writes it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from labctl import files
from labctl.errors import UserError
from labctl.series import diff, listing, mail
from labctl.series.listing import Entry, SeriesFault
from labctl.series.patch import Patch, Series, unix_lines

LISTING = "series"
_ENDINGS = (".patch", ".diff", ".eml", ".mbox")
_NUMBERED = re.compile(
    r"(?:v(?P<version>\d+)-)?(?P<number>\d+)(?:-.*)?(?:\.patch|\.diff|\.eml|\.mbox)"
)
_HINT = (
    "a series is a folder of patches as `git format-patch` writes them, or with a `series` file"
    " that lists them in order"
)
MOST_BYTES = 64 << 20
_COMPRESSED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"(\xb5/\xfd": "unzstd",
}


@dataclass(frozen=True, slots=True)
class _Found:
    """A patch's file with its options; `where` is the line that names it.

    `strip` is None if the patch itself shows it.
    """

    path: Path
    name: str
    where: str
    strip: int | None = None
    reverse: bool = False


def read_folder(folder: Path) -> Series:
    """Return the series of a folder.

    Raises:
        UserError: the folder or a patch cannot be read, there is no patch, a number is
            missing, or the `series` file has unsupported options.
    """
    patches = [_patch(found) for found in _files(folder)]
    return Series(str(folder), tuple(patches))


def check_folder(folder: Path) -> None:
    """Raise the errors of `read_folder` that do not depend on the content of patches."""
    for found in _files(folder):
        if not found.path.is_file():
            _readable(found)


def _files(folder: Path) -> list[_Found]:
    path = folder / LISTING
    if not path.is_symlink() and not path.exists() and folder.is_dir():
        return _numbered(folder)
    try:
        entries = listing.entries(files.read_limited(path, MOST_BYTES))
    except OSError as error:
        what = f"series file cannot be read: {error.strerror}"
        raise UserError(what, where=str(path), hint=_HINT) from error
    except SeriesFault as error:
        raise UserError(error.what, where=f"{path}:{error.line}", hint=error.hint) from error
    if not entries:
        hint = "list the patches in it in order, one file name per line"
        raise UserError("series file names no patch", where=str(path), hint=hint)
    return [_listed(path, entry) for entry in entries]


def _listed(path: Path, entry: Entry) -> _Found:
    where = f"{path}:{entry.line}"
    return _Found(path.parent / entry.name, entry.name, where, entry.strip, entry.reverse)


def _numbered(folder: Path) -> list[_Found]:
    """Return the patches of the newest version by their numbers, without a cover letter."""
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"folder cannot be read: {error.strerror}", where=str(folder)) from error
    names = [name for name in names if name.endswith(_ENDINGS)]
    if not names:
        raise UserError("folder has no patches", where=str(folder), hint=_HINT)
    matches = {name: _NUMBERED.fullmatch(name) for name in names}
    others = [name for name, match in matches.items() if match is None]
    if others:
        what = f"order of the patches is unknown: {others[0]} has no number"
        raise UserError(what, where=str(folder), hint="list them in a `series` file in order")
    versions: dict[int, dict[int, list[str]]] = {}
    for name, match in matches.items():
        if match is not None:
            version = versions.setdefault(int(match["version"] or 1), {})
            version.setdefault(int(match["number"]), []).append(name)
    numbers = versions[max(versions)]
    for number, same in numbers.items():
        if len(same) > 1:
            what = f"several patches have the number {number}: {', '.join(same)}"
            hint = "remove the patches of the older version, or write a `series` file"
            raise UserError(what, where=str(folder), hint=hint)
    _check_gap(folder, sorted(numbers), numbers)
    chosen = [_Found(folder / same[0], same[0], str(folder)) for _, same in sorted(numbers.items())]
    without = [one for one in chosen if not _is_cover(one)]
    if not without:
        hint = "run `git format-patch` without -0, or save the patches too"
        raise UserError("folder has only a cover letter", where=str(chosen[0].path), hint=hint)
    return without


def _check_gap(folder: Path, order: Sequence[int], numbers: dict[int, list[str]]) -> None:
    for before, after in pairwise(order):
        if after != before + 1:
            what = f"patch {before + 1:04} is missing between {numbers[before][0]} and "
            what += numbers[after][0]
            hint = "add the patch; or, to leave it out, list the others in a `series` file"
            raise UserError(what, where=str(folder), hint=hint)


def _is_cover(found: _Found) -> bool:
    number = _NUMBERED.fullmatch(found.name)
    if number is None or int(number["number"]) != 0:
        return False
    return not mail.mails(_readable(found))[0].has_diff


def _readable(found: _Found) -> bytes:
    """Return a patch's content; raise a UserError if it cannot be read."""
    name = found.name
    try:
        if not found.path.is_file():  # reading a FIFO would not end
            found.path.stat()
            raise UserError(f"patch {name} is not a regular file", where=found.where)
        return files.read_limited(found.path, MOST_BYTES)
    except OSError as error:
        what = f"patch {name} cannot be read: {error.strerror}"
        hint = "add the patch, or remove its line"
        raise UserError(what, where=found.where, hint=hint) from error


def _patch(found: _Found) -> Patch:
    read = _readable(found)
    place = str(found.path)
    if not read:
        hint = f"remove the patch and its line, {found.where}"
        raise UserError("patch is empty", where=place, hint=hint)
    for magic, program in _COMPRESSED.items():
        if read.startswith(magic):
            hint = f"decompress it: `{program} {found.name}`"
            raise UserError("patch is compressed", where=place, hint=hint)
    content = unix_lines(mail.decoded(read))
    strip = found.strip
    if strip is None:
        shows = diff.prefixes(content.decode("utf-8", "surrogateescape"))
        strip = 1 if shows is None else shows
    is_same = content.count(b"\n") == read.count(b"\n")
    return Patch(
        name=found.name,
        place=place,
        content=content,
        strip=strip,
        reverse=found.reverse,
        first_line=1 if is_same else None,
    )
