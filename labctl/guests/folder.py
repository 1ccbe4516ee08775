"""The folder of a guest, with its logs and sockets."""

from __future__ import annotations

import shlex

from labctl.guests import launchers, qemu
from labctl.guests.qemu import GuestSpec


def prepare_folder(spec: GuestSpec) -> None:
    """Create the guest's folder with mode 0700, and write its command line there."""
    spec.folder.mkdir(parents=True, exist_ok=True)
    spec.folder.chmod(0o700)
    # Until QEMU truncates the log, the console of an earlier boot would be read as
    # the console of this one.
    (spec.folder / qemu.CONSOLE_LOG).unlink(missing_ok=True)
    (spec.folder / qemu.COMMAND).write_text(shlex.join(launchers.command(spec)) + "\n")
