"""Kernel sources: a git revision, a folder of the user, a tarball or a Debian package.

A source has a hash of its content, and can fill a work tree with it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

from labctl.errors import HostError, UserError
from labctl.host.repository import Revision, is_git_dir
from labctl.kernels.archive import Archive
from labctl.kernels.folder import Folder
from labctl.kernels.revision import Committed
from labctl.kernels.treefiles import File
from labctl.lab.source_kinds import forms
from labctl.lab.sources import split_revision

DEBIAN_FOLDER = Path("/usr/src")
# Packages that the host's own sources do not have; `make backports` unpacks them here.
UNPACKED_FOLDER = Path(sys.prefix) / "src"


class Source(Protocol):
    """A kernel source."""

    @property
    def has_originals(self) -> bool:
        """Whether `original` returns files, so that none needs to be written to read it."""

    @property
    def commit(self) -> Revision | None:
        """The revision of a source from git."""

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

    def mentions(self, wanted: str, filled: Callable[[], Path]) -> bool:
        """Return whether a C, assembler or Rust file matches an extended regular expression.

        `filled` returns a folder that the source was written to.
        """


def open_source(text: str, state: Path) -> Source:
    """Return a kernel's source as `Kernel.source` has it; `state` is the state folder.

    Raises:
        HostError: the package is not installed.
        UserError: the folder, revision or file is not a kernel source, or the kind is unknown.
    """
    kind, _, place = text.partition(":")
    if kind == "git":
        folder, revision = split_revision(place, Path.cwd())
        return Committed.open(Path(folder), revision)
    if kind == "dir":
        return _folder(Path(place), state)
    if kind == "tar":
        archive = Path(place)
        if not archive.is_file():
            raise UserError("tarball not found", where=place)
        return Archive(archive, state, is_package=False)
    if kind == "debian":
        return Archive(_package(place), state)
    raise UserError(f"cannot build from source {text}", hint=f"expected {forms(built=True)}")


def _package(name: str) -> Path:
    """Return the tarball of a source package: the installed one first."""
    for folder in (DEBIAN_FOLDER, UNPACKED_FOLDER):
        if (archive := folder / f"{name}.tar.xz").is_file():
            return archive
    raise HostError(
        f"source package {name} is not installed: no {DEBIAN_FOLDER / name}.tar.xz",
        hint=f"`apt-get install {name}`, or `make setup` for the packages in lab.yaml"
        " and `make backports` for linux-source-7.3",
    )


def _folder(folder: Path, state: Path) -> Folder:
    if not (folder / "Kbuild").is_file() or not (folder / "Makefile").is_file():
        raise UserError(
            f"{folder} is not a kernel source: expected Kbuild and Makefile in it",
            hint=f"use `git:{folder}` for a bare repository" if is_git_dir(folder) else None,
        )
    return Folder(folder, state)
