"""What the doctor tries: programs, compilers, folders, and a second of watching the load."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from labctl import host, proc
from labctl.errors import CommandError, HostError

_SECONDS = 60.0
_WRITTEN_BYTES = 1 << 20
_SYSTEM_PATH = os.pathsep.join(("/bin", "/usr/bin", "/sbin", "/usr/sbin"))


def version(program: str) -> str:
    """Return the first line of `--version`, empty if the program does not run."""
    try:
        done = proc.run([program, "--version"], timeout_seconds=_SECONDS)
    except (HostError, CommandError):
        return ""
    return done.text.partition("\n")[0].strip()


def missing(programs: Iterable[str]) -> list[str]:
    """Return the programs that are not installed."""
    return [one for one in programs if not _which(one)]


def _which(program: str) -> str | None:
    # busybox is looked for in the system's folders too, as the initramfs does.
    return shutil.which(program) or (
        shutil.which(program, path=_SYSTEM_PATH) if program == "busybox" else None
    )


def compiling(source: str, *options: str, compiler: str = "gcc") -> str:
    """Return a compiler's first complaint about a program, empty if it compiles."""
    with tempfile.TemporaryDirectory(prefix="labctl-") as folder:
        argv = [compiler, *options, "-x", "c", "-", "-o", f"{folder}/program"]
        try:
            done = proc.run(
                argv, stdin=source.encode(), cwd=Path(folder), timeout_seconds=_SECONDS, check=False
            )
        except (HostError, CommandError) as error:
            return error.what
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    told = [line for line in lines if "error:" in line or "cannot find" in line] or lines
    return (told[0] if told else f"{compiler} said nothing") if done.status else ""


def uses_ccache() -> bool:
    """Say whether `gcc` on PATH is ccache under another name."""
    found = shutil.which("gcc")
    return found is not None and Path(found).resolve().name == "ccache"


def nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next((one for one in (folder, *folder.parents) if one.is_dir()), Path("/"))


def writing(folder: Path) -> str:
    """Return why a MiB cannot be written to a folder's disk, empty if it can; leaves nothing."""
    try:
        with tempfile.TemporaryFile(dir=nearest(folder)) as file:
            file.write(b"\xa5" * _WRITTEN_BYTES)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return ""


def free_bytes(folder: Path) -> int:
    """Return the space that this user has on a folder's disk."""
    info = os.statvfs(nearest(folder))
    return info.f_bavail * info.f_frsize


def watch_load(seconds: float) -> tuple[float, float]:
    """Watch the host; return how many cores were busy, and the share of time stolen."""
    before, began = host.load(), time.monotonic()
    time.sleep(seconds)
    after, passed = host.load(), time.monotonic() - began
    cpus = os.cpu_count() or 1
    busy = (after["busy_seconds"] - before["busy_seconds"]) / passed
    return busy, (after["steal_seconds"] - before["steal_seconds"]) / passed / cpus
