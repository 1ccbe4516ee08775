"""A file with the expected hash of its content, to detect damage before use."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import HostError
from labctl.files import read_json, write_json


@dataclass(frozen=True, slots=True)
class Hashed:
    """A file and the SHA-256 of its content, as hex digits."""

    path: Path
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Hashed:
        """Return a file with the hash of its present content; raise OSError."""
        with path.open("rb") as file:
            return cls(path, hashlib.file_digest(file, "sha256").hexdigest())

    @classmethod
    def remembered(cls, path: Path, memory: Path) -> Hashed:
        """Return a file as `of` does; read it only if its size, times or inode changed.

        `memory` is the path of a JSON file that caches hashes.
        """
        info = path.stat()
        stamp = f"{info.st_size} {info.st_mtime_ns} {info.st_ctime_ns} {info.st_ino}"
        known = read_json(memory)
        entry = known.get(str(path))
        if isinstance(entry, dict) and entry.get("stamp") == stamp:
            return cls(path, str(entry["hash"]))
        found = cls.of(path)
        known[str(path)] = {"stamp": stamp, "hash": found.sha256}
        write_json(memory, known)
        return found

    def holds(self) -> bool:
        """Return whether the file exists and has the expected content."""
        try:
            return Hashed.of(self.path) == self
        except OSError:
            return False

    def check(self) -> None:
        """Compare the file's present content with the hash.

        Raises:
            HostError: the file changed, or cannot be read.
        """
        try:
            found = Hashed.of(self.path)
        except OSError as error:
            what = f"file cannot be read: {error.strerror or error}"
        else:
            if found == self:
                return
            what = f"file changed: expected SHA-256 {self.sha256}, got {found.sha256}"
        raise HostError(
            what,
            where=str(self.path),
            hint="run the command again: labctl rebuilds damaged files that it built",
        )
