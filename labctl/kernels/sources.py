"""Where a kernel's source comes from: a Debian package, or a folder of the user's.

A source knows its content's hash, and how to fill a work tree with it.
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

DEBIAN_FOLDER = Path("/usr/src")
_UNPACK_SECONDS = 1200.0


class Source(Protocol):
    """A kernel source."""

    @property
    def key(self) -> str:
        """Names the work tree: sources of one key share a tree, so that builds stay incremental."""

    def hash(self) -> str:
        """Return the hex hash of the source's content."""

    def fill(self, folder: Path, leave: Collection[str]) -> str:
        """Make `folder` hold the source; what is unchanged in it keeps its time.

        The files named in `leave` are the caller's business. Returns the hash of the
        content that `folder` now has.
        """

    def original(self, name: str) -> File | None:
        """Return a file if it can be had without the work tree, None if there is none.

        Raises:
            KeyError: only the work tree has it.
        """


def open_source(text: str, state: Path) -> Source:
    """Return the source that `debian:NAME` or `dir:PATH` names; `state` is the `.labctl` folder.

    Raises:
        HostError: the package is not installed.
        UserError: the folder is no kernel source, or the kind is unknown.
    """
    from labctl.kernels.folder import Folder  # which builds on this module

    kind, _, place = text.partition(":")
    if kind == "debian":
        archive = DEBIAN_FOLDER / f"{place}.tar.xz"
        if not archive.is_file():
            raise HostError(
                f"{archive} is not there",
                hint=f"`apt-get install {place}`; `make setup` does it for the lab's own kernels",
            )
        return Archive(archive, state)
    if kind == "dir":
        folder = Path(place)
        if not (folder / "Kbuild").is_file() or not (folder / "Makefile").is_file():
            raise UserError(f"{folder} is not a kernel source: it has no Kbuild and Makefile")
        return Folder(folder, state)
    raise UserError(f"{text} is no source to build from", hint="debian:NAME or dir:PATH")


@dataclass(frozen=True, slots=True)
class Archive:
    """A tar file with one folder in it, as Debian packages kernel sources."""

    archive: Path
    state: Path

    @property
    def key(self) -> str:
        """The content's own hash."""
        return self.hash()[:16]

    def hash(self) -> str:
        """Return the archive's hash, remembered by its place, size and times."""
        return Hashed.remembered(self.archive, self.state / "sources.json").sha256

    def fill(self, folder: Path, leave: Collection[str]) -> str:
        """Unpack once: a folder that exists was unpacked whole."""
        del leave  # nothing is ever written into a folder that exists
        if folder.is_dir():
            return self.hash()
        folder.parent.mkdir(parents=True, exist_ok=True)
        began = self.hash()
        for remains in folder.parent.glob("unpacking-*"):  # of a killed labctl: the caller's
            files.remove(remains)  # lock keeps living ones out
        scratch = Path(tempfile.mkdtemp(prefix="unpacking-", dir=folder.parent))
        try:
            proc.run(
                ["tar", "-I", "xz -T0", "-xf", self.archive, "-C", scratch, "--no-same-owner"],
                timeout_seconds=_UNPACK_SECONDS,
            )
            inside = list(scratch.iterdir())
            if len(inside) != 1 or not inside[0].is_dir():
                raise HostError(f"{self.archive} does not hold one folder")
            if self.hash() != began:
                raise HostError(
                    "the source changed while it was unpacked",
                    where=str(self.archive),
                    hint="run the command again",
                )
            inside[0].rename(folder)
            return began
        except CommandError as error:
            raise HostError(
                f"the source cannot be unpacked: {error.output}",
                where=str(self.archive),
                hint=f"look for a full disk at {folder.parent}, or install the package again",
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def original(self, name: str) -> File | None:
        """Only the work tree has it: to find one file in an archive takes as long as all."""
        raise KeyError(name)
