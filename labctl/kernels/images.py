"""Images on disk: addresses, folders, and built images that the user provides."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from labctl import files
from labctl.arch import ARCHITECTURES, ARM64, X86_64, Architecture, ArchName
from labctl.errors import HostError, UserError
from labctl.files import read_json, write_json
from labctl.kernels import symbols
from labctl.kernels.configuration import Configuration
from labctl.kernels.hashed import Hashed
from labctl.kernels.make import Make
from labctl.lab.models import Kernel
from labctl.lab.source_kinds import forms

# To be increased when the same inputs would give a different image.
_BUILDER = 3
_RECORD = "image.json"
_LOG = "build.log"
_TEXT_FIELDS = ("hash", "source_hash", "release", "compiler")
_HASHES = ("bzimage_sha256", "config_sha256")
_SYMBOLS_HASH = "vmlinux_sha256"


@dataclass(frozen=True, slots=True)
class Image:
    """A built or given kernel; `hash` is the hash of all its inputs.

    `bzimage` is the bootable file, of arm64 the file Image. The SHA-256 of it and of the
    config are empty before the build. `tools_hash` is the hash of the compiler's programs,
    `files_hash` that of the files that options name. `commit` is the commit of a source
    from git, `subject` its subject; other commits with the same tree give the same image.
    `notes` are sentences on what became of the kernel's configuration.
    """

    kernel: str
    bzimage: Path
    hash: str
    source_hash: str
    series_hash: str | None
    patch_hashes: tuple[str, ...]
    config: Path | None
    release: str
    compiler: str
    arch: ArchName = X86_64.name
    bzimage_sha256: str = field(default="", compare=False)
    config_sha256: str = field(default="", compare=False)
    tools_hash: str = field(default="", compare=False)
    files_hash: str = field(default="", compare=False)
    commit: str = field(default="", compare=False)
    subject: str = field(default="", compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)

    def files(self) -> tuple[Hashed, ...]:
        """Return the files with a known hash."""
        both = ((self.bzimage, self.bzimage_sha256), (self.config, self.config_sha256))
        return tuple(Hashed(path, digest) for path, digest in both if path and digest)


def address(image: Image, configuration: Configuration, result: str = "") -> str:
    """Return the hex hash of all inputs of an image.

    `result` is the hash of the source with the series, if it is known: a branch and its
    commits as a series give the same image.
    """
    options = configuration.options
    content: dict[str, object] = {
        "builder": _BUILDER,
        "architecture": ARCHITECTURES[image.arch].kbuild,
        "source": result or image.source_hash,
        "patches": () if result else image.patch_hashes,
        "kconfig": sorted((o.name, o.value) for o in options),
        "compiler": image.compiler,
    }
    # Kconfig sets the last named member of a choice, so the order matters too.
    order = [o.name for o in sorted(options, key=lambda o: o.rank) if o.value == "y"]
    if order != sorted(order):
        content["order"] = order
    content |= configuration.address()
    content |= {"tools": image.tools_hash} if image.tools_hash else {}
    content |= {"files": image.files_hash} if image.files_hash else {}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load(folder: Path, kernel: str) -> Image | None:
    """Return the image that was built in a folder, None if there is none or it is damaged."""
    record = _built(folder)
    if record is None or any(not file.holds() for file in _recorded(folder, record)):
        return None
    text = {name: str(record[name]) for name in _TEXT_FIELDS}
    series, patches = record["series_hash"], record["patch_hashes"]
    bzimage, config = (file.path for file in _recorded(folder, record))
    return Image(
        kernel=kernel,
        bzimage=bzimage,
        series_hash=None if series is None else str(series),
        patch_hashes=_texts(patches),
        config=config,
        arch=ARCHITECTURES[str(record.get("arch", X86_64.name))].name,
        bzimage_sha256=str(record["bzimage_sha256"]),
        config_sha256=str(record["config_sha256"]),
        notes=_texts(record.get("notes")),
        **text,
    )


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


def damaged(folder: Path) -> list[Path]:
    """Return the damaged files of the image that was built in a folder."""
    record = _built(folder)
    files = () if record is None else _recorded(folder, record)
    return [file.path for file in files if not file.holds()]


def _built(folder: Path) -> dict[str, object] | None:
    record = read_json(folder / _RECORD)
    known = record.keys() >= {*_TEXT_FIELDS, "series_hash", "patch_hashes", *_HASHES}
    return record if record.get("state") == "built" and known else None


def _recorded(folder: Path, record: dict[str, object]) -> tuple[Hashed, Hashed]:
    bzimage = Hashed(folder / str(record.get("bzimage")), str(record["bzimage_sha256"]))
    return bzimage, Hashed(folder / "config", str(record["config_sha256"]))


def begin(folder: Path, image: Image) -> Path:
    """Record that a build started, so that a kill leaves a record; return the log's path."""
    files.remove(folder)
    files.make_folder(folder)
    content = asdict(image) | {"bzimage": None, "config": None, "state": "building"}
    write_json(folder / _RECORD, content | {"began_at": _now()})
    log = folder / _LOG
    log.touch()
    return log


