"""What a program of the host needs to run elsewhere: loader, libraries, interpreter."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labctl import proc
from labctl.arch import Architecture
from labctl.errors import CommandError, HostError
from labctl.workloads import elf
from labctl.workloads.elf import Elf

_SECONDS = 60.0
_LIBRARY = re.compile(r"^\s*(?:(\S+) => )?(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
# The second form is musl's.
_MISSING = re.compile(r"^\s*(\S+) => not found$|Error loading shared library (\S+):", re.MULTILINE)
_VERSION = re.compile(r"version [`'](\S+)' not found \(required by")
_SYSTEM_FOLDER = re.compile(r"(/usr)?/lib(32|64|x32)?(/[a-z0-9_]+-linux-[a-z]+)?")
_LONGEST_SHEBANG = 256
_PYTHON = re.compile(r"python[0-9.]*")
# Modules of Python's library that no benchmark needs: its tests and its development tools.
_NOT_NEEDED = {"__pycache__", "dist-packages", "site-packages"}
_NOT_NEEDED |= {"ensurepip", "idlelib", "lib2to3", "pydoc_data", "tkinter", "turtledemo"}
_NOT_NEEDED |= {"test", "tests"}
_ASK_PYTHON = """\
import json, sys, sysconfig
paths = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
print(json.dumps([sys.executable, paths, sys.base_prefix]))
"""


class Fault(Exception):
    """A file of the host that cannot be used elsewhere; `hint` says how to fix it."""

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter of Python; its library is in `folders` below `prefix`."""

    program: Path
    folders: tuple[Path, ...]
    prefix: Path

    def owns(self, path: str) -> bool:
        """Return whether a file is a module of the library."""
        return any(Path(path).is_relative_to(folder) for folder in self.folders)

    def relative(self, path: str) -> str:
        """Return the path of a module relative to the prefix."""
        return str(Path(path).relative_to(self.prefix))


@dataclass(frozen=True, slots=True)
class Closure:
    """The files that a program needs, besides itself.

    `system` has files by the absolute path at which a loader or a kernel looks for them, a
    text being the target of a symbolic link; `libraries` has those by name that a loader
    finds with its search path only. `loader` is the host's path of the program's own
    loader, None for a static program; of a Python script it is that of `python`.
    `interpreter` is the path of a script's interpreter in the guest.
    """

    system: dict[str, Path | str]
    libraries: dict[str, Path]
    loader: str | None = None
    interpreter: str | None = None
    python: Python | None = None


_NOTHING = Closure({}, {})


def closure(
    path: Path,
    arch: Architecture,
    known: frozenset[str] = frozenset(),
    search: Sequence[Path] = (),
) -> Closure:
    """Return what a file of the host needs in a guest that has the `known` paths.

    `search` are folders in which to look for libraries first.

    Raises:
        Fault: a library or an interpreter is missing, or the file is a program of another
            architecture.
    """
    try:
        header = elf.read(path)
    except OSError as error:
        raise Fault(f"cannot read {path}: {error.strerror}") from error
    if header is not None:
        is_own = header.machine == arch.elf_machine and not arch.is_foreign
        if is_python(path.name) and is_own and header.interpreter is not None:
            return _of_python(path, str(path), arch)
        return _of_elf(path, header, arch, search)
    script = shebang(path)
    return _NOTHING if script is None else _of_script(path, script, arch, known)


def shebang(path: Path) -> str | None:
    """Return the interpreter of an executable script: a path, or a name that env looks up.

    None if the file is not a script.

    Raises:
        Fault: the file cannot be read, or the interpreter is missing in its first line.
    """
    if not os.access(path, os.X_OK):
        return None
    try:
        with path.open("rb") as file:
            line = file.readline(_LONGEST_SHEBANG)
    except OSError as error:
        raise Fault(f"cannot read {path}: {error.strerror}") from error
    if not line.startswith(b"#!"):
        return None
    words = line[2:].decode(errors="replace").split()
    if not words:
        raise Fault(f"{path}: `#!` without an interpreter")
    if Path(words[0]).name != "env":
        return words[0]
    named = (word for word in words[1:] if not word.startswith("-") and "=" not in word)
    return next(named, words[0])


