"""The folder of a guest, with its logs and sockets."""

from __future__ import annotations

import shlex
from pathlib import Path

from labctl import files
from labctl.errors import HostError
from labctl.guests import launchers, qemu, scratch
from labctl.guests.qemu import GuestSpec

_CONSOLE_BYTES = 64 * 1024  # about the output of one boot


def check_disk(folder: Path) -> None:
    """Check that a guest's console can be written; QEMU drops it without an error.

    Raises:
        HostError: the disk is full.
    """
    if files.free_bytes(folder) < _CONSOLE_BYTES:
        raise HostError(
            "disk full: QEMU cannot write the guest's console",
            where=str(folder),
            hint="free disk space; `labctl clean` removes files that labctl can rebuild",
        )


def prepare_folder(spec: GuestSpec) -> None:
    """Create the guest's folder with mode 0700, with its scratch disks and command line.

    Raises:
        HostError: a disk cannot be created.
    """
    spec.folder.mkdir(parents=True, exist_ok=True)
    spec.folder.chmod(0o700)
    # Until QEMU truncates the log, the console of an earlier boot would be read as
    # the console of this one.
    (spec.folder / qemu.CONSOLE_LOG).unlink(missing_ok=True)
    command = spec.folder / qemu.COMMAND
    with files.naming(command):
        command.write_text(shlex.join(launchers.command(spec)) + "\n")
    scratch.create(spec.folder, spec.topology)
