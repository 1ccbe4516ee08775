"""The roots of workloads on a target: unpacked into memory at each boot. Pure."""

from __future__ import annotations

from collections.abc import Sequence

_MOUNTED = "/run/labctl/roots"
_FILES = "/run/labctl/files"
_PACKED = ".labctl.tar.gz"
# What the target must have.
NEEDED = ("chroot", "mount", "tar")

# A file system of its own: /run of a target is often limited to a tenth of the memory.
_PREPARE = """\
set -e
mkdir -p "$1"
mount -t tmpfs -o mode=755 root "$1"
"""
_UNPACK = """\
set -e
cd "$1"
tar -xzpf "$2"
rm "$2"
for name in /proc /sys /dev "$3"; do
  mkdir -p "$name" "$1$name"
  mount -o rbind "$name" "$1$name"
done
"""


def mounted(workload: str) -> str:
    """Return the path on the target of a workload's root."""
    return f"{_MOUNTED}/{workload}"


def packed(workload: str) -> str:
    """Return the path to which the archive of a root, a compressed tar, is copied."""
    return f"{mounted(workload)}/{_PACKED}"


def prepare(workload: str) -> Sequence[str]:
    """Return the command that makes place for a root."""
    return ["/bin/sh", "-c", _PREPARE, "sh", mounted(workload)]


def unpack(workload: str) -> Sequence[str]:
    """Return the command that unpacks the copied archive, and mounts what a root needs."""
    return ["/bin/sh", "-c", _UNPACK, "sh", mounted(workload), packed(workload), _FILES]
