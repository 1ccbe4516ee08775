"""Files of a kernel for gdb: vmlinux with symbols, and the lx- scripts of the source.

They are stored with an image only if the kconfig enables them, as vmlinux with debug
information is a hundred times as large as the bzImage.
"""

from __future__ import annotations

import shutil
from pathlib import Path

VMLINUX = "vmlinux"
_OPTION = "CONFIG_GDB_SCRIPTS=y"
_LOADER = "vmlinux-gdb.py"
_SCRIPTS = Path("scripts/gdb/linux")


def goals(config: Path) -> list[str]:
    """Return make's additional goals for a .config."""
    return ["scripts_gdb"] if _OPTION in config.read_text().splitlines() else []


def keep(build: Path, folder: Path) -> None:
    """Copy gdb's files from a build folder to an image's folder, if they were built.

    gdb loads NAME-gdb.py from the folder of NAME; that file loads scripts below its folder.
    """
    if not goals(build / ".config"):
        return
    shutil.copy2(build / VMLINUX, folder / VMLINUX)
    shutil.copy2(build / _LOADER, folder / _LOADER)
    (folder / _SCRIPTS).mkdir(parents=True, exist_ok=True)
    for script in sorted(
        (build / _SCRIPTS).glob("*.py")
    ):  # links into the source, except a generated one
        shutil.copy2(script, folder / _SCRIPTS / script.name)


def of(bzimage: Path) -> Path | None:
    """Return the vmlinux stored with an image, None if there is none."""
    path = bzimage.with_name(VMLINUX)
    return path if path.is_file() else None