def fail(folder: Path, why: str) -> None:
    """Record that the build failed; the log is kept."""
    write_json(folder / _RECORD, read_json(folder / _RECORD) | {"state": "failed", "why": why})


def publish(folder: Path, image: Image, make: Make, seconds: float) -> Image:
    """Copy the result of a build; the record is written last and makes the image valid."""
    shutil.copy2(make.tree.build / ".config", folder / "config")
    bzimage = folder / make.arch.image.name
    shutil.copy2(make.tree.build / make.arch.image, bzimage)
    for path in (bzimage, folder / "config"):
        files.sync(path)
    symbols.keep(make.tree.build, folder)
    built = replace(
        image,
        bzimage=bzimage,
        config=folder / "config",
        release=make.release(),
        bzimage_sha256=Hashed.of(bzimage).sha256,
        config_sha256=Hashed.of(folder / "config").sha256,
    )
    record = read_json(folder / _RECORD) | {
        "state": "built",
        "release": built.release,
        "bzimage": bzimage.name,
        "config": "config",
        "bzimage_sha256": built.bzimage_sha256,
        "config_sha256": built.config_sha256,
        "notes": list(image.notes),
        "warnings": make.warnings(),
        **_hash_of_symbols(bzimage),
        "seconds": round(seconds, 3),
    }
    write_json(folder / _RECORD, record)
    return built


def _hash_of_symbols(bzimage: Path) -> dict[str, str]:
    vmlinux = symbols.of(bzimage)
    return {} if vmlinux is None else {_SYMBOLS_HASH: Hashed.of(vmlinux).sha256}


def check_symbols(vmlinux: Path) -> None:
    """Compare the vmlinux of an image with its hash, if the image's record has one.

    Raises:
        HostError: the file changed.
    """
    expected = read_json(vmlinux.with_name(_RECORD)).get(_SYMBOLS_HASH)
    if expected is None or Hashed(vmlinux, str(expected)).holds():
        return
    raise HostError(
        "file changed since it was built: gdb would show wrong symbols",
        where=str(vmlinux),
        hint=f"`rm -r {shlex.quote(str(vmlinux.parent))}`, then `labctl up` builds it again",
    )


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def given(kernel: Kernel) -> Image:
    """Return the image of `image:PATH`, with the config found in the same folder.

    Raises:
        UserError: it cannot be read, is not an image of the kernel's architecture, or
            the kernel has a series or kconfig fragments.
    """
    path = Path(kernel.source.partition(":")[2]).absolute()
    if kernel.stack or kernel.kconfig:
        raise UserError(
            f"kernel {kernel.name} is a built image: `series:` and `kconfig:` are not supported",
            hint=f"use a source to build from: {forms(built=True)}",
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"image cannot be read: {error.strerror}", where=str(path)) from error
    release = _RELEASE[kernel.arch](content)
    if release is None:
        raise _no_image(path, content, ARCHITECTURES[kernel.arch])
    digest = hashlib.sha256(content).hexdigest()
    beside = (f"{path.name}.config", f"config-{path.name.partition('-')[2]}", f"config-{release}")
    configs = [path.with_name(name) for name in beside]
    config = next((c for c in configs if c.is_file()), None)
    return Image(
        kernel=kernel.name,
        bzimage=path,
        hash=digest,
        source_hash=digest,
        series_hash=None,
        patch_hashes=(),
        config=config,
        release=release,
        compiler="",
        arch=kernel.arch,
        bzimage_sha256=digest,
        config_sha256=Hashed.of(config).sha256 if config else "",
    )


def _no_image(path: Path, content: bytes, arch: Architecture) -> UserError:
    """Return the error for a file that is not a bootable image of the architecture."""
    other = next((name for name, release in _RELEASE.items() if release(content)), None)
    if other:
        what = f"expected an image for {arch.name}, got one for {other}"
        return UserError(
            what, where=str(path), hint=f"add `arch: {other}` to the kernel in lab.yaml"
        )
    return UserError(
        f"file is not {arch.image_format}",
        where=str(path),
        hint=f"use {arch.image} of a build, or a distribution's /boot/vmlinuz-*",
    )


def _release_x86(content: bytes) -> str | None:
    """Return the release in a bzImage, None if it is not a bzImage.

    Documentation/x86/boot.rst: kernel_version at 0x20e points to text, less 0x200.
    """
    if content[0x202:0x206] != b"HdrS":
        return None
    start = int.from_bytes(content[0x20E:0x210], "little") + 0x200
    text = content[start : start + 200].split(b"\0", 1)[0].decode("ascii", "replace")
    return text.split(" ", 1)[0]


def _release_arm64(content: bytes) -> str | None:
    """Return the release in an arm64 Image, None if it is not an Image.

    Documentation/arm64/booting.rst: the word at 56 is a magic number. The release is in
    the kernel's banner, as an Image is not compressed.
    """
    if content[56:60] != b"ARM\x64":
        return None
    found = re.search(rb"Linux version (\S+) \(", content)
    return found[1].decode("ascii", "replace") if found else "unknown"


_RELEASE: dict[str, Callable[[bytes], str | None]] = {
    X86_64.name: _release_x86,
    ARM64.name: _release_arm64,
}
