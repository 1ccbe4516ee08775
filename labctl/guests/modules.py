"""Modules that guests need of a kernel that labctl did not build: a distribution's.

They come from lib/modules/RELEASE, as `make modules_install` and packages install it, and are
loaded by the initramfs before roots are mounted and the SSH server starts.
"""

from __future__ import annotations

import gzip
import lzma
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from labctl import files as disk
from labctl import proc
from labctl.errors import CommandError, UserError
from labctl.guests import needs
from labctl.guests.initramfs import source_folder
from labctl.kernels import kconfig
from labctl.kernels.images import Image
from labctl.lab.entries import Defaults
from labctl.lab.state import StateFolder

_START = "/etc/labctl/modules-start"
_SECONDS = 60.0
_NAME = re.compile(r"(?P<name>.+)\.ko(?P<packed>\.(xz|gz|zst))?")


def folder_of(image: Image) -> Path | None:
    """Return the folder with the modules of an image, None if there is none.

    It is below the image's folder (`INSTALL_MOD_PATH`), beside boot/, or in the host's root.
    """
    beside = (image.bzimage.parent, image.bzimage.parent.parent, Path("/"))
    folders = (place / "lib/modules" / image.release for place in beside)
    return next((folder for folder in folders if folder.is_dir()), None)


def loadable(image: Image, options: Iterable[str]) -> set[str]:
    """Return those of some options whose module is in the image's folder of modules."""
    folder = folder_of(image)
    if folder is None:
        return set()
    known = _modules(folder)
    return {option for option in options if needs.MODULES.get(option) in known}


def files(
    state: Path, images: Iterable[Image], defaults: Defaults, more: Sequence[str] = ()
) -> dict[str, Path]:
    """Return the files for the initramfs that load what the guests need, by guest path.

    `more` are options whose modules are loaded, too.

    Raises:
        UserError: a module is damaged, or one that it depends on is missing.
        HostError: modinfo or zstd is not installed.
    """
    found: dict[str, Path] = {}
    for image in images:
        config = kconfig.read_values(image.config) or {}
        options = needs.options(defaults, image.arch, more)
        wanted = [option for option in options if config.get(option) == "m"]
        folder = folder_of(image)
        if not wanted or folder is None:
            continue
        known = _modules(folder)
        names = [n for n in (needs.MODULES.get(option) for option in wanted) if n in known]
        for number, module in enumerate(_in_order(known, names)):
            place = f"/lib/modules/{image.release}/labctl/{number:02}-{_name(module)}.ko"
            found[place] = _unpacked(state, module)
    return found | {_START: source_folder() / "modules" / "start.sh"} if found else {}


def _modules(folder: Path) -> dict[str, Path]:
    """Return the module files of a folder by the names that the kernel gives them."""
    return {
        _name(path): path for path in sorted(folder.rglob("*.ko*")) if _NAME.fullmatch(path.name)
    }


def _name(path: Path) -> str:
    found = _NAME.fullmatch(path.name)
    return (found["name"] if found else path.name).replace("-", "_")


def _in_order(known: Mapping[str, Path], names: Sequence[str]) -> list[Path]:
    """Return the files of modules and of all that they depend on, these first."""
    order: dict[str, Path] = {}

    def add(name: str, path: Path) -> None:
        for needed in _depends(path):
            if needed not in known:
                what = f"module {name} depends on {needed}, which is missing"
                raise UserError(what, where=str(path), hint="install the modules again")
            if needed not in order:
                add(needed, known[needed])
        order[name] = path

    for name in names:
        if name not in order:
            add(name, known[name])
    return list(order.values())


def _depends(path: Path) -> list[str]:
    try:
        done = proc.run(["modinfo", "-F", "depends", path], timeout_seconds=_SECONDS)
    except CommandError as error:
        raise UserError(f"module cannot be read: {error.output}", where=str(path)) from error
    return [name.replace("-", "_") for name in done.text.strip().split(",") if name]


def _unpacked(state: Path, path: Path) -> Path:
    """Return a module's file for insmod: uncompressed."""
    suffix = path.suffix
    try:
        if suffix == ".ko":
            return path
        content = path.read_bytes()
        if suffix == ".xz":
            content = lzma.decompress(content)
        elif suffix == ".gz":
            content = gzip.decompress(content)
        else:
            done = proc.run(["zstd", "-dc"], stdin=content, timeout_seconds=_SECONDS)
            content = done.stdout
    except (lzma.LZMAError, zlib.error, EOFError, OSError, CommandError) as error:
        raise UserError(f"module cannot be unpacked: {error}", where=str(path)) from error
    return disk.store(StateFolder(state).initramfs, "module", content, ".ko")
