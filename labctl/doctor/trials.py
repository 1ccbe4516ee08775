"""Tests of the doctor: programs, compilers, folders and host load."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from labctl import proc
from labctl.errors import CommandError, HostError
from labctl.host.load import load
from labctl.workloads import ext4

_SECONDS = 60.0
_WRITTEN_BYTES = 1 << 20
_OF_THE_SYSTEM = {"busybox", *ext4.PROGRAMS}
_SYSTEM_PATH = os.pathsep.join(("/bin", "/usr/bin", "/sbin", "/usr/sbin"))


def version(program: str) -> str:
    """Return the first line of `PROGRAM --version`, empty if it does not run."""
    try:
        done = proc.run([program, "--version"], timeout_seconds=_SECONDS)
    except (HostError, CommandError):
        return ""
    return done.text.partition("\n")[0].strip()


def missing(programs: Iterable[str]) -> list[str]:
    """Return the programs that are not installed."""
    return [one for one in programs if not _which(one)]


def _which(program: str) -> str | None:
    # These may be in a system folder outside PATH; labctl also looks there.
    is_there = program in _OF_THE_SYSTEM
    return shutil.which(program) or (shutil.which(program, path=_SYSTEM_PATH) if is_there else None)


def compile_error(source: str, *options: str, compiler: str = "gcc") -> str:
    """Return the compiler's first error for a program, empty if it compiles."""
    with tempfile.TemporaryDirectory(prefix="labctl-") as folder:
        argv = [compiler, *options, "-x", "c", "-", "-o", f"{folder}/program"]
        try:
            done = proc.run(
                argv, stdin=source.encode(), cwd=Path(folder), timeout_seconds=_SECONDS, check=False
            )
        except (HostError, CommandError) as error:
            return error.what
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    errors = [line for line in lines if "error:" in line or "cannot find" in line] or lines
    return (errors[0] if errors else f"{compiler} failed without a message") if done.status else ""


def uses_ccache() -> bool:
    """Return whether `gcc` on PATH is a link to ccache."""
    found = shutil.which("gcc")
    return found is not None and Path(found).resolve().name == "ccache"


def unverified_ccache() -> list[str]:
    """Return the settings of ccache with which it stores objects without a checksum."""
    found = []
    for name in ("hard_link", "file_clone"):
        with contextlib.suppress(HostError, CommandError):
            done = proc.run(["ccache", "--get-config", name], timeout_seconds=_SECONDS)
            found += [name] if done.text.strip() == "true" else []
    return found


def nearest(folder: Path) -> Path:
    """Return the folder, or its nearest parent that exists."""
    return next((one for one in (folder, *folder.parents) if one.is_dir()), Path("/"))


def write_error(folder: Path) -> str:
    """Return the error on writing 1 MiB to the folder's disk, empty if it works."""
    try:
        with tempfile.TemporaryFile(dir=nearest(folder)) as file:
            file.write(b"\xa5" * _WRITTEN_BYTES)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return ""


def free_bytes(folder: Path) -> int:
    """Return the bytes available to this user on the folder's disk."""
    info = os.statvfs(nearest(folder))
    return info.f_bavail * info.f_frsize


def watch_load(seconds: float) -> tuple[float, float]:
    """Return the number of busy cores and the share of stolen CPU time during `seconds`."""
    before, began = load(), time.monotonic()
    time.sleep(seconds)
    after, passed = load(), time.monotonic() - began
    busy = (after["busy_seconds"] - before["busy_seconds"]) / passed
    return busy, (after["steal_seconds"] - before["steal_seconds"]) / passed / after["cores"]
