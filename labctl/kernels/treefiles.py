"""Read and write files of a source tree as git does: plain, executable, or symbolic link.

Links are never followed: their targets may be outside the tree.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import HostError, LabError, UserError

# Messages of tools about a folder that cannot be written.
FULL = re.compile(r"No space left on device|Disk quota exceeded|Read-only file system")

_PROBE_BYTES = 65536


@dataclass(frozen=True, slots=True)
class File:
    """A file's content, and whether it is executable; the content of a link is its target."""

    data: bytes
    executable: bool = False
    link: bool = False


def read(root: Path, name: str) -> File | None:
    """Return a file of a tree, None if it does not exist.

    Raises:
        UserError: the name leads through a symbolic link or a file.
    """
    path = _inside(root, name)
    if path.is_symlink():
        return File(os.fsencode(path.readlink()), link=True)
    if not path.is_file():
        return None
    return File(path.read_bytes(), bool(path.stat().st_mode & 0o100))


def write(root: Path, name: str, file: File | None) -> None:
    """Replace a file of a tree atomically if it differs; None removes it.

    Raises:
        UserError: the name leads through a symbolic link or a file, or is a folder.
    """
    try:
        path = _inside(root, name)
    except UserError:
        if file is None:
            return
        raise
    if read(root, name) == file:
        return
    if path.is_dir() and not path.is_symlink():
        raise UserError(f"patch writes a file {name}, but it is a folder", where=str(path))
    if file is None:
        path.unlink()
        with contextlib.suppress(OSError):  # like git and patch, remove empty folders
            for parent in path.parents:
                if parent == root:
                    break
                parent.rmdir()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.unlink(missing_ok=True)  # may be a link left by a killed labctl
    if file.link:
        temporary.symlink_to(os.fsdecode(file.data))
    else:
        temporary.write_bytes(file.data)
        temporary.chmod(0o755 if file.executable else 0o644)
    temporary.replace(path)


def _inside(root: Path, name: str) -> Path:
    path = root / name
    for parent in path.parents:
        if parent == root:
            break
        above = parent.relative_to(root)
        if parent.is_symlink():
            what = f"parent of {name} is not a folder: {above} is a symbolic link"
            raise UserError(what, where=str(root), hint="use the path of the file without links")
        if parent.exists() and not parent.is_dir():
            what = f"parent of {name} is not a folder: {above} is a file"
            raise UserError(what, where=str(root))
    return path


@contextlib.contextmanager
def scratch(purpose: str) -> Iterator[Path]:
    """Yield a temporary folder.

    Raises:
        HostError: it cannot be created or written, as on a full disk.
    """
    folder = None
    try:
        with tempfile.TemporaryDirectory(prefix=f"labctl-{purpose}-") as folder:
            try:
                yield Path(folder)
            except LabError:
                probe(Path(folder))
                raise
    except OSError as error:
        raise full(folder or "TMPDIR", error.strerror or str(error)) from error


def probe(folder: Path) -> None:
    """Raise OSError if a folder is full: git does not always report this reason."""
    path = folder / ".labctl-probe"
    path.write_bytes(bytes(_PROBE_BYTES))
    path.unlink()


def full(folder: str | Path, why: str) -> HostError:
    """Return the error for a temporary folder that cannot be written."""
    hint = "free space there, or set TMPDIR to another folder"
    return HostError(f"temporary folder cannot be written: {why}", where=str(folder), hint=hint)
