"""The files of a root: those of a folder, or of a tar archive, which is unpacked without root."""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from labctl.files import naming
from labctl.kernels.hashed import Hashed
from labctl.workloads.closure import Fault
from labctl.workloads.ext4 import Inode

_BLOCK = 4096
# The guest's own are mounted there.
_HIDDEN = frozenset(("dev", "proc", "sys"))
_BROUGHT = (stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR)
_DAMAGED = (tarfile.TarError, zlib.error, lzma.LZMAError)


@dataclass(slots=True)
class Tree:
    """A folder to make an image of; `notes` are modes and owners that its files lack, by path."""

    folder: Path
    content_bytes: int = 0
    files: int = 0
    notes: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, size_bytes: int) -> None:
        """Count a file, a folder or a link."""
        self.files += 1
        self.content_bytes += -(-size_bytes // _BLOCK) * _BLOCK

    @property
    def inodes(self) -> list[Inode]:
        """What to set in the image."""
        return [
            Inode(f"/{path}", name, value)
            for path, values in self.notes.items()
            for name, value in values.items()
        ]


def walk(folder: Path) -> Iterator[tuple[str, Path, os.stat_result]]:
    """Yield the files, folders and links of a root, sorted, by path in it.

    Raises:
        Fault: a file is a device node, a FIFO or a socket, or on another file system.
        OSError: a folder cannot be read.
    """
    device = folder.stat().st_dev
    ahead = [("", folder)]
    while ahead:
        inside, place = ahead.pop()
        names = sorted(os.listdir(place))  # noqa: PTH208 - the names only
        for name in names:
            path, one = f"{inside}{name}", place / name
            info = one.lstat()
            if info.st_dev != device:
                what = f"another file system is mounted at {one}"
                raise Fault(what, "unmount it, or use a copy of the folder")
            if stat.S_ISDIR(info.st_mode) and path not in _HIDDEN:
                ahead.append((f"{path}/", one))
            elif stat.S_IFMT(info.st_mode) not in _BROUGHT:
                raise Fault(f"{one} is {_kind(info.st_mode)}", _LEAVE_OUT)
            yield path, one, info


_LEAVE_OUT = "expected files, folders and links outside /dev; remove it, or use a copy without it"


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device node")


def stamp(folder: Path) -> str:
    """Return what changes with the files of a folder, without reading them; raises as `walk`."""
    found = hashlib.sha256()
    for path, _, info in walk(folder):
        words = (path, info.st_mode, info.st_uid, info.st_gid, info.st_size, info.st_mtime_ns)
        found.update(repr((*words, info.st_ctime_ns, info.st_ino)).encode())
    return found.hexdigest()


def digest(folder: Path) -> str:
    """Return a hash of the names, modes, owners and bytes of a folder's files.

    Raises:
        Fault: a file cannot be part of a root.
        OSError: a file cannot be read.
    """
    found = hashlib.sha256()
    for path, one, info in walk(folder):
        content = ""
        if stat.S_ISLNK(info.st_mode):
            content = str(one.readlink())
        elif stat.S_ISREG(info.st_mode):
            content = Hashed.of(one).sha256
        words = (path, info.st_mode, _owner(info.st_uid), _group(info.st_gid), content)
        found.update(repr(words).encode())
    return found.hexdigest()


def of_folder(folder: Path) -> Tree:
    """Return a folder; files of the user who runs labctl become those of root.

    Raises:
        Fault: a file cannot be part of a root.
        OSError: a folder cannot be read.
    """
    tree = Tree(folder)
    for path, _, info in walk(folder):
        tree.add(info.st_size)
        notes = {}
        if _owner(info.st_uid) != info.st_uid:
            notes["uid"] = "0"
        if _group(info.st_gid) != info.st_gid:
            notes["gid"] = "0"
        if notes:
            tree.notes[path] = notes
    return tree


def _owner(number: int) -> int:
    return 0 if number == os.geteuid() else number


def _group(number: int) -> int:
    return 0 if number == os.getegid() else number


def unpack(archive: Path, folder: Path) -> Tree:
    """Unpack a tar archive into an empty folder, links last; return it.

    The files belong to the user, without set-user-ID bits: the archive's modes and owners are
    set in the image. What is in /dev, /proc and /sys is left out.

    Raises:
        Fault: the archive is damaged, or a member cannot be part of a root.
        OSError: the disk is full.
    """
    tree, links, folders = Tree(folder), list[_Member](), dict[str, tarfile.TarInfo]()
    try:
        with tarfile.open(archive) as file:
            for info in file:
                member = _Member(archive, info)
                if member.path and not member.is_hidden:
                    _unpack(file, member, tree, links, folders)
    except (*_DAMAGED, EOFError, ValueError) as error:
        raise Fault(f"{archive} is a damaged archive: {error}") from error
    for member in links:
        _link(folder, member)
    for path, info in sorted(folders.items(), reverse=True):
        _settle(folder / path, info)
    for _, _, status in walk(folder):
        tree.add(status.st_size)
    return tree


def _unpack(
    file: tarfile.TarFile,
    member: _Member,
    tree: Tree,
    links: list[_Member],
    folders: dict[str, tarfile.TarInfo],
) -> None:
    info = member.info
    if info.isdir():
        folders[member.path] = info
        _place(tree.folder, member).mkdir(exist_ok=True)
    elif info.issym() or info.islnk():
        links.append(member)
    elif info.isreg():
        path = _place(tree.folder, member)
        with naming(path), path.open("wb") as to:
            content = file.extractfile(info)
            assert content is not None
            shutil.copyfileobj(content, to)
        _settle(tree.folder / member.path, info)
    else:
        raise Fault(f"{member.archive}: {member.path} is {member.kind}", _LEAVE_OUT)
    tree.notes.pop(member.path, None)
    if not info.islnk():
        tree.notes[member.path] = _lacking(info)


class _Member:
    """A member of an archive with its path in the root, empty for the root itself."""

    def __init__(self, archive: Path, info: tarfile.TarInfo) -> None:
        self.archive, self.info = archive, info
        self.path = _relative(archive, info.name)

    @property
    def is_hidden(self) -> bool:
        return self.path.split("/")[0] in _HIDDEN

    @property
    def kind(self) -> str:
        kind = "a FIFO" if self.info.isfifo() else "a device node"
        return kind if self.info.isdev() else "a special file"


def _relative(archive: Path, name: str) -> str:
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        what = f"{archive}: {name} leads outside the root"
        raise Fault(what, "expected relative names without ..: `tar -C FOLDER -cf root.tar .`")
    return "/".join(PurePosixPath(name).parts)


def _place(folder: Path, member: _Member) -> Path:
    """Return where to unpack a member; later members replace earlier ones."""
    place = folder / member.path
    # There are no links yet, so no part of the path leads outside.
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(place) and not (member.info.isdir() and place.is_dir()):
            place.unlink()
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        what = f"{member.archive}: {member.path} is a file and a folder"
        raise Fault(what) from error
    return place


def _link(folder: Path, member: _Member) -> None:
    place, info = folder / member.path, member.info
    above: Sequence[Path] = [one for one in place.parents if one != folder]
    if any(one.is_symlink() for one in above if one.is_relative_to(folder)):
        raise Fault(f"{member.archive}: {member.path} is behind a symbolic link")
    _place(folder, member)
    if info.issym():
        place.symlink_to(info.linkname)
        os.utime(place, (info.mtime, info.mtime), follow_symlinks=False)
        return
    target = folder / _relative(member.archive, info.linkname)
    behind = any(one.is_symlink() for one in target.parents if one.is_relative_to(folder))
    if behind or target.is_dir() or not os.path.lexists(target):
        raise Fault(f"{member.archive}: {member.path} links to {info.linkname}, which is missing")
    os.link(target, place, follow_symlinks=False)


def _settle(place: Path, info: tarfile.TarInfo) -> None:
    place.chmod(_safe_mode(info))
    os.utime(place, (info.mtime, info.mtime))


def _safe_mode(info: tarfile.TarInfo) -> int:
    return (info.mode & 0o777) | (0o700 if info.isdir() else 0o600)


def _lacking(info: tarfile.TarInfo) -> dict[str, str]:
    """Return what the unpacked file lacks: its owner, and bits of its mode."""
    found = {}
    if info.uid != os.geteuid():
        found["uid"] = str(info.uid)
    if info.gid != os.getegid():
        found["gid"] = str(info.gid)
    if not info.issym() and info.mode & 0o7777 != _safe_mode(info):
        kind = stat.S_IFDIR if info.isdir() else stat.S_IFREG
        found["mode"] = f"0{kind | info.mode & 0o7777:o}"
    return found
