"""Build the guest's initramfs: busybox, init, agent and freebench as a cpio archive.

All files are content-addressed in the state folder: the same inputs are built once, and
give the same bytes on any host.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import labctl
from labctl.arch import X86_64, Architecture
from labctl.errors import HostError, UserError
from labctl.files import unfinished
from labctl.guests import busybox, cpio
from labctl.guests.compiler import Compiler, write
from labctl.guests.cpio import Entry
from labctl.kernels.hashed import Hashed
from labctl.lab.state import StateFolder

_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s", "-pthread")
# Paths in the guest of the programs from guest/<folder>/.
_PROGRAMS = {
    "init": "init",
    "agent": "bin/labagent",
    "freebench": "bin/freebench",
    "integrity": "bin/integrity",
}
# A program is also built from the sources in guest/lib/ whose headers it includes.
_LIBRARY = re.compile(rb'^#include "\.\./lib/(\w+)\.h"', re.MULTILINE)
# Names of the programs on the guest's PATH, beside busybox's applets.
PROGRAMS = frozenset(Path(target).name for target in _PROGRAMS.values() if "/" in target)
COMMAND_FOLDERS = frozenset(("/bin", "/sbin", "/usr/bin", "/usr/sbin"))
_FOLDERS = ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr")
_LINKED_FOLDERS = {"sbin": "bin", "usr/bin": "../bin", "usr/sbin": "../bin"}
_ETC = {"etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n", "etc/group": b"root:x:0:\n"}


@dataclass(frozen=True, slots=True)
class Initramfs:
    """A built archive; `hash` is the hex hash of all its inputs.

    `programs` is a folder with the lab's programs that are in the archive.
    """

    path: Path
    hash: str
    programs: Path
    hashed_programs: tuple[Hashed, ...] = ()

    def files(self, launcher: str) -> tuple[Hashed, ...]:
        """Return the files that guests of a launcher read, with hashes."""
        return (Hashed(self.path, self.hash),) if launcher == "qemu" else self.hashed_programs


def build(
    state: Path,
    files: Mapping[str, Path | str] | None = None,
    source: Path | None = None,
    beside: Mapping[str, Path] | None = None,
    arch: Architecture = X86_64,
) -> Initramfs:
    """Build the initramfs if it is missing, and return it.

    Args:
        state: the lab's state folder.
        files: additional files by their path in the guest; the executable bit is kept. A
            text is the target of a symbolic link.
        source: the `guest` folder to compile, by default labctl's.
        beside: additional files for the programs folder, by path in it.
        arch: the architecture to compile for.

    Raises:
        HostError: the compiler or a static busybox is missing.
        BuildError: a guest program does not compile.
        UserError: one of `files` cannot be read.
    """
    source = source or source_folder()
    store = StateFolder(state).initramfs
    store.mkdir(parents=True, exist_ok=True)
    compiler = Compiler.of(arch)
    entries = _skeleton()
    built = {name: _program(store, source, name, compiler) for name in _PROGRAMS}
    for name, program in built.items():
        entries.append(Entry.file(_PROGRAMS[name], program.read_bytes(), 0o755))
    entries += _busybox(arch)
    entries += _extra(files or {})
    archive = cpio.archive(entries)
    digest = hashlib.sha256(archive).hexdigest()
    path = store / f"initramfs-{digest[:16]}.cpio"
    if not Hashed(path, digest).holds():
        write(path, archive, 0o644)
    programs = {Path(_PROGRAMS[name]).name: program for name, program in built.items()}
    folder, hashed = _folder(store, programs | dict(beside or {}))
    return Initramfs(path, digest, folder, hashed)


def commands(arch: Architecture) -> frozenset[str]:
    """Return the names of the programs on a guest's PATH.

    Raises:
        HostError: there is no static busybox.
    """
    return PROGRAMS | {"busybox", *busybox.applets(busybox.find(arch), arch)}


def program(state: Path, name: str) -> Path:
    """Compile a program of the `guest` folder and return its path; raises as `build` does."""
    store = StateFolder(state).initramfs
    store.mkdir(parents=True, exist_ok=True)
    return _program(store, source_folder(), name, Compiler.of(X86_64))


def _folder(store: Path, files: Mapping[str, Path]) -> tuple[Path, tuple[Hashed, ...]]:
    """Return a folder with the files under their names, and the hashed files."""
    digest = hashlib.sha256()
    hashes = {name: Hashed.of(path).sha256 for name, path in files.items()}
    for name, each in hashes.items():
        mode = stat.S_IMODE(files[name].stat().st_mode)
        digest.update(f"{name}\0{mode:o}\0".encode() + bytes.fromhex(each))
    folder = store / f"programs-{digest.hexdigest()[:16]}"
    if not folder.exists():
        partial = unfinished(folder)
        partial.mkdir()
        for name, path in files.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, partial / name)
        with contextlib.suppress(OSError):  # another labctl has written the same folder
            partial.rename(folder)
        shutil.rmtree(partial, ignore_errors=True)
    inside = tuple(Hashed(folder / name, each) for name, each in hashes.items())
    for file in inside:
        if not file.holds():
            source = files[str(file.path.relative_to(folder))]
            file.path.parent.mkdir(parents=True, exist_ok=True)
            write(file.path, source.read_bytes(), stat.S_IMODE(source.stat().st_mode))
    return folder, inside


def source_folder() -> Path:
    """Return the `guest` folder: in the installed package, or next to it in a checkout.

    Raises:
        HostError: the folder is missing.
    """
    package = Path(labctl.__file__).parent
    for folder in (package / "_guest", package.parent / "guest"):
        if (folder / "init").is_dir():
            return folder
    raise HostError("sources of the guest programs not found", where=str(package))


def _program(store: Path, source: Path, folder: str, compiler: Compiler) -> Path:
    """Compile guest/<folder>/*.c and what it uses of guest/lib/, unless the program exists."""
    texts = sorted((source / folder).glob("*.[ch]"))
    units = [path.name for path in texts if path.suffix == ".c"]
    if not units:
        raise HostError(f"no C source in {source / folder}")
    library = {name.decode() for path in texts for name in _LIBRARY.findall(path.read_bytes())}
    for name in sorted(library):
        texts += [source / "lib" / f"{name}.{ending}" for ending in "ch"]
        units.append(f"../lib/{name}.c")
    digest = hashlib.sha256("\0".join((*_FLAGS, compiler.version)).encode())
    for path in texts:
        content = path.read_bytes()
        digest.update(f"\0{path.name}\0{len(content)}\0".encode() + content)
    program = store / f"{folder}-{digest.hexdigest()[:16]}"
    what = f"guest program {folder} does not compile"
    compiler.build(program, [*_FLAGS], units, source / folder, what)
    return program


def _skeleton() -> list[Entry]:
    entries = [Entry.folder(name) for name in _FOLDERS]
    entries += [Entry.link(name, target) for name, target in _LINKED_FOLDERS.items()]
    entries += [Entry.file(name, content, 0o644) for name, content in _ETC.items()]
    # The kernel opens the console for init before init can mount devtmpfs.
    entries.append(Entry.device("dev/console", 5, 1))
    return entries


def _busybox(arch: Architecture) -> list[Entry]:
    found = busybox.find(arch)
    applets = busybox.applets(found, arch)
    taken = {Path(target).name for target in _PROGRAMS.values()} | {"busybox"}
    links = [Entry.link(f"bin/{name}", "busybox") for name in applets if name not in taken]
    return [Entry.file("bin/busybox", found.read_bytes(), 0o755), *links]


def _extra(files: Mapping[str, Path | str]) -> list[Entry]:
    entries: dict[str, Entry] = {}
    for target, source in files.items():
        inside = target.strip("/")
        parents = [str(parent) for parent in Path(inside).parents][:-1]
        for name in reversed(parents):
            if name not in _LINKED_FOLDERS:
                entries.setdefault(name, Entry.folder(name))
        if isinstance(source, str):
            entries[inside] = Entry.link(inside, source)
            continue
        try:
            executable = source.stat().st_mode & stat.S_IXUSR
            content = source.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {source}: {error.strerror}") from error
        entries[inside] = Entry.file(inside, content, 0o755 if executable else 0o644)
    return list(entries.values())
