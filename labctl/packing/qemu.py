"""QEMU with its loader, shared libraries, modules and firmware, for hosts without it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from labctl import proc
from labctl.arch import X86_64, Architecture
from labctl.errors import CommandError, HostError
from labctl.workloads.closure import Fault, closure

_SECONDS = 60.0
_MODULES = ("/usr/lib/*/qemu", "/usr/lib64/qemu", "/usr/lib/qemu", "/usr/local/lib/*/qemu")
# Firmware for architectures of guests, and option ROMs. Larger files are UEFI.
_FIRMWARE = ("*.bin", "*.rom")
_LARGEST_BYTES = 600 << 10


def files_of(arch: Architecture) -> dict[str, Path]:
    """Return the files of the QEMU for `arch` by path in the folder of guest/qemu/qemu.c.

    Raises:
        HostError: QEMU or one of its libraries is not installed.
    """
    program = Path(shutil.which(arch.qemu) or "")
    if not program.name:
        raise HostError(f"{arch.qemu} is not installed", hint=arch.hint)
    real = program.resolve()
    found = {arch.qemu: real}
    loader: str | None = None
    modules = list(_modules(arch))
    for path in (real, *modules):
        try:
            needs = closure(path, X86_64)
        except Fault as fault:
            hint = fault.hint or f"reinstall {arch.qemu_package}, or pack without --with-qemu"
            raise HostError(fault.what, hint=hint) from fault
        loader = loader or needs.loader
        listed = {**needs.system, **needs.libraries}
        found |= {
            f"lib/{Path(name).name}": one
            for name, one in listed.items()
            if isinstance(one, Path) and name != loader
        }
    if loader is None:
        raise HostError("expected a program with shared libraries", where=str(program))
    found["ld.so"] = Path(loader).resolve()
    found |= {f"modules/{path.name}": path for path in modules}
    for folder in _firmware_folders(program):
        for pattern in _FIRMWARE:
            for path in sorted(folder.glob(pattern)):
                real = path.resolve()
                if real.is_file() and real.stat().st_size <= _LARGEST_BYTES:
                    found.setdefault(f"firmware/{path.name}", real)
    return found


def _modules(arch: Architecture) -> Iterator[Path]:
    """Yield the accelerators that a distribution builds as modules."""
    target = arch.qemu.removeprefix("qemu-system-")
    for pattern in _MODULES:
        yield from sorted(Path("/").glob(f"{pattern[1:]}/accel-tcg-{target}.so"))


def _firmware_folders(program: Path) -> list[Path]:
    try:
        listed = proc.run([program, "-L", "help"], timeout_seconds=_SECONDS).text
    except CommandError as error:
        what = f"QEMU does not list its firmware folders: {error.last_line}"
        raise HostError(what, where=str(program)) from error
    return [Path(line) for line in listed.splitlines() if Path(line).is_dir()]
