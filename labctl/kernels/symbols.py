"""What gdb needs of a kernel: vmlinux with its symbols, and the lx- scripts of its source.

Kept beside an image only where the kernel's kconfig asks for them: vmlinux with
debug information is a hundred times as large as the bzImage.
"""

from __future__ import annotations

import shutil
from pathlib import Path

VMLINUX = "vmlinux"
_OPTION = "CONFIG_GDB_SCRIPTS=y"
_LOADER = "vmlinux-gdb.py"
_SCRIPTS = Path("scripts/gdb/linux")


def goals(config: Path) -> list[str]:
    """Return make's further goals for a kernel of this .config."""
    return ["scripts_gdb"] if _OPTION in config.read_text().splitlines() else []


def keep(build: Path, folder: Path) -> None:
    """Copy them from a build folder to an image's, if they were made.

    gdb looks for NAME-gdb.py beside NAME, and that file for its scripts beside itself.
    """
    if not goals(build / ".config"):
        return
    shutil.copy2(build / VMLINUX, folder / VMLINUX)
    shutil.copy2(build / _LOADER, folder / _LOADER)
    (folder / _SCRIPTS).mkdir(parents=True, exist_ok=True)
    for script in sorted((build / _SCRIPTS).glob("*.py")):  # links into the source, and one made
        shutil.copy2(script, folder / _SCRIPTS / script.name)


def of(bzimage: Path) -> Path | None:
    """Return the vmlinux that was kept beside an image, None if none was."""
    path = bzimage.with_name(VMLINUX)
    return path if path.is_file() else None
