"""QEMU's gdb server of a guest."""

from __future__ import annotations

from labctl.errors import GuestLost
from labctl.guests.guest import Guest


def serve(guest: Guest, socket: str) -> None:
    """Let gdb attach through a socket in the guest's folder.

    Raises:
        GuestLost: QEMU did not start its gdb server.
    """
    answer = guest.monitor(f"gdbserver unix:{socket},server=on,wait=off")
    if "Waiting for gdb connection" not in answer:
        raise GuestLost(f"QEMU did not start its gdb server: {answer.strip()}", where=guest.name)


def stop(guest: Guest) -> None:
    """Stop QEMU's gdb server and resume the guest."""
    guest.monitor("gdbserver none")
    guest.qmp("cont")
