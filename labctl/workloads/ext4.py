"""Make ext4 images from folders, and look into images, with e2fsprogs and without root."""

from __future__ import annotations

import os
import re
import shutil
import struct
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from labctl import proc
from labctl.errors import CommandError, HostError
from labctl.units import MIB
from labctl.workloads.closure import Fault

_SECONDS = 1800.0
# Named one by one: the defaults of newer versions are not known to older kernels.
FEATURES = (
    "none,extent,filetype,sparse_super,large_file,huge_file,dir_index,dir_nlink,extra_isize,"
    "ext_attr,flex_bg"
)
_BLOCK = 4096
# Holes in the file; device nodes in /dev of a folder are not counted.
_SPARE_BYTES = 16 * MIB
_SPARE_INODES = 4096
PROGRAMS = ("mke2fs", "debugfs")
_SBIN = "/usr/sbin:/sbin"
_MOST_LINKS = 40
_TYPE = re.compile(r"^Inode: \d+ +Type: (\w+) +Mode: +([0-7]+)", re.MULTILINE)
_LISTED = re.compile(r"/\d+/([0-7]+)/(\d+)/(\d+)/([^/]+)/\d*/")
_FAST_LINK = re.compile(r'^Fast link dest: "(.*)"$', re.MULTILINE)
_SUPERBLOCK = 1024
_MAGIC = 0xEF53
_NEEDS_RECOVERY = 0x4
_64_BIT = 0x80


@dataclass(frozen=True, slots=True)
class Inode:
    """Mode or owner of a file in an image that differ from those of the copied file."""

    path: str
    field: str
    value: str


@dataclass(frozen=True, slots=True)
class Owned:
    """Mode, with the kind of file, and owner of a file in an image."""

    mode: int
    uid: int
    gid: int


def make(folder: Path, image: Path, content_bytes: int, files: int, uuid: str) -> None:
    """Write an ext4 file system with the content of a folder, which is only read.

    `content_bytes` is the size of its files, each rounded up to 4 KiB; `files` is their
    number, with folders and links.

    Raises:
        HostError: mke2fs is not installed or fails; the disk may be full.
    """
    size = content_bytes + content_bytes // 20 + files * 512 + _SPARE_BYTES
    words = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", FEATURES, "-b", str(_BLOCK), "-I", "256"]
    words += ["-m", "0", "-N", str(files + _SPARE_INODES), "-U", uuid]
    words += ["-E", f"hash_seed={uuid},root_owner=0:0,nodiscard"]
    image.unlink(missing_ok=True)
    try:
        _run([*words, "-d", folder, image, f"{size // 1024 + 1}k"])
    except CommandError as error:
        raise _failed(image, error.output) from error


def change(image: Path, inodes: Sequence[Inode]) -> None:
    """Set modes and owners in an image; no file of the host gets them.

    Raises:
        Fault: a path cannot be written for debugfs.
        HostError: debugfs fails.
    """
    if not inodes:
        return
    lines = [f"sif {_quoted(one.path)} {one.field} {one.value}\n" for one in inodes]
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", errors="surrogateescape") as script:
        script.writelines(lines)
        script.flush()
        try:
            said = _run(["debugfs", "-w", "-f", script.name, image])
        except CommandError as error:
            raise _failed(image, error.output) from error
    wrong = [line for line in said.splitlines() if not line.startswith(("debugfs ", "debugfs:"))]
    if wrong:
        raise _failed(image, wrong[0])


def check(image: Path, first: bytes) -> None:
    """Check a file that starts as ext2, ext3 or ext4 does.

    Raises:
        Fault: the file is too short, or was not unmounted.
    """
    low, log_size = struct.unpack_from("<I16xI", first, _SUPERBLOCK + 4)
    incompatible = struct.unpack_from("<I", first, _SUPERBLOCK + 96)[0]
    high = struct.unpack_from("<I", first, _SUPERBLOCK + 336)[0] if incompatible & _64_BIT else 0
    expected = (low | high << 32) * (1024 << min(log_size, 6))
    size = image.stat().st_size
    if size < expected:
        raise Fault(f"{image} is truncated: expected {expected} bytes, got {size}")
    if incompatible & _NEEDS_RECOVERY:
        what = f"{image} is mounted, or was not unmounted"
        raise Fault(what, "unmount it; `e2fsck` repairs a file system that was not unmounted")


