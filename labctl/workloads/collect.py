"""Collect what a workload brings into a guest or onto a target: a `Supply`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from labctl.arch import Architecture
from labctl.guests.copied import generated
from labctl.guests.disks import FILES, Disk, mounted
from labctl.lab.models import Lab, Workload
from labctl.lab.paths import absolute, relative_hint
from labctl.lab.state import StateFolder
from labctl.targets.roots import mounted as mounted_on_target
from labctl.units import quote
from labctl.workloads import build, elf, packages, relocated
from labctl.workloads.bootstrap import is_debian
from labctl.workloads.closure import (
    Closure,
    Fault,
    closure,
    find_interpreter,
    is_python,
    shebang,
)
from labctl.workloads.relocated import Relocated
from labctl.workloads.root_archive import archive_of
from labctl.workloads.roots import root
from labctl.workloads.supply import NOTHING, Source, Supply

# The launcher of a guest, or a target.
Kind = Literal["qemu", "virtme-ng", "target"]
FOLDERS: Mapping[str, str] = {**FILES, "target": "/run/labctl/files"}
_LIBRARIES = ".lib"
_PROGRAMS = ".bin"
# Hidden by what is mounted at boot.
_HIDDEN = ("/dev", "/proc", "/run", "/sys", "/tmp")  # noqa: S108
_OURS = frozenset(("/init", "/bin/busybox", "/bin/labagent"))
# Folders of the host that virtme-ng makes writable, so that a file can be added.
_WRITABLE = ("/etc", "/home", "/lib", "/opt", "/srv", "/usr", "/var", "/bin", "/sbin")

# Called with the key below the workload in lab.yaml.
Report = Callable[[tuple[str, ...], Fault], None]


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
    for key, step in (
        ("root", made.add_root),
        ("make", made.make),
        ("build", made.build),
        ("packages", made.packages),
    ):
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
        self.pythons: dict[str, None] = {}
        self.root: Disk | None = None
        self.archive: Path | None = None
        # Programs are started with their own loader; interpreters are not brought.
        self.is_apart = workload.root is not None or kind == "target"

    def result(self) -> Supply:
        chroot = self._chroot() if self.root is not None else None
        if not self.files and not self.scripts:
            if self.root is None:
                return NOTHING
            return Supply(root=self.root, chroot=chroot, archive=self.archive)
        if self.kind != "target":  # a guest has files only
            for path, text in self.scripts.items():
                name = PurePosixPath(path).name
                self.files[path] = generated(self.lab.state, name, text.encode(), 0o755)
            self.scripts = {}
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
            self.root,
            chroot,
            self.archive,
        )

    def _chroot(self) -> str:
        is_target = self.kind == "target"
        return mounted_on_target(self.workload.name) if is_target else mounted(self.workload.name)

    def add_root(self) -> None:
        """Make the workload's root, if it has one."""
        if self.workload.root is None:
            return
        self.root = root(self.lab, self.workload, self.arch)
        if self.kind == "target":
            self.archive = archive_of(self.root, StateFolder(self.lab.state).roots)

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
        if not self.workload.packages or is_debian(self.workload.root):
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
            if self.is_apart or word in self.known or not host.exists():
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
        if self.is_apart:
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
        has_own = self.kind == "qemu" and not self.is_apart
        interpreter = None if has_own else shebang(real)
        if interpreter is not None:
            self._for_script(inside, host, interpreter)
            return
        needs = closure(real, self.arch, self.known, self.library_folders)
        if needs.interpreter is not None:
            self.search[str(PurePosixPath(needs.interpreter).parent)] = None
        if needs.python is not None and real == needs.python.program:
            self._python(inside, needs)
        elif self.is_apart and needs.loader is not None:
            del self.files[inside]
            self._relocated(relocated.program(inside, real, needs, self.folder))
        if self.is_apart:
            return
        if has_own:
            self.files.update(needs.system)
        self._libraries(needs)

    def _python(self, inside: str, needs: Closure) -> None:
        """Bring an interpreter of Python, which finds its library relative to its real path."""
        assert needs.python is not None
        del self.files[inside]
        if self.is_apart:
            self._bring_python([PurePosixPath(inside).name], needs)
            own = f"{relocated.python_folder(self.folder)}/{PurePosixPath(inside).name}"
            self.scripts[inside] = f'#!/bin/sh\nexec {shlex.quote(own)} "$@"\n'
        elif self.kind == "qemu":
            self.files[inside] = str(needs.python.program)
        else:
            real = shlex.quote(str(needs.python.program))
            self.scripts[inside] = f'#!/bin/sh\nexec {real} "$@"\n'

    def _bring_python(self, names: Sequence[str], needs: Closure) -> None:
        self.pythons |= dict.fromkeys((*names, "python3"))
        self._relocated(relocated.python(self.pythons, needs, self.folder))
        self.search[relocated.python_folder(self.folder)] = None

    def _relocated(self, found: Relocated) -> None:
        self.files |= found.files
        self.scripts |= found.scripts

    def _for_script(self, inside: str, host: Path, interpreter: str) -> None:
        """Note an interpreter that a target has, or a guest with the host's files.

        A target gets Python with the script, which then needs the same modules as in a guest.
        """
        name = PurePosixPath(interpreter).name
        if self.kind == "target" and self.root is None and is_python(name):
            self._bring_python([name], closure(host.resolve(), self.arch))
            if "/" in interpreter:
                own = f"{relocated.python_folder(self.folder)}/{name}"
                self.files[inside] = self._with_interpreter(host.resolve(), interpreter, own)
            return
        if self.is_apart:
            self.interpreters[interpreter] = None
            return
        found = find_interpreter(host, interpreter)
        if _is_below(found, _HIDDEN):
            what = f"{host}: guests of virtme-ng do not see its interpreter {found}"
            raise Fault(what, "install it outside /tmp and /run")
        self.search[str(PurePosixPath(found).parent)] = None

    def _with_interpreter(self, script: Path, old: str, new: str) -> Path:
        """Return a copy of a script that another interpreter runs."""
        first, _, rest = script.read_bytes().partition(b"\n")
        text = first.replace(old.encode(), new.encode(), 1) + b"\n" + rest
        return generated(self.lab.state, script.name, text, 0o755)

    def _libraries(self, needs: Closure) -> None:
        self.has_libraries |= bool(needs.libraries)
        for name, source in needs.libraries.items():
            self.files[f"{self.folder}/{_LIBRARIES}/{name}"] = source


def _is_below(path: str, folders: Sequence[str]) -> bool:
    return any(path == one or path.startswith(f"{one}/") for one in folders)
