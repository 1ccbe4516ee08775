"""A kernel tree of the user's as a source: only ever read, nothing is made in it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from labctl import checkout
from labctl.errors import CommandError, UserError
from labctl.files import read_json, write_json
from labctl.kernels.sources import File

# What a build in the user's tree leaves there; with git, .gitignore says it better.
_MADE_FOLDERS = {".git", ".labctl", "include/config", "include/generated"}
_MADE_ENDINGS = (".o", ".cmd", ".ko", ".a", ".mod", ".order", ".symvers")
_MADE_FILES = {".git", ".config", ".config.old", ".version", "vmlinux", "System.map"}


@dataclass(frozen=True, slots=True)
class Folder:
    """A kernel tree with whatever is edited in it; `state` is the `.labctl` folder."""

    folder: Path
    state: Path

    @property
    def key(self) -> str:
        """The folder's place: an edit then rebuilds only what depends on it."""
        return "dir-" + hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:12]

    def hash(self) -> str:
        """Return the hash of the names, modes and contents of all source files.

        With git: of the commit's tree, and of the files that differ from it.
        """
        digest = hashlib.sha256()
        if not self._has_commit():
            self._hash_files(digest)
            return digest.hexdigest()
        digest.update(checkout.look(self.folder, "rev-parse", "HEAD^{tree}"))
        for name in checkout.changed(self.folder, unknown=True):
            content = _content(self.folder / name)
            digest.update(f"{name}\0{len(content)}\0".encode("utf-8", "surrogateescape") + content)
        return digest.hexdigest()

    def fill(self, folder: Path, leave: Collection[str]) -> None:
        """Copy what differs in content, remove what is gone; `leave` stays as it is.

        A copy's time is that of the copying, never the user's: make compares it
        with objects that were made here.
        """
        record = folder.with_name("copied.json")
        known = read_json(record)
        wanted = self._files()
        if folder.is_dir():
            for name in {name for name, _ in _walk(folder, folder)} - wanted.keys() - set(leave):
                (folder / name).unlink()
        folder.mkdir(parents=True, exist_ok=True)
        copied: dict[str, object] = {}
        for name, path in wanted.items():
            if name in leave:
                continue
            stamp = _stamp(path)
            if known.get(name) != stamp or not os.path.lexists(folder / name):
                _copy(path, folder / name)
            copied[name] = stamp
        if copied != known:
            write_json(record, copied)

    def original(self, name: str) -> File | None:
        """Return the user's file."""
        path = self.folder / name
        if not path.is_file():
            return None
        return File(path.read_bytes(), os.access(path, os.X_OK))

    def _has_commit(self) -> bool:
        try:
            return checkout.has_commit(self.folder)
        except CommandError as error:
            # Without git the same folder would have another address.
            raise UserError(
                f"git cannot read the source: {error.output}",
                where=str(self.folder),
                hint="repair the repository, or remove .git to take the files as they are",
            ) from error

    def _listed(self, *words: str) -> list[str]:
        names = checkout.look(self.folder, "ls-files", "-z", *words).split(b"\0")[:-1]
        return sorted({os.fsdecode(name) for name in names})

    def _files(self) -> dict[str, Path]:
        if not self._has_commit():
            return dict(_walk(self.folder, self.folder))
        names = self._listed("--cached", "--others", "--exclude-standard")
        paths = {name: self.folder / name for name in names}
        return {n: p for n, p in paths.items() if p.is_symlink() or p.is_file()}

    def _hash_files(self, digest: hashlib._Hash) -> None:
        """Feed all files; contents are remembered by their stamps: a second time is quick."""
        memory = self.state / "sources" / f"{self.key}.json"
        known = read_json(memory)
        fresh: dict[str, object] = {}
        for name, path in sorted(self._files().items()):
            stamp = _stamp(path)
            entry = known.get(name)
            if not isinstance(entry, list) or entry[0] != stamp:
                entry = [stamp, hashlib.sha256(_content(path)).hexdigest()]
            fresh[name] = entry
            digest.update(f"{name}\0{entry[1]}\n".encode("utf-8", "surrogateescape"))
        if fresh != known:
            write_json(memory, fresh)


def _walk(folder: Path, root: Path) -> Iterator[tuple[str, Path]]:
    for entry in os.scandir(folder):
        path = Path(entry.path)
        name = str(path.relative_to(root))
        if entry.is_dir(follow_symlinks=False):
            if name not in _MADE_FOLDERS and not name.endswith("/include/generated"):
                yield from _walk(path, root)
        elif name not in _MADE_FILES and not name.endswith(_MADE_ENDINGS):
            yield name, path


def _stamp(path: Path) -> list[int]:
    info = path.lstat()
    return [info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_mode]


def _content(path: Path) -> bytes:
    """Return what makes up a file for a hash: its kind, and its text or target."""
    if path.is_symlink():
        return b"link " + os.fsencode(path.readlink())
    if not path.is_file():  # deleted, or another repository within this one
        return b"none"
    return (b"program " if os.access(path, os.X_OK) else b"file ") + path.read_bytes()


def _copy(path: Path, target: Path) -> None:
    if os.path.lexists(target):
        if not target.is_dir() and _content(target) == _content(path):
            return
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target, follow_symlinks=False)
