"""The roots of workloads: a folder, tar archive or disk image as a read-only disk for guests."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import uuid
from pathlib import Path

from labctl import files, proc
from labctl.arch import Architecture
from labctl.errors import CommandError, HostError
from labctl.guests.disks import Disk, stamp_of
from labctl.kernels.hashed import Hashed
from labctl.lab.models import Lab, Workload
from labctl.lab.paths import absolute, relative_hint
from labctl.lab.state import StateFolder
from labctl.workloads import bootstrap, elf, ext4, trees
from labctl.workloads.closure import Fault, shebang
from labctl.workloads.supply import SEARCH
from labctl.workloads.trees import Tree

# A change of what is made from the same content needs a new number.
_FORMAT = "1"
_DIGITS = 32
_SECONDS = 1800.0
_FIRST_BYTES = 128 * 1024
# Formats that are recognized, to say so: offset and bytes.
_OTHERS = {
    "an XFS file system": (0, b"XFSB"),
    "a Btrfs file system": (0x10040, b"_BHRfS_M"),
    "a squashfs file system": (0, b"hsqs"),
    "an ISO 9660 image": (0x8001, b"CD001"),
    "a VMDK image": (0, b"KDMV"),
    "a VHDX image": (0, b"vhdxfile"),
    "a Zstandard archive": (0, b"\x28\xb5\x2f\xfd"),
}
_EXPECTED = "expected a folder, a tar archive, or a raw or qcow2 image of ext2, ext3 or ext4"
_QCOW2 = b"QFI\xfb"
_QEMU_IMG = "qemu-img"
_PARTITION_HINT = (
    "expected a file system without partitions: `fdisk -l` prints the start of the root partition, "
    "`dd skip=` copies it"
)


def root(lab: Lab, workload: Workload, arch: Architecture) -> Disk:
    """Return the root of a workload, which has one; it is made unless its content is unchanged.

    The user's files are only read.

    Raises:
        Fault: the root does not exist, has an unknown format, or cannot be a root.
        HostError: a tool is missing or fails, or the disk is full.
    """
    text = workload.root or ""
    store = StateFolder(lab.state).roots
    if bootstrap.is_debian(text):
        path = bootstrap.archive(text, workload.packages, store, arch)
    else:
        path = absolute(lab.root, text)
    try:
        store.mkdir(parents=True, exist_ok=True)
        disk = _from_folder(path, store) if path.is_dir() else _from_file(path, store, lab)
    except OSError as error:
        if error.filename is None or Path(str(error.filename)).is_relative_to(store):
            what = f"root cannot be made: {error.strerror or error}"
            raise HostError(what, where=str(error.filename or store)) from error
        raise Fault(
            f"cannot read {error.filename}: {error.strerror}",
            "labctl reads a root as its user; a tar archive has the files of all users",
        ) from error
    check_program(disk, "/bin/sh", arch)
    return disk


def programs_for(lab: Lab, workload: Workload) -> tuple[str, ...]:
    """Return the programs of this host that make the root of a workload, if it has one."""
    text = workload.root
    if text is None:
        return ()
    if bootstrap.is_debian(text):
        return (*ext4.PROGRAMS, bootstrap.PROGRAM)
    try:
        with absolute(lab.root, text).open("rb") as file:
            is_qcow2 = file.read(len(_QCOW2)) == _QCOW2
    except OSError:  # a folder, or an error that the run reports
        is_qcow2 = False
    return (*ext4.PROGRAMS, *((_QEMU_IMG,) if is_qcow2 else ()))


def check_program(disk: Disk, program: str, arch: Architecture) -> None:
    """Check that a root has a program that a guest can start.

    Raises:
        Fault: the program, its loader or its interpreter is missing, or it is for another
            architecture.
        HostError: debugfs is not installed or fails.
    """
    inside = ext4.Inside(disk.path)
    path = inside.find(program, SEARCH)
    if path is None:
        raise Fault(f"{program} not found in the root", f"{disk.path} has the root's files")
    with tempfile.NamedTemporaryFile() as copy:
        place = Path(copy.name)
        inside.copy(path, place)
        header = elf.read(place)
        place.chmod(0o700)
        needed = header.interpreter if header else shebang(place)
    if header is not None and header.machine != arch.elf_machine:
        raise Fault(f"{path} in the root is an {header.arch} program, but the guest is {arch.name}")
    if needed is not None and inside.find(needed, SEARCH) is None:
        what = f"{path} in the root needs {needed}, which is missing there"
        raise Fault(what, "install it in the root")


def _from_folder(folder: Path, store: Path) -> Disk:
    if folder.resolve() == Path("/"):
        hint = "name a folder of its own; guests of `launcher: virtme-ng` have the host's root"
        raise Fault("the root of this host cannot be a root of guests", hint)
    if not os.path.lexists(folder / "bin"):  # before gigabytes are read
        raise Fault(f"{folder} has no bin/sh", "expected the root of a file system")
    before = trees.stamp(folder)
    memory = store / "folders.json"
    known = files.read_json(memory)
    entry = known.get(str(folder))
    if isinstance(entry, dict) and entry.get("stamp") == before:
        digest = str(entry["digest"])
    else:
        digest = trees.digest(folder)
    image = _image(store, digest)
    if not image.exists():
        _make(trees.of_folder(folder), image, digest)
        if trees.stamp(folder) != before:
            image.unlink()
            raise Fault(f"{folder} changed while it was read", "run the command again")
    now = {"stamp": before, "digest": digest}
    if entry != now:
        files.write_json(memory, known | {str(folder): now})
    return Disk.of(image, digest)


def _from_file(path: Path, store: Path, lab: Lab) -> Disk:
    if not path.is_file():
        kind = "is a special file" if path.exists() else "not found"
        raise Fault(f"{path} {kind}", f"{_EXPECTED}; {relative_hint(lab.root)}")
    with path.open("rb") as file:
        first = file.read(_FIRST_BYTES)
    kind = _kind(path, first)
    if kind == "ext4":
        ext4.check(path, first)
    before = stamp_of(path)
    digest = Hashed.remembered(path, store / "files.json").sha256
    if kind == "ext4":
        return Disk(path, digest, before)
    image = _image(store, digest)
    if not image.exists():
        if kind == "qcow2":
            _convert(path, image)
        else:
            _make_from_tar(path, image, digest)
    return Disk.of(image, digest)


def _kind(path: Path, first: bytes) -> str:
    """Return ext4, qcow2 or tar; raise Fault for another format."""
    if ext4.is_ext(first):
        return "ext4"
    if first.startswith(_QCOW2):
        return "qcow2"
    for name, (offset, magic) in _OTHERS.items():
        if first[offset : offset + len(magic)] == magic:
            raise Fault(f"{path} is {name}", _EXPECTED)
    if first[510:512] == b"\x55\xaa":
        raise Fault(f"{path} has a partition table", _PARTITION_HINT)
    if first.strip(b"\0") and tarfile.is_tarfile(path):  # an archive without files is all zeros
        return "tar"
    raise Fault(f"{path} has an unknown format", _EXPECTED)


def _image(store: Path, digest: str) -> Path:
    return store / f"{digest[:_DIGITS]}-{_FORMAT}.ext4"


def _make(tree: Tree, image: Path, digest: str) -> None:
    name = str(uuid.UUID(digest[:32]))
    with files.replacing(image, is_lasting=False) as partial:
        ext4.make(tree.folder, partial, tree.content_bytes, tree.files, name)
        ext4.change(partial, tree.inodes)


def _make_from_tar(archive: Path, image: Path, digest: str) -> None:
    folder = files.unfinished(image)
    folder.mkdir(mode=0o700)
    try:
        _make(trees.unpack(archive, folder), image, digest)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _convert(path: Path, image: Path) -> None:
    """Write the raw image of a qcow2 image, which e2fsprogs can read."""
    if shutil.which(_QEMU_IMG) is None:
        hint = "install the Debian package qemu-utils, or use a raw image"
        raise HostError(f"qemu-img is not installed: {path} is a qcow2 image", hint=hint)
    with files.replacing(image, is_lasting=False) as partial:
        try:
            words = (_QEMU_IMG, "convert", "-f", "qcow2", "-O", "raw", path, partial)
            proc.run(words, timeout_seconds=_SECONDS)
        except CommandError as error:
            raise Fault(f"{path}: qemu-img cannot read it: {error.last_line}") from error
        with partial.open("rb") as file:
            first = file.read(_FIRST_BYTES)
        if _kind(path, first) != "ext4":
            raise Fault(f"{path} has no ext2, ext3 or ext4 file system", _EXPECTED)
        ext4.check(partial, first)
