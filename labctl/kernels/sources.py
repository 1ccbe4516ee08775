"""Where a kernel's source comes from: a Debian package, or a folder of the user's.

A source knows its content's hash, and how to fill a work tree with it. The
user's own folder is only read: nothing is configured, patched or built in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from labctl import proc
from labctl.errors import HostError, UserError

DEBIAN_FOLDER = Path("/usr/src")
_UNPACK_SECONDS = 1200.0
_GIT_SECONDS = 300.0
_NOT_SOURCE = {".git", ".labctl"}


class Source(Protocol):
    """A kernel source."""

    @property
    def key(self) -> str:
        """Names the work tree: sources of one key share a tree, so that builds stay incremental."""

    def hash(self) -> str:
        """Return the hex hash of the source's content."""

    def fill(self, folder: Path) -> None:
        """Make `folder` hold the source; what is unchanged in it keeps its time."""

    def original(self, name: str) -> bytes | None:
        """Return a file's content if it can be had without the work tree, None if not there.

        Raises:
            KeyError: only the work tree has it.
        """


def open_source(text: str, state: Path) -> Source:
    """Return the source that `debian:NAME` or `dir:PATH` names; `state` is the `.labctl` folder.

    Raises:
        HostError: the package is not installed.
        UserError: the folder is no kernel source, or the kind is unknown.
    """
    kind, _, place = text.partition(":")
    if kind == "debian":
        archive = DEBIAN_FOLDER / f"{place}.tar.xz"
        if not archive.is_file():
            raise HostError(
                f"{archive} is not there",
                hint=f"apt-get install {place} (`make setup` does it for the lab's own kernels)",
            )
        return Archive(archive, state)
    if kind == "dir":
        folder = Path(place)
        if not (folder / "Kbuild").is_file() or not (folder / "Makefile").is_file():
            raise UserError(f"{folder} is not a kernel source: it has no Kbuild and Makefile")
        return Folder(folder)
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
        """Return the archive's hash, remembered by its size and time."""
        info = self.archive.stat()
        stamp = f"{info.st_size} {info.st_mtime_ns}"
        memory = self.state / "sources.json"
        try:
            known = json.loads(memory.read_text())
        except (OSError, ValueError):
            known = {}
        entry = known.get(str(self.archive))
        if entry and entry["stamp"] == stamp:
            return str(entry["hash"])
        with self.archive.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        known[str(self.archive)] = {"stamp": stamp, "hash": found}
        self.state.mkdir(parents=True, exist_ok=True)
        _replace(memory, json.dumps(known, indent=1).encode())
        return found

    def fill(self, folder: Path) -> None:
        """Unpack once: a folder that exists was unpacked whole."""
        if folder.is_dir():
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix="unpacking-", dir=folder.parent))
        try:
            proc.run(
                ["tar", "-xf", self.archive, "-C", scratch, "--no-same-owner"],
                timeout_seconds=_UNPACK_SECONDS,
            )
            inside = list(scratch.iterdir())
            if len(inside) != 1:
                raise HostError(f"{self.archive} does not hold one folder")
            inside[0].rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def original(self, name: str) -> bytes | None:
        """Only the work tree has it: to find one file in an archive takes as long as all."""
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Folder:
    """A kernel tree of the user's, with whatever is edited in it."""

    folder: Path

    @property
    def key(self) -> str:
        """The folder's place: an edit then rebuilds only what depends on it."""
        return "dir-" + hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:12]

    def hash(self) -> str:
        """Return the hash of the names and contents of all source files.

        With git: of the commit, the changes to it, and the files it does not know.
        """
        digest = hashlib.sha256()
        if (self.folder / ".git").exists():
            for words in (["rev-parse", "HEAD^{tree}"], ["diff", "--binary", "HEAD"]):
                digest.update(self._git(*words))
            listed = self._git("ls-files", "-oz", "--exclude-standard")
            for raw in listed.split(b"\0")[:-1]:
                path = self.folder / os.fsdecode(raw)
                digest.update(raw + b"\0" + (path.read_bytes() if path.is_file() else b""))
        else:
            for name, path in sorted(_files(self.folder).items()):
                link = path.is_symlink()
                content = os.fsencode(path.readlink()) if link else path.read_bytes()
                digest.update(f"{name}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()

    def _git(self, *words: str) -> bytes:
        safe = f"safe.directory={self.folder}"
        argv: list[str | Path] = ["git", "-c", safe, "-C", self.folder, *words]
        return proc.run(argv, timeout_seconds=_GIT_SECONDS).stdout

    def fill(self, folder: Path) -> None:
        """Copy what differs in size or time, remove what is gone."""
        folder.mkdir(parents=True, exist_ok=True)
        wanted, present = _files(self.folder), _files(folder)
        for name in present.keys() - wanted.keys():
            present[name].unlink()
        for name, path in wanted.items():
            target = folder / name
            if name not in present or _stamp(path) != _stamp(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                shutil.copy2(path, target, follow_symlinks=False)

    def original(self, name: str) -> bytes | None:
        """Return the user's file."""
        path = self.folder / name
        return path.read_bytes() if path.is_file() else None


def _files(folder: Path) -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for path in _walk(folder)}


def _walk(folder: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        if entry.name in _NOT_SOURCE or entry.name.endswith((".o", ".cmd", ".ko")):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
        elif entry.is_file(follow_symlinks=False) or entry.is_symlink():
            yield Path(entry.path)


def _stamp(path: Path) -> tuple[int, int]:
    info = path.lstat()
    return info.st_size, info.st_mtime_ns


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
