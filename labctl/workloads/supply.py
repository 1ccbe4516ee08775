"""`Supply`: the files that a workload brings, and how its command starts with them."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from labctl.arch import Architecture
from labctl.kernels.hashed import Hashed
from labctl.lab.models import Lab, Workload
from labctl.lab.paths import absolute, relative_hint
from labctl.lab.state import StateFolder
from labctl.units import quote
from labctl.workloads import build, elf, packages
from labctl.workloads.closure import Closure, Fault, closure, find_interpreter, shebang

Kind = Literal["qemu", "virtme-ng", "target"]
# Guests of virtme-ng and targets have a root that is not labctl's; /run is in memory.
FOLDERS: Mapping[Kind, str] = {
    "qemu": "/labctl",
    "virtme-ng": "/run/labctl-files",
    "target": "/run/labctl/files",
}
_LIBRARIES = ".lib"
_REAL = ".program"
_PROGRAMS = ".bin"
_START = 'cd "$1" && PATH="$2:$PATH" && export PATH && shift 2 && exec "$@"'
# Hidden by what is mounted at boot.
_HIDDEN = ("/dev", "/proc", "/run", "/sys", "/tmp")  # noqa: S108
_OURS = frozenset(("/init", "/bin/busybox", "/bin/labagent"))
# Folders of the host that virtme-ng makes writable, so that a file can be added.
_WRITABLE = ("/etc", "/home", "/lib", "/opt", "/srv", "/usr", "/var", "/bin", "/sbin")

# Called with the key below the workload in lab.yaml.
Report = Callable[[tuple[str, ...], Fault], None]
Source = Path | str


@dataclass(frozen=True, slots=True)
class Supply:
    """What one workload brings: `files` by their absolute path in the guest.

    A file is a path on the host, or the target of a symbolic link. `scripts` are generated
    executables. `folder` is where the command starts, None without files. `program`
    replaces the first word of the command. `interpreters` must exist on a target.
    """

    files: Mapping[str, Source] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)
    folder: str | None = None
    program: str | None = None
    search: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    interpreters: tuple[str, ...] = ()

    def argv(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> list[str]:
        """Return the argument vector that starts a command in the folder of the files."""
        first = [self.program, *words[1:]] if self.program else list(words)
        return self._started(first, environment)

    def script(self, text: str, environment: Mapping[str, str] | None = None) -> list[str]:
        """Return the argument vector that runs a script in the folder of the files."""
        return self._started(["/bin/sh", "-ec", text, "sh"], environment)

    def _started(self, words: list[str], environment: Mapping[str, str] | None) -> list[str]:
        variables = {**self.environment, **(environment or {})}
        if variables:
            words = ["env", *(f"{name}={value}" for name, value in variables.items()), *words]
        if self.folder is None:
            return words
        search = ":".join((self.folder, *self.search))
        return ["/bin/sh", "-c", _START, "sh", self.folder, search, *words]

    def has(self, program: str) -> bool:
        """Return whether a command's first word is one of the files."""
        if self.program is not None:
            return True
        if self.folder is None:
            return False
        folders = (self.folder, *(self.search if "/" not in program else ()))
        paths = {str(PurePosixPath(folder, program)) for folder in folders}
        return any(path in self.files or path in self.scripts for path in paths)

    @property
    def size_bytes(self) -> int:
        """The size of the files."""
        return sum(one.stat().st_size for one in self.files.values() if isinstance(one, Path))

    def digest(self) -> str | None:
        """Return a hash of paths, modes and contents, None without files."""
        if self.folder is None:
            return None
        found = hashlib.sha256()
        for path, source in sorted(self.files.items()):
            told = source
            if isinstance(source, Path):
                told = f"{source.stat().st_mode:o} {Hashed.of(source).sha256}"
            found.update(f"{path}\0{told}\0".encode())
        return found.hexdigest()


NOTHING = Supply()


def merged(supplies: Mapping[str, Supply]) -> dict[str, Source]:
    """Return the files of several workloads, which share libraries and interpreters."""
    return {path: source for one in supplies.values() for path, source in one.files.items()}


def merged_scripts(supplies: Mapping[str, Supply]) -> dict[str, str]:
    """Return the generated scripts of several workloads."""
    return {path: text for one in supplies.values() for path, text in one.scripts.items()}