def is_ext(first: bytes) -> bool:
    """Return whether a file starts as ext2, ext3 or ext4 does."""
    place = _SUPERBLOCK + 56
    return len(first) >= 2048 and struct.unpack_from("<H", first, place)[0] == _MAGIC


class Inside:
    """The files in an image; symbolic links are followed as the guest does."""

    def __init__(self, image: Path) -> None:
        self._image = image

    def find(self, program: str, folders: Iterable[str]) -> str | None:
        """Return the path of an executable without its links; a name is looked up in folders.

        None if there is none.
        """
        if "/" in program:
            return self._executable(program)
        found = (self._executable(f"{folder}/{program}") for folder in folders)
        return next((path for path in found if path is not None), None)

    def copy(self, path: str, to: Path) -> None:
        """Copy a file without owner and mode."""
        self._ask("dump", path, str(to))

    def copy_all(self, folder: Path) -> None:
        """Copy all files into an empty folder; as another user than root, without owners."""
        self._ask("rdump", "/", str(folder))

    def listed(self, folders: Sequence[str]) -> dict[str, Owned]:
        """Return modes and owners of what is in some folders, by path.

        Raises:
            Fault: a name has a line break.
        """
        found: dict[str, Owned] = {}
        lines = [f"ls -p {_quoted(folder)}\n" for folder in folders]
        folder = iter(folders)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", errors="surrogateescape") as script:
            script.writelines(lines)
            script.flush()
            try:
                said = _run(["debugfs", "-f", script.name, self._image], only_output=True)
            except CommandError as error:
                raise _failed(self._image, error.output) from error
        place = ""
        for line in said.splitlines():
            match = _LISTED.fullmatch(line)
            if line.startswith("debugfs: ls "):  # the command is repeated before its output
                place = next(folder)
            elif match is not None and match[4] not in (".", ".."):
                path = f"{place.rstrip('/')}/{match[4]}"
                found[path] = Owned(int(match[1], 8), int(match[2]), int(match[3]))
            elif match is None and line:
                raise Fault(f"a name in {place} of the root has a line break", "rename the file")
        return found

    def _executable(self, path: str) -> str | None:
        for _ in range(_MOST_LINKS):
            said = self._ask("stat", path)
            found = _TYPE.search(said)
            if found is None:
                return None
            if found[1] != "symlink":
                is_one = found[1] == "regular" and int(found[2], 8) & 0o111
                return path if is_one else None
            link = _FAST_LINK.search(said)
            target = link[1] if link else self._ask("cat", path)
            path = str(PurePosixPath(path).parent / target)
        return None

    def _ask(self, command: str, *arguments: str) -> str:
        try:
            words = " ".join([command, *map(_quoted, arguments)])
        except Fault:
            return ""
        try:
            return _run(["debugfs", "-R", words, self._image], only_output=True)
        except CommandError as error:
            raise _failed(self._image, error.output) from error


def _quoted(path: str) -> str:
    if "\n" in path:
        raise Fault(f"the name of {path!r} has a line break", "rename the file")
    return '"' + path.replace('"', '""') + '"'


def _run(words: Sequence[str | Path], *, only_output: bool = False) -> str:
    # These programs are in sbin, which is not on a user's PATH.
    search = os.environ.get("PATH", os.defpath) + os.pathsep + _SBIN
    program = shutil.which(str(words[0]), path=search)
    if program is None:
        hint = "install the Debian package e2fsprogs"
        raise HostError(f"{words[0]} is not installed: `root:` needs it", hint=hint)
    # A fixed time in the superblock, and no settings of the host.
    env = {"E2FSPROGS_FAKE_TIME": "1", "MKE2FS_CONFIG": os.devnull}
    words = [program, *words[1:]]
    done = proc.run(words, env=env, timeout_seconds=_SECONDS, is_output_logged=False)
    output = done.stdout.decode("utf-8", "surrogateescape")
    return output if only_output else output + done.stderr.decode("utf-8", "replace")


def _failed(image: Path, said: str) -> HostError:
    last = said.strip().splitlines()[-1:] or ["no message"]
    return HostError(f"root image cannot be made or read: {last[0]}", where=str(image))