def _of_elf(path: Path, header: Elf, arch: Architecture, search: Sequence[Path]) -> Closure:
    is_program = os.access(path, os.X_OK)
    if header.machine != arch.elf_machine and not is_program:
        return _NOTHING  # data
    if header.machine != arch.elf_machine:
        what = f"{path} is an {header.arch} program, but the guest is {arch.name}"
        raise Fault(what, f"compile it with {arch.triplet}-gcc -static")
    if header.interpreter is None and not header.is_shared:
        return _NOTHING
    if arch.is_foreign:
        what = f"{path} is dynamically linked"
        raise Fault(what, f"programs for {arch.name} guests must be static: link with -static")
    loader = header.interpreter
    if loader is not None and not Path(loader).is_file():
        what = f"{path}: its loader {loader} is not on this host"
        raise Fault(what, "install the C library that it was linked with, or link with -static")
    listed = _listed(path, loader, search)
    missing = [one or other for one, other in _MISSING.findall(listed)] + _VERSION.findall(listed)
    if missing and is_program:
        what = f"{path}: shared libraries not found: {', '.join(dict.fromkeys(missing))}"
        raise Fault(what, f"`ldd {shlex.quote(str(path))}` lists what it needs")
    system: dict[str, Path | str] = {}
    if loader is not None:
        system[loader] = Path(loader).resolve()
    libraries: dict[str, Path] = {}
    for name, place in _LIBRARY.findall(listed):
        if _SYSTEM_FOLDER.fullmatch(str(Path(place).parent)):
            system[place] = Path(place).resolve()
        else:
            libraries[Path(name or place).name] = Path(place).resolve()
    return Closure(system, libraries, loader)


def _listed(path: Path, loader: str | None, search: Sequence[Path]) -> str:
    words = ["ldd"]
    if loader is not None and Path(loader).name.startswith("ld-linux"):
        # As ldd does: with --list, glibc's loader stops at the first missing library.
        words = ["env", "LD_TRACE_LOADED_OBJECTS=1", "LD_WARN=yes", loader]
    elif loader is not None:
        words = [loader, "--list"]
    if search:
        words = ["env", f"LD_LIBRARY_PATH={':'.join(map(str, search))}", *words]
    try:
        done = proc.run([*words, path], timeout_seconds=_SECONDS, check=False)
    except (CommandError, HostError) as error:
        raise Fault(f"{path}: {words[-1]} cannot list its shared libraries: {error}") from error
    return done.text


def is_python(name: str) -> bool:
    """Return whether a program's name is that of an interpreter of Python."""
    return _PYTHON.fullmatch(name) is not None


def _of_script(path: Path, interpreter: str, arch: Architecture, known: frozenset[str]) -> Closure:
    if interpreter in known or f"/bin/{interpreter}" in known:
        return _NOTHING
    found = find_interpreter(path, interpreter)
    if is_python(Path(found).name):
        return _of_python(path, found, arch)
    real = Path(found).resolve()
    of_it = closure(real, arch, known)
    return Closure({found: real, **of_it.system}, of_it.libraries, interpreter=found)


def find_interpreter(script: Path, interpreter: str) -> str:
    """Return the path on the host of a script's interpreter.

    Raises:
        Fault: it is not installed.
    """
    found = shutil.which(interpreter)
    if found is None:
        what = f"{script}: interpreter {interpreter} is not on this host"
        raise Fault(what, "install it, or use one that every guest has: #!/bin/sh")
    return found


def _of_python(script: Path, program: str, arch: Architecture) -> Closure:
    """Return an interpreter of Python with its standard library; `script` is for errors."""
    try:
        output = proc.run([program, "-I", "-c", _ASK_PYTHON], timeout_seconds=_SECONDS).text
        executable, folders, prefix = json.loads(output)
    except (CommandError, HostError, ValueError) as error:
        raise Fault(f"{script}: interpreter {program} does not run: {error}") from error
    real = Path(executable).resolve()
    header = elf.read(real)
    whole = _of_elf(real, header, arch, ()) if header is not None else closure(real, arch)
    # Python looks for its library relative to its own path, behind symbolic links.
    system, libraries = {str(real): real, **whole.system}, dict(whole.libraries)
    named = real.with_name(Path(program).name)  # what env looks up
    for path in {program, str(named)} - {str(real)}:
        system[path] = str(real)
    for folder in dict.fromkeys(folders):
        for file in _modules(Path(folder)):
            system[str(file)] = file
            if file.suffix == ".so":
                try:
                    more = closure(file, arch)
                except Fault:
                    continue  # a module that this host cannot import either
                system |= more.system
                libraries |= more.libraries
    python = Python(real, tuple(dict.fromkeys(map(Path, folders))), Path(prefix))
    return Closure(system, libraries, whole.loader, str(named), python)


def _modules(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if name not in _NOT_NEEDED and not name.startswith("config-")
        )
        for name in sorted(names):
            if name.endswith((".py", ".so")) and not name.startswith("_tkinter"):
                yield Path(place) / name