def supply(
    lab: Lab,
    workload: Workload,
    arch: Architecture,
    kind: Kind,
    known: frozenset[str],
    report: Report,
) -> Supply:
    """Return what a workload brings, once it is built; report what cannot be brought.

    `known` are the paths of the programs that each guest has.

    Raises:
        BuildError: a program does not compile.
        HostError: a compiler is not installed, or a package cannot be downloaded.
    """
    made = _Collected(lab, workload, arch, kind, known)
    for key, step in (("make", made.make), ("build", made.build), ("packages", made.packages)):
        try:
            step()
        except Fault as fault:
            report((key,), fault)
            return NOTHING
    for target, host in workload.files.items():
        try:
            made.add(target, absolute(lab.root, host))
        except Fault as fault:
            report(("files", target), fault)
    try:
        made.add_command()
    except Fault as fault:
        report(("command",), fault)
    return made.result()


class _Collected:
    def __init__(
        self,
        lab: Lab,
        workload: Workload,
        arch: Architecture,
        kind: Kind,
        known: frozenset[str],
    ) -> None:
        self.lab = lab
        self.workload = workload
        self.arch = arch
        self.kind = kind
        self.known = known
        self.folder = f"{FOLDERS[kind]}/{workload.name}"
        self.files: dict[str, Source] = {}
        self.scripts: dict[str, str] = {}
        self.interpreters: dict[str, None] = {}
        self.search: dict[str, None] = {}
        self.library_folders: tuple[Path, ...] = ()
        self.has_libraries = False
        self.program: str | None = None

    def result(self) -> Supply:
        if not self.files:
            return NOTHING
        libraries = f"{self.folder}/{_LIBRARIES}"
        return Supply(
            self.files,
            self.scripts,
            self.folder,
            self.program,
            tuple(self.search),
            # A target's programs are started with their own loader and its search path.
            {"LD_LIBRARY_PATH": libraries} if self.has_libraries else {},
            tuple(self.interpreters),
        )

    def make(self) -> None:
        """Run make, if the workload has a folder for it."""
        if self.workload.make is not None:
            build.make(self.lab, self.workload, self.workload.make, self.arch)

    def build(self) -> None:
        """Compile the workload's program, if it has sources."""
        entry = self.workload.build
        if entry is not None:
            program = build.build(self.lab, self.workload, entry, self.arch)
            self._file(f"{self.folder}/{entry.program}", program)

    def packages(self) -> None:
        """Bring the programs of the workload's packages, and the libraries that they need.

        Of scripts, only the command's comes with its interpreter.
        """
        if not self.workload.packages:
            return
        store = StateFolder(self.lab.state).initramfs / "packages"
        found = packages.unpacked(self.workload.packages, store, self.arch)
        self.library_folders = found.library_folders
        folder = f"{self.folder}/{_PROGRAMS}"
        self.search[folder] = None
        for name, program in found.programs.items():
            inside = f"{folder}/{name}"
            if not program.is_file():  # a link to a program that a package's script creates
                continue
            if elf.read(program) is None and name != self.workload.argv()[0]:
                self.files[inside] = program.resolve()
            else:
                self._file(inside, program)

    def add_command(self) -> None:
        """Bring the program of the command if it is a path on the host."""
        word = self.workload.argv()[0]
        name = PurePosixPath(word)
        if "/" not in word or str(PurePosixPath(self.folder, word)) in self.files:
            return
        host = absolute(self.lab.root, word)
        if name.is_absolute():
            # On a target, and where a guest has the path, it is not the host's.
            if self.kind == "target" or word in self.known or not host.exists():
                return
            if self.kind == "virtme-ng" and not _is_below(word, _HIDDEN):
                return
        if not host.is_file():
            what = f"{word} is a folder" if host.is_dir() else f"{word} not found"
            hint = relative_hint(self.lab.root)
            raise Fault(what, f"expected a program of the host; {hint}")
        if not os.access(host, os.X_OK):
            raise Fault(f"{host} is not executable", f"run: chmod +x {shlex.quote(str(host))}")
        target = f"{self.folder}/{name.name}"
        if self.files.get(target, host.resolve()) != host.resolve():
            hint = f"rename {quote(name.name)} under `files:`"
            raise Fault(f"{word} and a file of `files:` have the same name", hint)
        self._file(target, host)
        self.program = target

    def add(self, target: str, host: Path) -> None:
        """Bring a file or a folder."""
        inside = str(PurePosixPath(self.folder, target))
        self._check_target(inside, target)
        try:
            if not host.exists():
                hint = relative_hint(self.lab.root)
                raise Fault(f"{host} not found", hint)
            if host.is_dir():
                self._tree(inside, host, frozenset())
            else:
                self._file(inside, host)
        except OSError as error:
            raise Fault(f"cannot read {error.filename}: {error.strerror}") from error

    def _check_target(self, inside: str, target: str) -> None:
        if not target.startswith("/"):
            return
        if self.kind == "target":
            what = "an absolute path would change the target's own files"
            raise Fault(what, f"use a relative path: {PurePosixPath(target).name}")
        if _is_below(inside, _HIDDEN) or inside in _OURS:
            raise Fault(f"{inside} is in use by the guest itself", "use a relative path")
        if self.kind == "virtme-ng" and not _is_below(inside, _WRITABLE):
            what = f"{inside} cannot be created: the guest's root is the host's, read-only"
            raise Fault(what, f"use a relative path, or one below {' '.join(_WRITABLE)}")

    def _tree(self, inside: str, folder: Path, above: frozenset[Path]) -> None:
        real = folder.resolve()
        if real in above:
            raise Fault(f"{folder} is a symbolic link to a folder that contains it")
        for one in sorted(folder.iterdir()):
            if one.is_dir():
                self._tree(f"{inside}/{one.name}", one, above | {real})
            else:
                self._file(f"{inside}/{one.name}", one)

    def _file(self, inside: str, host: Path) -> None:
        if not host.is_file():
            kind = "a broken symbolic link" if host.is_symlink() else "a special file"
            raise Fault(f"{host} is {kind}: expected a file or a folder")
        real = host.resolve()
        self.files[inside] = real
        interpreter = None if self.kind == "qemu" else shebang(real)
        if interpreter is not None:
            self._for_script(host, interpreter)
            return
        needs = closure(real, self.arch, self.known, self.library_folders)
        if needs.interpreter is not None:
            self.search[str(PurePosixPath(needs.interpreter).parent)] = None
        if self.kind == "target":
            self._for_target(inside, real, needs)
            return
        if self.kind == "qemu":
            self.files.update(needs.system)
        self._libraries(needs)

    def _for_script(self, host: Path, interpreter: str) -> None:
        """Note an interpreter that a target has, or a guest with the host's files."""
        if self.kind == "target":
            self.interpreters[interpreter] = None
            return
        found = find_interpreter(host, interpreter)
        if _is_below(found, _HIDDEN):
            what = f"{host}: guests of virtme-ng do not see its interpreter {found}"
            raise Fault(what, "install it outside /tmp and /run")
        self.search[str(PurePosixPath(found).parent)] = None

    def _libraries(self, needs: Closure) -> None:
        self.has_libraries |= bool(needs.libraries)
        for name, source in needs.libraries.items():
            self.files[f"{self.folder}/{_LIBRARIES}/{name}"] = source

    def _for_target(self, inside: str, real: Path, needs: Closure) -> None:
        """Start a dynamic program with its own loader and libraries, not the target's."""
        if needs.loader is None:
            return
        relative = PurePosixPath(inside).relative_to(self.folder)
        program = f"{self.folder}/{_REAL}/{relative}"
        libraries = f"{self.folder}/{_LIBRARIES}"
        for path, source in needs.system.items():
            if isinstance(source, Path):
                self.files[f"{libraries}/{PurePosixPath(path).name}"] = source
        for name, source in needs.libraries.items():
            self.files[f"{libraries}/{name}"] = source
        del self.files[inside]
        self.files[program] = real
        loader = f"{libraries}/{PurePosixPath(needs.loader).name}"
        words = shlex.join([loader, "--library-path", libraries, program])
        self.scripts[inside] = f'#!/bin/sh\nexec {words} "$@"\n'


def _is_below(path: str, folders: Sequence[str]) -> bool:
    return any(path == one or path.startswith(f"{one}/") for one in folders)
