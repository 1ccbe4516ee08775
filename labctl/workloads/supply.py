"""`Supply`: the files and the root that a workload brings, and how its command starts with them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from labctl.guests.disks import Disk
from labctl.kernels.hashed import Hashed

Source = Path | str
# Where a command without / is looked up in a root.
SEARCH = (
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
    "/usr/games",
)
# Files with absolute paths alone leave the folder to be made.
_START = (
    '[ -d "$1" ] || mkdir -p "$1"; '
    'cd "$1" && PATH="$2:$PATH" && export PATH && shift 2 && exec "$@"'
)


@dataclass(frozen=True, slots=True)
class Supply:
    """What one workload brings: `files` by their absolute path in the guest.

    A file is a path on the host, or the target of a symbolic link. `scripts` are generated
    executables. `folder` is where the command starts, None without files. `program`
    replaces the first word of the command. `interpreters` must exist on a target or in the
    `root`, the disk that the command runs in; a target gets it as an `archive`. `recorded` is
    the digest if the files themselves are not on this host, as in a packed lab.
    """

    files: Mapping[str, Source] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)
    folder: str | None = None
    program: str | None = None
    search: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    interpreters: tuple[str, ...] = ()
    root: Disk | None = None
    chroot: str | None = None
    archive: Path | None = None
    recorded: str | None = None

    def argv(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> list[str]:
        """Return the argument vector that starts a command in the folder of the files."""
        first = self.program or self._place(words[0]) or words[0]
        return self._started([first, *words[1:]], environment)

    def script(self, text: str, environment: Mapping[str, str] | None = None) -> list[str]:
        """Return the argument vector that runs a script in the folder of the files."""
        return self._started(["/bin/sh", "-ec", text, "sh"], environment)

    def _started(self, words: list[str], environment: Mapping[str, str] | None) -> list[str]:
        variables = {**self.environment, **(environment or {})}
        env = ["env", *(f"{name}={value}" for name, value in variables.items())]
        env = env if variables else []
        if self.chroot is not None:
            search = ":".join((*([self.folder] if self.folder else []), *self.search, *SEARCH))
            start = ["/bin/sh", "-c", _START, "sh", self.folder or "/", search, *words]
            return [*env, "chroot", self.chroot, *start]  # a root may have no env
        if self.folder is None:
            return [*env, *words]
        search = ":".join((self.folder, *self.search))
        return ["/bin/sh", "-c", _START, "sh", self.folder, search, *env, *words]

    def has(self, program: str) -> bool:
        """Return whether a command's first word is one of the files."""
        return self.program is not None or self._place(program) is not None

    def _place(self, program: str) -> str | None:
        """Return the path of a command's first word if it is one of the files.

        A shell of busybox would take its own program of that name, whatever is on PATH.
        """
        if self.folder is None:
            return None
        folders = (self.folder, *(self.search if "/" not in program else ()))
        paths = (str(PurePosixPath(folder, program)) for folder in folders)
        return next((path for path in paths if path in self.files or path in self.scripts), None)

    @property
    def size_bytes(self) -> int:
        """The size of the files."""
        return sum(one.stat().st_size for one in self.files.values() if isinstance(one, Path))

    def digest(self) -> str | None:
        """Return a hash of paths, modes and contents, None without files."""
        if self.folder is None or self.recorded is not None:
            return self.recorded
        found = hashlib.sha256()
        for path, source in sorted(self.files.items()):
            content = source
            if isinstance(source, Path):
                content = f"{source.stat().st_mode:o} {Hashed.of(source).sha256}"
            found.update(f"{path}\0{content}\0".encode())
        return found.hexdigest()


NOTHING = Supply()


def roots(supplies: Mapping[str, Supply]) -> dict[str, Disk]:
    """Return the roots of workloads, by their names."""
    return {name: one.root for name, one in supplies.items() if one.root is not None}


def archives(supplies: Mapping[str, Supply]) -> dict[str, Path]:
    """Return the roots of workloads for a target, by their names."""
    return {name: one.archive for name, one in supplies.items() if one.archive is not None}


def merged(supplies: Mapping[str, Supply]) -> dict[str, Source]:
    """Return the files of several workloads, which share libraries and interpreters."""
    return {path: source for one in supplies.values() for path, source in one.files.items()}


def merged_scripts(supplies: Mapping[str, Supply]) -> dict[str, str]:
    """Return the generated scripts of several workloads."""
    return {path: text for one in supplies.values() for path, text in one.scripts.items()}
