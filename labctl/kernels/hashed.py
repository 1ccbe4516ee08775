"""A file with the hash of what it must hold: damage is found before the file is used."""

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
        """Return a file with the hash of what it holds now; raises OSError."""
        with path.open("rb") as file:
            return cls(path, hashlib.file_digest(file, "sha256").hexdigest())

    @classmethod
    def remembered(cls, path: Path, memory: Path) -> Hashed:
        """Return a file as `of` does, read again only if its size or times changed.

        `memory` is a JSON file.
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
        """Return whether the file is there and holds what it must."""
        try:
            return Hashed.of(self.path) == self
        except OSError:
            return False

    def check(self) -> None:
        """Look at the content again.

        Raises:
            HostError: the file changed, or cannot be read.
        """
        try:
            found = Hashed.of(self.path)
        except OSError as error:
            what = f"the file cannot be read: {error.strerror or error}"
        else:
            if found == self:
                return
            what = f"the file changed: its SHA-256 is {found.sha256}, expected {self.sha256}"
        raise HostError(
            what,
            where=str(self.path),
            hint="run the command again: a file that labctl built is then built again",
        )
