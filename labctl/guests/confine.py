"""What QEMU may use of the host's files, by Landlock where the host's kernel has it.

A guest that breaks into QEMU can then read and write the files of its own folder. It cannot
read those of the user or write others; newer kernels also deny TCP and signals to other
processes. Sockets in the file system are not covered. guest/box sets the rules, and executes QEMU.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from labctl.errors import CommandError, HostError
from labctl.guests import initramfs
from labctl.guests.qemu import GuestSpec
from labctl.host import landlock, tools

# Programs, libraries, QEMU's firmware, and what these read of the system.
_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/opt", "/nix", "/gnu", "/snap")
_READ = (
    *_SYSTEM,
    *("/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/qemu", "/etc/ssl", "/etc/gnutls"),
    *("/etc/gcrypt", "/etc/crypto-policies", "/etc/nsswitch.conf", "/etc/resolv.conf"),
    *("/etc/hosts", "/etc/localtime", "/sys", "/proc/self", "/proc/sys", "/proc/cpuinfo"),
    *("/proc/meminfo", "/proc/stat", "/proc/filesystems", "/dev/random", "/dev/urandom"),
)
_WRITE = ("/dev/null", "/dev/zero", "/dev/kvm")
_ELF = b"\x7fELF"


def program(state: Path) -> Path | None:
    """Return the compiled guest/box, None without Landlock or a compiler.

    Raises:
        BuildError: it does not compile.
    """
    if not landlock.version():
        return None
    with contextlib.suppress(HostError):
        return initramfs.program(state, "box")
    return None


def confined(argv: Sequence[str], spec: GuestSpec) -> list[str]:
    """Return a QEMU's command line with its rules.

    It has none if it may need any file: with `qemu:` words, with virtme-ng, and if QEMU is a
    script, or a program of the user that does not start with them.
    """
    qemu = shutil.which(argv[0])
    if spec.box is None or spec.launcher != "qemu" or spec.topology.qemu or qemu is None:
        return [*argv]
    real = Path(qemu).resolve()
    system = tuple(_reading((*_READ, *_installed(real), *_libraries())))
    if not _is_elf(real) or not (_is_of_system(real) or _starts(spec.box, system, qemu)):
        return [*argv]
    return [str(spec.box), *system, *_rules(spec), "--", *argv]


def _is_of_system(qemu: Path) -> bool:
    return any(qemu.is_relative_to(folder) for folder in _SYSTEM)


def _starts(box: Path, rules: Sequence[str], qemu: str) -> bool:
    """Return whether a QEMU finds its libraries, which may be anywhere."""
    try:
        tools.output((str(box), *rules, "--", qemu, "--version"))
    except (HostError, CommandError):
        return False
    return True


def _reading(paths: Iterable[str | Path]) -> Iterator[str]:
    for path in paths:
        yield from ("-r", str(path))


def _rules(spec: GuestSpec) -> Iterator[str]:
    own = (spec.image.bzimage, spec.initramfs, *(disk.path for disk in spec.disks))
    yield from _reading(own)
    for path in (*_WRITE, spec.folder.absolute()):
        yield from ("-w", str(path))
    if spec.ssh_key is not None:  # QEMU forwards a port to the guest's SSH server
        yield from ("-p", "0")


def _installed(qemu: Path) -> Iterator[Path]:
    """Yield where QEMU was installed or built, with its firmware beside it."""
    folder = qemu.parent
    yield folder
    # Unlike Path.home(), it does not fail for a user without a home folder.
    if str(folder.parent) not in (os.path.expanduser("~"), "/"):  # noqa: PTH111
        yield folder.parent


def _libraries() -> Iterator[str]:
    for name in ("LD_LIBRARY_PATH", "LD_PRELOAD"):
        yield from filter(os.path.isabs, os.environ.get(name, "").replace(" ", ":").split(":"))


def _is_elf(path: Path) -> bool:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(len(_ELF)) == _ELF
    return False
