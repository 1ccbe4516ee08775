"""A tar archive with one folder in it as a source: a Debian source package, or a tarball."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from labctl import files, proc
from labctl.errors import CommandError, HostError, LabError, UserError
from labctl.kernels import mentions, treefiles
from labctl.kernels.hashed import Hashed
from labctl.kernels.treefiles import File
from labctl.lab.state import StateFolder

_UNPACK_SECONDS = 1200.0
_PROGRAMS = {
    b"\xfd7zXZ\0": "xz -T0",
    b"\x1f\x8b": "gzip",
    b"(\xb5/\xfd": "zstd --long=31",  # the largest window that an archive may ask for
    b"BZh": "bzip2",
}
# GNU tar skips these in silence, but for this message.
_RENAMED = "Removing leading"
_END = bytes(1024)


@dataclass(frozen=True, slots=True)
class Archive:
    """A tar file with one folder in it; `is_package` is false for a user's file.

    GNU tar unpacks it: in a new folder it writes nothing outside, also not through links,
    and costs half the time of the module tarfile, whose filters are not in each Python 3.11.
    """

    archive: Path
    state: Path
    is_package: bool = True
    has_originals = False
    commit = None

    @property
    def key(self) -> str:
        """The first digits of the content's hash."""
        return self.hash()[:16]

    def hash(self) -> str:
        """Return the archive's hash, cached by its path, size and times.

        Raises:
            UserError: the archive cannot be read.
        """
        try:
            return Hashed.remembered(self.archive, StateFolder(self.state).source_hashes).sha256
        except PermissionError as error:
            what = f"archive cannot be read: {error.strerror}"
            raise UserError(what, where=str(self.archive)) from error

    def fill(self, folder: Path, leave: Collection[str]) -> str:
        """Unpack the archive, unless `folder` exists: then it is complete.

        Raises:
            UserError: the user's archive is damaged, or has a member that a source has not.
            HostError: a package is damaged, the disk is full, or a program is missing.
        """
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
            inside = self._unpacked(scratch)
            if self.hash() != began:
                raise HostError(
                    "source changed while it was unpacked",
                    where=str(self.archive),
                    hint="run the command again",
                )
            # An existing folder counts as complete: a crash of the host must not empty its files.
            proc.run(["sync", "-f", scratch], timeout_seconds=_UNPACK_SECONDS)
            inside.rename(folder)
            return began
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def original(self, name: str) -> File | None:
        """Raise KeyError: reading one file takes as long as unpacking the archive."""
        raise KeyError(name)

    def mentions(self, wanted: str, filled: Callable[[], Path]) -> bool:
        """Return whether an unpacked file matches."""
        return mentions.in_folder(filled(), wanted)

    def _unpacked(self, scratch: Path) -> Path:
        """Unpack the archive and return its folder."""
        how = [*self._decompressed(), "--no-same-owner", "--no-same-permissions"]
        # By another name: tar trusts the ending of the archive's name more than its content.
        link, top = scratch / "archive", scratch / "content"
        link.symlink_to(self.archive.absolute())
        top.mkdir()
        try:
            done = proc.run(
                ["tar", *how, "-xf", link, "-C", top],
                timeout_seconds=_UNPACK_SECONDS,
            )
        except CommandError as error:
            if treefiles.FULL.search(error.output):
                raise HostError(
                    f"source cannot be unpacked: {error.output}",
                    where=str(self.archive),
                    hint=f"free space at {scratch.parent}",
                ) from error
            raise self._wrong(f"source cannot be unpacked: {error.output}") from error
        lines = done.stderr.decode("utf-8", "replace").splitlines()
        if renamed := next((line for line in lines if _RENAMED in line), ""):
            raise self._wrong(f"archive has a name outside its folder: {renamed}")
        inside = list(top.iterdir())
        if len(inside) != 1 or not inside[0].is_dir() or inside[0].is_symlink():
            raise self._wrong("expected exactly one folder in the archive")
        for name, why in _hostile(inside[0]):
            raise self._wrong(f"{name} in the archive {why}")
        if any(not (inside[0] / name).is_file() for name in ("Kbuild", "Makefile")):
            raise self._wrong("archive is not a kernel source: expected Kbuild and Makefile in it")
        return inside[0]

    def _decompressed(self) -> list[str]:
        """Return tar's option for the archive's compression."""
        with files.reading(self.archive) as file:
            head = file.read(8)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - len(_END)))
            tail = file.read()
        program = next((each for magic, each in _PROGRAMS.items() if head.startswith(magic)), None)
        if program is None:
            if tail != _END:  # tar accepts an archive that was cut between two files
                raise self._wrong("source cannot be unpacked: not a complete tar archive")
            return []
        name = program.partition(" ")[0]
        if shutil.which(name) is None:
            what = f"source cannot be unpacked: {name} is not installed"
            hint = f"`apt-get install {'xz-utils' if name == 'xz' else name}`"
            raise HostError(what, where=str(self.archive), hint=hint)
        return ["-I", program]

    def _wrong(self, what: str) -> LabError:
        where = str(self.archive)
        if self.is_package:
            return HostError(what, where=where, hint="reinstall the package")
        return UserError(what, where=where, hint="download the archive again, or use another one")


def _hostile(top: Path) -> Iterator[tuple[str, str]]:
    """Yield what no source has: devices, and links that lead out of the folder."""
    inside = [""]
    while inside:
        prefix = inside.pop()
        for entry in list(os.scandir(f"{top}/{prefix}")):  # closed, whoever stops here
            name = prefix + entry.name
            if entry.is_symlink():
                target = os.readlink(entry.path)  # noqa: PTH115 - paths are text here
                end = os.path.normpath(f"{prefix or '.'}/{target}")
                if target.startswith("/") or end == ".." or end.startswith("../"):
                    yield name, f"is a link that leads out of it, to {target}"
            elif entry.is_dir():
                inside.append(f"{name}/")
            elif not stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
                yield name, "is not a regular file"
