"""Launchers by their names in lab.yaml: each turns a `GuestSpec` into a command line.

A guest of any launcher has the same files and sockets in its folder (their names
stand in qemu.py): the console's log, the command port, the monitor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from labctl.guests import confine, initramfs, qemu, virtme
from labctl.guests.qemu import GuestSpec
from labctl.host import sandbox


class Launcher(Protocol):
    """One way to start a guest."""

    def command(self, spec: GuestSpec) -> list[str]:
        """Return the command line as a user would type it. Pure."""

    def argv(self, spec: GuestSpec) -> list[str]:
        """Return what starts the guest in its folder: a QEMU.

        Raises:
            HostError: the launcher's own program is missing, or rejected.
        """

    def find(self) -> str:
        """Return the launcher's program.

        Raises:
            HostError: it is not installed.
        """


_LAUNCHERS: dict[str, Launcher] = {"qemu": qemu, "virtme-ng": virtme}
# Kconfig fragments of a launcher, in addition to guest/kconfig/base.config.
_FRAGMENTS = {"virtme-ng": ("virtme.config",)}


def command(spec: GuestSpec) -> list[str]:
    """Return the command line of a guest as a user would type it."""
    return _LAUNCHERS[spec.launcher].command(spec)


def argv(spec: GuestSpec) -> list[str]:
    """Return what starts a guest in its folder; raises as `Launcher.argv`.

    A host without QEMU's sandbox or Landlock starts guests outside it: `labctl doctor` reports it.
    """
    return confine.confined(sandbox.kept(_LAUNCHERS[spec.launcher].argv(spec)), spec)


def check(launcher: str) -> None:
    """Raise a `HostError` if the launcher's program is not installed."""
    _LAUNCHERS[launcher].find()


def fragments(launcher: str) -> tuple[Path, ...]:
    """Return the kconfig fragments that a launcher adds to each kernel's own."""
    folder = initramfs.source_folder() / "kconfig"
    return tuple(folder / name for name in _FRAGMENTS.get(launcher, ()))
