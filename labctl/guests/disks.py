"""Read-only disks of guests: the roots of workloads, mounted at boot under an overlay in memory."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import HostError
from labctl.guests.copied import generated

# In the guest; each workload has a folder of its own below it.
MOUNTED = "/run/labctl-roots"
# Run by guest/init: in the initramfs, or in the programs folder.
_SCRIPT = "roots-start"
START = f"/etc/labctl/{_SCRIPT}"
# The files of workloads. A guest of virtme-ng has the host's root; its /run is in memory.
FILES: Mapping[str, str] = {"qemu": "/labctl", "virtme-ng": "/run/labctl-files"}
_SERIAL_DIGITS = 12  # the serial number of a virtio disk has at most 20 characters

_START = f"""\
root() {{
  disk=
  for one in /sys/block/vd*; do
    if [ "$(cat "$one/serial")" = "$2" ]; then disk=/dev/${{one##*/}}; fi
  done
  place={MOUNTED}/$1
  mkdir -p "$place/disk" "$place/memory" "$place/root"
  mount -t ext4 -o ro "$disk" "$place/disk"
  mount -t tmpfs -o mode=755 root "$place/memory"
  mkdir "$place/memory/upper" "$place/memory/work"
  layers="lowerdir=$place/disk,upperdir=$place/memory/upper,workdir=$place/memory/work"
  mount -t overlay -o "$layers" root "$place/root"
  for name in /proc /sys /dev "$files"; do
    mkdir -p "$place/root$name"
    mount -o rbind "$name" "$place/root$name"
  done
}}
mkdir -p "$files" /dev/shm
"""


@dataclass(frozen=True, slots=True)
class Disk:
    """An ext2, ext3 or ext4 file system in a file; `digest` is a hash of its content.

    `stamp` has the size, times and inode of the file when the digest was computed.
    """

    path: Path
    digest: str
    stamp: str

    @classmethod
    def of(cls, path: Path, digest: str) -> Disk:
        """Return a file as a disk; raises OSError."""
        return cls(path, digest, stamp_of(path))

    @property
    def serial(self) -> str:
        """The disk's serial number in the guest."""
        return f"labctl-{self.digest[:_SERIAL_DIGITS]}"

    def check(self) -> None:
        """Compare the file's present size, times and inode with those at the start.

        Raises:
            HostError: the file changed, or does not exist.
        """
        try:
            changed = stamp_of(self.path) != self.stamp
        except OSError as error:
            changed, what = True, f"root cannot be read: {error.strerror}"
        else:
            what = "root changed since the run started"
        if changed:
            raise HostError(what, where=str(self.path), hint="start a new run")


def stamp_of(path: Path) -> str:
    """Return what changes with a file's content, without reading it; raises OSError."""
    info = path.stat()
    return f"{info.st_size} {info.st_mtime_ns} {info.st_ctime_ns} {info.st_ino}"


def start_script(roots: Mapping[str, Disk], launcher: str) -> str:
    """Return the script that mounts roots in a launcher's guest, by the workloads' names."""
    head = f"#!/bin/sh\nset -e\nfiles={FILES[launcher]}\n{_START}"
    calls = (shlex.join(["root", name, disk.serial]) for name, disk in sorted(roots.items()))
    return "\n".join([head, *calls, ""])


def start_file(roots: Mapping[str, Disk], launcher: str, state: Path) -> dict[str, Path]:
    """Return that script by its path, in the initramfs or in the programs folder."""
    if not roots:
        return {}
    place = START if launcher == "qemu" else _SCRIPT
    return {place: generated(state, _SCRIPT, start_script(roots, launcher).encode())}


def mounted(workload: str) -> str:
    """Return the path in the guest of a workload's root."""
    return f"{MOUNTED}/{workload}/root"
