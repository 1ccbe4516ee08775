"""A kernel tree of the user as a source; it is only read, never written."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from labctl.errors import UserError
from labctl.kernels import listing, mentions, mirror, stamps
from labctl.kernels.listing import Place
from labctl.kernels.treefiles import File
from labctl.lab.state import StateFolder

# A file written so shortly before it was hashed may change again without a change of its
# time stamp, within one tick of the file system's clock: its hash is not stored.
_RACY_NANOSECONDS = 3_000_000_000
_LINK, _PROGRAM, _FILE = b"link ", b"program ", b"file "


@dataclass(frozen=True, slots=True)
class Folder:
    """A kernel tree with its uncommitted edits; `state` is the state folder.

    `original` returns files as the last `hash` or `fill` read them, or raises.
    """

    folder: Path
    state: Path
    has_originals = True
    commit = None
    _places: dict[str, Place] = field(default_factory=dict, compare=False, repr=False)
    _hashes: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def key(self) -> str:
        """A name derived from the folder's path, so that edits are built incrementally."""
        return "dir-" + hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:12]

    def hash(self) -> str:
        """Return the hash of the names, modes and contents of all source files.

        Git lists the files, but is not asked whether they changed: it may ignore edits
        (assume-unchanged, skip-worktree) and sees filtered contents.

        Raises:
            UserError: a file cannot be read, or a link leads to too many files.
            CommandError: git failed.
        """
        self._scan()
        return self._digest()

    def _digest(self) -> str:
        text = "".join([f"{name}\0{each}\n" for name, each in self._hashes.items()])
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

    def fill(self, folder: Path, leave: Collection[str]) -> str:
        """Copy changed files, remove deleted ones, skip those in `leave`; return the hash.

        The hash is the same as that of `hash`.

        Raises:
            UserError: as `hash`, or a file changed during the copy.
        """
        self._scan()
        mirror.update(folder, self._hashes, leave, self._files)
        return self._digest()

    def original(self, name: str) -> File | None:
        """Return the user's file, None if there is none."""
        if not self._hashes:
            self._scan()
        mirror.check_parents(name, self._hashes, self.folder)
        return self._file(name) if name in self._hashes else None

    def mentions(self, wanted: str, filled: Callable[[], Path]) -> bool:
        """Return whether a file of the user's folder matches."""
        del filled
        return mentions.in_folder(self.folder, wanted)

    def _scan(self) -> None:
        """List and hash all files; hashes are cached by the files' stamps."""
        memory = StateFolder(self.state).stamps(self.key)
        known, began = stamps.read(memory), time.time_ns()
        remembered: stamps.Stamped = {}
        self._places.clear()
        self._hashes.clear()
        self._places.update(listing.files(self.folder))
        for name, place in self._places.items():
            stamp, entry = stamps.of(place.info), known.get(name)
            if entry is None or entry[0] != stamp:
                entry = (stamp, hashlib.sha256(_read(place.path)).hexdigest())
            if max(stamp[1:3]) < began - _RACY_NANOSECONDS:
                remembered[name] = entry
            self._hashes[name] = entry[1]
        if remembered != known:
            stamps.write(memory, remembered)

    def _files(self, names: Sequence[str]) -> Iterator[tuple[str, File]]:
        return ((name, self._file(name)) for name in names)

    def _file(self, name: str) -> File:
        """Return a file, checked against its hash."""
        place = self._places[name].path
        content = _read(place)
        if hashlib.sha256(content).hexdigest() != self._hashes[name]:
            raise _changed(place)
        kind, _, data = content.partition(b" ")
        return File(data, kind + b" " == _PROGRAM, kind + b" " == _LINK)


def _read(place: str) -> bytes:
    try:
        return _content(Path(place))
    except FileNotFoundError as error:
        raise _changed(place) from error
    except OSError as error:
        raise UserError(
            f"source file cannot be read: {error.strerror or error}", where=place
        ) from error


def _changed(place: str) -> UserError:
    return UserError("source changed while it was read", where=place, hint="run the command again")


def _content(path: Path) -> bytes:
    """Return the bytes of a file that are hashed: its kind, and its content or link target."""
    info = os.lstat(path)
    if stat.S_ISLNK(info.st_mode):
        return _LINK + os.fsencode(path.readlink())
    return (_PROGRAM if info.st_mode & stat.S_IXUSR else _FILE) + path.read_bytes()
