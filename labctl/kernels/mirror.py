"""A folder that is kept the same as a source: only files that differ are written or removed.

A kernel has 80 000 files: paths are text, as that many `Path` objects cost seconds.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from labctl.errors import UserError
from labctl.kernels import listing, stamps
from labctl.kernels.treefiles import File

Contents = Callable[[Sequence[str]], Iterable[tuple[str, File]]]


def update(
    folder: Path, wanted: Mapping[str, str], leave: Collection[str], contents: Contents
) -> None:
    """Write changed files, remove others, skip those in `leave`.

    `wanted` has the names of the source's files, each with a text that differs if its
    content or kind differs; `contents` yields files by name. A file has the time at which
    it was written, as make compares it with objects built from earlier ones. Unchanged
    files keep their times.

    Raises what `contents` raises.
    """
    record = folder.with_name("copied.json")
    known = stamps.read(record)
    if folder.is_dir():
        for name in {*known, *listing.walk(folder)} - wanted.keys() - set(leave):
            _remove(folder / name)
    folder.mkdir(parents=True, exist_ok=True)
    copied: stamps.Stamped = {}
    changed = []
    for name in wanted.keys() - set(leave):
        entry = known.get(name)
        if entry is not None and entry == (_stamp(f"{folder}/{name}"), wanted[name]):
            copied[name] = entry
        else:
            changed.append(name)
    made: set[str] = set()
    for name, file in contents(sorted(changed)):
        parent = name.rpartition("/")[0]
        if parent not in made:
            (folder / parent).mkdir(parents=True, exist_ok=True)
            made.add(parent)
        target = f"{folder}/{name}"
        _write(target, file)
        copied[name] = (stamps.of(os.lstat(target)), wanted[name])
    if copied != known:
        stamps.write(record, copied)


def check_parents(name: str, files: Collection[str], where: Path) -> None:
    """Raise a UserError if a parent folder of a name is a file or a link of the source."""
    for parent in map(str, Path(name).parents):
        if parent in files:
            hint = "use the path of the file without links"
            what = f"parent of {name} is not a folder: {parent} is a link or a file"
            raise UserError(what, where=str(where), hint=hint)


def _stamp(path: str) -> stamps.Stamp | None:
    try:
        return stamps.of(os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write(target: str, file: File) -> None:
    """Write a file, unless it is the same already."""
    if os.path.lexists(target):
        path = Path(target)
        if _read(path) == file:
            return
        _remove(path)
    if file.link:
        Path(target).symlink_to(os.fsdecode(file.data))
        return
    mode = 0o755 if file.executable else 0o644
    # Whatever the umask is, the mode is that of the source.
    with open(target, "xb") as out:  # noqa: PTH123 - paths are text here
        out.write(file.data)
        os.fchmod(out.fileno(), mode)


def _read(path: Path) -> File | None:
    if path.is_symlink():
        return File(os.fsencode(path.readlink()), link=True)
    if not path.is_file():
        return None
    return File(path.read_bytes(), bool(path.stat().st_mode & 0o100))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with contextlib.suppress(NotADirectoryError):  # a file is where its folder was
            path.unlink(missing_ok=True)
