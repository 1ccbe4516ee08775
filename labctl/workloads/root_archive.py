"""The root of a workload as an archive for targets, which have no disk for it."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import tarfile
from pathlib import Path, PurePosixPath

from labctl import files
from labctl.guests.disks import Disk
from labctl.workloads import ext4
from labctl.workloads.closure import Fault
from labctl.workloads.ext4 import Owned

# A change of what is made from the same disk needs a new number.
_FORMAT = "1"
_DIGITS = 32
_LEVEL = 1  # the network is faster than a better compression
# The target's own are mounted there.
_HIDDEN = frozenset(("/dev", "/proc", "/sys", "/lost+found"))


def archive_of(disk: Disk, store: Path) -> Path:
    """Return the compressed tar archive with the files of a disk; made once, without root.

    Modes, owners and times are those in the disk; hard links become copies, and extended
    attributes are lost.

    Raises:
        Fault: a file is a device node, a FIFO or a socket, or its name has a line break.
        HostError: debugfs is not installed or fails, or the host's disk is full.
    """
    path = store / f"{disk.digest[:_DIGITS]}-{_FORMAT}.tar.gz"
    if path.is_file():
        return path
    folder = files.unfinished(path)
    partial = files.unfinished(path)
    folder.mkdir(mode=0o700)
    try:
        inside = ext4.Inside(disk.path)
        inside.copy_all(folder)
        _pack(inside, folder, partial)
        partial.replace(path)
    finally:
        files.unlink(partial)
        _remove(folder)
    return path


def _pack(inside: ext4.Inside, folder: Path, to: Path) -> None:
    places = []
    for place, below, _ in os.walk(folder):
        Path(place).chmod(0o700)
        inner = PurePosixPath("/", Path(place).relative_to(folder))
        below[:] = [name for name in below if str(inner / name) not in _HIDDEN]
        places.append(str(inner))
    # No name and no time: the same disk gives the same bytes.
    with (
        to.open("wb") as raw,
        gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as file,
    ):
        for path, owned in sorted(inside.listed(places).items()):
            if path not in _HIDDEN:
                _add(folder / path[1:], path, owned, file)


def _add(place: Path, path: str, owned: Owned, file: tarfile.TarFile) -> None:
    info = _info(place, path, owned)
    if not info.isreg():
        file.addfile(info)
        return
    place.chmod(0o600)
    with place.open("rb") as content:
        file.addfile(info, content)


def _info(place: Path, path: str, owned: Owned) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path[1:])
    info.mode, info.uid, info.gid = stat.S_IMODE(owned.mode), owned.uid, owned.gid
    if not os.path.lexists(place):
        raise Fault(f"{path} in the root is not a file, a folder or a link", "remove it")
    status = place.lstat()
    info.mtime = int(status.st_mtime)
    if stat.S_ISLNK(status.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, str(place.readlink())
    elif stat.S_ISDIR(status.st_mode):
        info.type = tarfile.DIRTYPE
    else:
        info.size = status.st_size
    return info


def _remove(folder: Path) -> None:
    for place, _, _ in os.walk(folder):
        Path(place).chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
