"""Files that kernel options name: they are inputs of the image, so of its address."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import UserError
from labctl.kernels.hashed import Hashed
from labctl.kernels.kconfig import Option

_FIRMWARE, _FIRMWARE_FOLDER = "CONFIG_EXTRA_FIRMWARE", "CONFIG_EXTRA_FIRMWARE_DIR"
_USUAL_FIRMWARE = "/lib/firmware"
_INITRAMFS = "CONFIG_INITRAMFS_SOURCE"
_OF_ONE_FILE = (
    "CONFIG_SYSTEM_TRUSTED_KEYS",
    "CONFIG_SYSTEM_REVOCATION_KEYS",
    "CONFIG_SYSTEM_BLACKLIST_HASH_LIST",
    "CONFIG_MODULE_SIG_KEY",
    "CONFIG_BOOT_CONFIG_EMBED_FILE",
    "CONFIG_ACPI_CUSTOM_DSDT_FILE",
    "CONFIG_CFG80211_EXTRA_REGDB_KEYDIR",
    "CONFIG_UNUSED_KSYMS_WHITELIST",
)
_MADE_BY_MAKE = {"certs/signing_key.pem"}
_NO_FILE = "pkcs11:"


@dataclass(frozen=True, slots=True)
class _Named:
    option: Option
    path: Path

    def gone(self, what: str) -> UserError:
        option = self.option
        return UserError(
            f"{option.name} names {self.path}, {what}",
            where=f"{option.file}:{option.line}",
            hint=f'use the path of a file, or set {option.name}="" in a later fragment',
        )


def digest(options: Sequence[Option]) -> str:
    """Return the hash of all named files outside the source, an empty text if there are none.

    Raises:
        UserError: a file does not exist or cannot be read.
    """
    found = hashlib.sha256()
    outside = [each for each in _named(options) if each.path.is_absolute()]
    for each in outside:
        try:
            for line in _described(each.path, is_list=each.option.name == _INITRAMFS):
                found.update(line.encode("utf-8", "surrogateescape") + b"\0")
        except OSError as error:
            reason = f"which cannot be read: {error.filename}: {error.strerror}"
            raise each.gone(reason if error.filename != str(each.path) else _why(error)) from error
    return found.hexdigest() if outside else ""


def _why(error: OSError) -> str:
    missing = isinstance(error, FileNotFoundError)
    return "which does not exist" if missing else f"which cannot be read: {error.strerror}"


def check(options: Sequence[Option], *folders: Path) -> None:
    """Check that named files inside the source exist in one of `folders`.

    Raises:
        UserError: a file does not exist.
    """
    for each in _named(options):
        inside = not each.path.is_absolute() and str(each.path) not in _MADE_BY_MAKE
        if inside and not any((folder / each.path).exists() for folder in folders):
            raise each.gone("which does not exist in the source")


def _named(options: Sequence[Option]) -> list[_Named]:
    by_name = {option.name: option for option in options}
    return [
        _Named(by_name[name], path)
        for name, paths in _paths({name: _text(o.value) for name, o in by_name.items()}).items()
        for path in paths
    ]


def _text(value: str) -> str:
    """Return a Kconfig value without its quotes, an empty text if it is not a string."""
    inside = value[1:-1] if value.startswith('"') else ""
    return inside.replace('\\"', '"').replace("\\\\", "\\")


def _paths(values: Mapping[str, str]) -> dict[str, list[Path]]:
    found = {
        name: [Path(values[name])]
        for name in _OF_ONE_FILE
        if values.get(name) and not values[name].startswith(_NO_FILE)
    }
    found[_INITRAMFS] = [Path(word) for word in values.get(_INITRAMFS, "").split()]
    folder = Path(values.get(_FIRMWARE_FOLDER) or _USUAL_FIRMWARE)
    found[_FIRMWARE] = [folder / word for word in values.get(_FIRMWARE, "").split()]
    return {name: paths for name, paths in found.items() if paths}


def _described(path: Path, *, is_list: bool) -> Iterator[str]:
    """Yield all properties of a file or folder that may affect an image; raise OSError."""
    yield _line(path, str(path))
    if path.is_dir():
        for folder, folders, names in os.walk(path):
            folders.sort()
            for name in sorted([*folders, *names]):
                yield _line(Path(folder, name), str(Path(folder, name)))
    elif is_list and ".cpio" not in path.name:  # a description for usr/gen_init_cpio
        for inside in _listed(path.read_text("utf-8", "replace").splitlines()):
            yield _line(inside, str(inside))


def _line(path: Path, name: str) -> str:
    info = path.lstat()
    owner = f"{info.st_mode:o} {info.st_uid} {info.st_gid} {info.st_rdev}"
    if stat.S_ISLNK(info.st_mode):
        # usr/gen_init_cpio packs the link itself; the other options read its target.
        content = str(path.readlink()) + (Hashed.of(path).sha256 if path.is_file() else "")
    else:
        content = Hashed.of(path).sha256 if stat.S_ISREG(info.st_mode) else ""
    return f"{name}\0{owner}\0{content}"


def _listed(lines: Iterable[str]) -> Iterator[Path]:
    for line in lines:
        words = line.split()
        if len(words) > 2 and words[0] == "file":
            yield Path(words[2])
