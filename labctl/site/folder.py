"""The folder of a site: its manifest, its lock, and its files, which alone it ever removes."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from labctl import files, flock
from labctl.errors import HostError, UserError
from labctl.site.types import Manifest
from labctl.units import quoted

MANIFEST = ".labctl-site.json"
_WAIT_SECONDS = 60.0
_LEFT = re.compile(r"(.+)\.[0-9a-f]{32}\.tmp")  # by a labctl that was killed while writing
_HINT = "use a new or empty folder; only files that begin with a dot may be added to it"


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Manifest]:
    """Lock a site for the block, creating its folder if necessary; yield its manifest.

    Raises:
        UserError: the folder has files that `labctl site` did not write.
        HostError: it cannot be created, or another process keeps it locked for a minute.
    """
    check(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _failed(folder, error) from error
    busy = HostError("another labctl writes this site", where=str(folder))
    with flock.held(descriptor, timeout_seconds=_WAIT_SECONDS, busy=lambda: busy):
        manifest = _read(folder)
        _refuse_foreign(folder, manifest)
        yield manifest or Manifest()


def check(folder: Path) -> None:
    """Raise UserError if a folder cannot be a site: it has files that labctl did not write."""
    if folder.exists() and not folder.is_dir():
        raise UserError("not a folder", where=str(folder), hint=_HINT)
    _refuse_foreign(folder, _read(folder))


def has(folder: Path, name: str) -> bool:
    """Return whether a file of the site exists."""
    return (folder / name).is_file()


def write(folder: Path, name: str, text: str) -> None:
    """Write one file as a whole.

    Raises:
        HostError: the disk is full or fails; the file is unchanged.
    """
    path = folder / name
    try:
        if not path.is_file() or path.read_text("utf-8") != text:
            files.replace(path, text)
    except OSError as error:
        raise _failed(path, error) from error


def note(folder: Path, manifest: Manifest) -> None:
    """Write the manifest; raises HostError as `write` does."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1).decode()
    write(folder, MANIFEST, text + "\n")


def remove(folder: Path, names: Collection[str]) -> None:
    """Remove files of the site, and those left by a labctl that was killed.

    Raises:
        HostError: a file cannot be removed.
    """
    for name in names:
        files.remove(folder / name)
    for name in _found(folder):
        if _LEFT.fullmatch(name):
            files.remove(folder / name)


def _read(folder: Path) -> Manifest | None:
    path = folder / MANIFEST
    if path.is_symlink():
        return None
    try:
        with files.reading(path) as file:
            return msgspec.json.decode(file.read(), type=Manifest)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(f"cannot read: {error.strerror or error}", where=str(path)) from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        hint = "remove the folder; `labctl site` writes it again"
        raise UserError(f"invalid manifest: {error}", where=str(path), hint=hint) from error


def _refuse_foreign(folder: Path, manifest: Manifest | None) -> None:
    known = set(manifest.files) if manifest else set()
    foreign = [
        name
        for name in _found(folder)
        if name not in known and not ((left := _LEFT.fullmatch(name)) and left[1] in known)
    ]
    if foreign:
        what = f"contains {quoted(foreign)}, which `labctl site` did not write"
        raise UserError(what, where=str(folder), hint=_HINT)


def _found(folder: Path) -> list[str]:
    """Return the paths of all files in a folder; at its top, not those that begin with a dot."""
    found = []
    for path, folders, names in os.walk(folder):
        here = Path(path).relative_to(folder)
        is_top = here == Path()
        if is_top:
            folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if (Path(path) / name).is_symlink()]
        found += [
            str(here / name) for name in [*names, *links] if not (is_top and name.startswith("."))
        ]
    return sorted(found)


def _failed(path: Path, error: OSError) -> HostError:
    return HostError(f"cannot write the site: {error.strerror or error}", where=str(path))
