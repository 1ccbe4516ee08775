"""Scratch and swap disks of guests: sparse files in the guest's folder.

The files are removed once QEMU has them open, so that their space is free again when QEMU
ends, however it ends.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from labctl import files, units
from labctl.errors import ConfigError, HostError
from labctl.lab.models import Lab
from labctl.lab.topology import Topology
from labctl.units import rough_size

SWAP = "swap"
_MODE = 0o600


@dataclass(frozen=True, slots=True)
class Scratch:
    """A disk: its name, which is also its serial number, its device in the guest, its size."""

    name: str
    device: str
    size_bytes: int

    @property
    def file(self) -> str:
        """The name of its file in the guest's folder."""
        return f"{self.name}.disk"


def disks_of(topology: Topology) -> list[Scratch]:
    """Return the scratch disks of a guest, then its swap disk."""
    sizes = {f"scratch{number}": size for number, size in enumerate(topology.disks)}
    if topology.swap and topology.swap.disk:
        sizes[SWAP] = topology.swap.disk
    # Linux names virtio disks in the order of QEMU's command line.
    named = zip("abcdefghijklmnopq", sizes.items(), strict=False)
    return [Scratch(name, f"/dev/vd{letter}", size) for letter, (name, size) in named]


def arguments(topology: Topology) -> list[str]:
    """Return QEMU's arguments; paths are relative to the guest's folder."""
    words: list[str] = []
    for disk in disks_of(topology):
        file = f"file={disk.file},format=raw,discard=unmap,if=none,id={disk.name}"
        words += ["-drive", file]
        words += ["-device", f"virtio-blk-pci,drive={disk.name},serial=labctl-{disk.name}"]
    return words


def create(folder: Path, topology: Topology) -> None:
    """Create the files, in place of those of an earlier guest.

    Raises:
        HostError: the disk is full, or its file system does not take such files.
    """
    for disk in disks_of(topology):
        path = folder / disk.file
        try:
            path.unlink(missing_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
            try:
                os.ftruncate(descriptor, disk.size_bytes)
            finally:
                os.close(descriptor)
        except OSError as error:
            what = f"disk of {rough_size(disk.size_bytes)} cannot be created: {error.strerror}"
            hint = "reduce `disks:` or `swap:` of the guest, or use another file system"
            raise HostError(what, where=str(path), hint=hint) from error


def remove(folder: Path, topology: Topology) -> None:
    """Remove the files; a running QEMU keeps its disks until it ends."""
    for disk in disks_of(topology):
        files.unlink(folder / disk.file)


def check_space(lab: Lab, topology: Topology, guests: int = 1) -> None:
    """Check that the disks of some guests, as large as they can grow, fit on the host's disk.

    Raises:
        ConfigError: they do not; names the line in lab.yaml.
    """
    size = guests * topology.disk_bytes
    folder = next(path for path in (lab.state, *lab.state.parents) if path.exists())
    free = files.free_bytes(folder) if size else 0
    if size <= free:
        return
    disks = units.counted(guests, "guest")
    what = f"disks of {disks} need {rough_size(size)}, but only {rough_size(free)} are free"
    name = next((name for name, one in lab.guests.items() if one == topology), "")
    key = "disks" if sum(topology.disks) * 2 > topology.disk_bytes else "swap"
    hint = f"the files are in {folder}: free disk space, or reduce `disks:` or `swap:`"
    raise ConfigError([lab.problem(("guests", name, key), what, hint)])
