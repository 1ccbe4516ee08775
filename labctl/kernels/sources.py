"""Kernel sources: a Debian package, or a folder of the user.

A source has a hash of its content, and can fill a work tree with it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from labctl import files, proc
from labctl.errors import CommandError, HostError, UserError
from labctl.kernels.hashed import Hashed
from labctl.kernels.treefiles import File
from labctl.lab.state import StateFolder

DEBIAN_FOLDER = Path("/usr/src")
_UNPACK_SECONDS = 1200.0


class Source(Protocol):
    """A kernel source."""

    @property
    def key(self) -> str:
        """Name of the work tree; sources with the same key share a tree and build in it."""

    def hash(self) -> str:
        """Return the hex hash of the source's content."""

    def fill(self, folder: Path, leave: Collection[str]) -> str:
        """Write the source to `folder`, and return the hash of its content.

        Unchanged files keep their times. Files named in `leave` are not touched.
        """

    def original(self, name: str) -> File | None:
        """Return a file of the source, None if it does not exist.

        Raises:
            KeyError: files can be read from the work tree only.
        """


def open_source(text: str, state: Path) -> Source:
    """Return the source of `debian:NAME` or `dir:PATH`; `state` is the state folder.

    Raises:
        HostError: the package is not installed.
        UserError: the folder is not a kernel source, or the kind is unknown.
    """
    from labctl.kernels.folder import Folder  # avoids an import cycle

    kind, _, place = text.partition(":")
    if kind == "debian":
        archive = DEBIAN_FOLDER / f"{place}.tar.xz"
        if not archive.is_file():
            raise HostError(
                f"source package {place} is not installed: no {archive}",
                hint=f"`apt-get install {place}`, or `make setup` for the packages in lab.yaml",
            )
        return Archive(archive, state)
    if kind == "dir":
        folder = Path(place)
        if not (folder / "Kbuild").is_file() or not (folder / "Makefile").is_file():
            raise UserError(f"{folder} is not a kernel source: expected Kbuild and Makefile in it")
        return Folder(folder, state)
    raise UserError(f"cannot build from source {text}", hint="expected debian:NAME or dir:PATH")


@dataclass(frozen=True, slots=True)
class Archive:
    """A tar file with one folder in it, as Debian packages kernel sources."""

    archive: Path
    state: Path

    @property
    def key(self) -> str:
        """The first digits of the content's hash."""
        return self.hash()[:16]

    def hash(self) -> str:
        """Return the archive's hash, cached by its path, size and times."""
        return Hashed.remembered(self.archive, StateFolder(self.state).source_hashes).sha256

    def fill(self, folder: Path, leave: Collection[str]) -> str:
        """Unpack the archive, unless `folder` exists: then it is complete."""
        del leave  # an existing folder is never written to
        if folder.is_dir():
            return self.hash()
        folder.parent.mkdir(parents=True, exist_ok=True)
        began = self.hash()
        # Left by a killed labctl; the caller's lock excludes running ones.
        for remains in folder.parent.glob("unpacking-*"):
            files.remove(remains)
        scratch = Path(tempfile.mkdtemp(prefix="unpacking-", dir=folder.parent))
        try:
            proc.run(
                ["tar", "-I", "xz -T0", "-xf", self.archive, "-C", scratch, "--no-same-owner"],
                timeout_seconds=_UNPACK_SECONDS,
            )
            inside = list(scratch.iterdir())
            if len(inside) != 1 or not inside[0].is_dir():
                raise HostError(f"{self.archive}: expected exactly one folder in the archive")
            if self.hash() != began:
                raise HostError(
                    "source changed while it was unpacked",
                    where=str(self.archive),
                    hint="run the command again",
                )
            inside[0].rename(folder)
            return began
        except CommandError as error:
            raise HostError(
                f"source cannot be unpacked: {error.output}",
                where=str(self.archive),
                hint=f"check the free space at {folder.parent}, or reinstall the package",
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def original(self, name: str) -> File | None:
        """Raise KeyError: reading one file takes as long as unpacking the archive."""
        raise KeyError(name)
